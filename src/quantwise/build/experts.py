"""Experts of a mixture, each as linear layers of its own.

Transformers 5 holds all experts of a block in two fused parameters; in the folder, and in every format that we write,
each expert has its matrices. Separate layers let one walk treat them as any other layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quantwise.core.errors import InputError


class Expert(nn.Module):
    """One gated feed-forward layer."""

    def __init__(self, hidden: int, inner: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)
        self.act = act

    def forward(self, rows: Tensor) -> Tensor:
        """(tokens, hidden) to the same shape."""
        out: Tensor = self.down_proj(self.act(self.gate_proj(rows)) * self.up_proj(rows))
        return out


class SeparateExperts(nn.ModuleList):
    """What a fused experts module computes. ``real`` marks the tokens that are no padding; others come out as zero,
    which changes nothing at real positions of a causal model, and keeps padding out of every expert's statistics.
    """

    real: Tensor | None = None

    def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """``hidden`` (tokens, width), ``chosen`` and ``weights`` (tokens, experts per token) to (tokens, width)."""
        out = torch.zeros_like(hidden)
        real = torch.ones(len(hidden), dtype=torch.bool) if self.real is None else self.real.flatten()
        for number, expert in enumerate(self):
            token, place = torch.where((chosen == number) & real[:, None])
            if len(token):
                made = expert(hidden[token]) * weights[token, place, None]
                out.index_add_(0, token, made.to(out.dtype))
        return out


def separate(fused: nn.Module) -> SeparateExperts:
    """Separate experts of the shapes of a ``fused`` module, on torch's meta device.

    Raises InputError where it is fused in another way than Mixtral's: (experts, 2 x inner, hidden) without bias.
    """
    gate_up, down = getattr(fused, "gate_up_proj", None), getattr(fused, "down_proj", None)
    act = getattr(fused, "act_fn", None)
    plain = {name for name, _ in fused.named_parameters()} == {"gate_up_proj", "down_proj"}
    if not (plain and isinstance(gate_up, Tensor) and isinstance(down, Tensor) and callable(act)):
        raise InputError(f"experts of class {type(fused).__name__} are fused in a way that is not known here")
    if getattr(fused, "is_transposed", False) or gate_up.shape[1] != 2 * down.shape[2]:
        raise InputError(f"experts of class {type(fused).__name__} are stored transposed, which is not known here")
    count, hidden, inner = down.shape
    with torch.device("meta"):
        return SeparateExperts([Expert(hidden, inner, act) for _ in range(count)])
