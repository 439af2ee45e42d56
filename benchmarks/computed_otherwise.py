"""The numbers of a model folder, computed otherwise than by the Transformers runtime: what rounding alone changes.

In another type, with another order of sums in attention, or with the inputs of linear layers rounded to int8 as vLLM
does on processors with AMX for 4-bit weights, whatever the folder says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quantwise.grids.int8_inputs import round_tokens
from quantwise.models.config import quantization_settings
from quantwise.runtimes.transformers_folder import filled


class Int8Inputs(nn.Module):
    """A linear layer whose inputs are rounded to int8, a scale per token; sums in float32, rounded once."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (..., out) in the type of ``inputs`` (..., in)."""
        codes, scale = round_tokens(inputs)
        out = (codes.float() * scale) @ self.weight.float().T
        return (out if self.bias is None else out + self.bias.float()).to(inputs.dtype)


def model_in(folder: Path, dtype: torch.dtype, rounded: bool = False, attention: str = "sdpa") -> Any:
    """The folder's model with everything but codes in ``dtype``; inputs rounded where its scheme does, and in every
    linear layer but the last where ``rounded``.
    """
    from transformers import AutoModelForCausalLM

    settings = quantization_settings(folder)
    if settings:
        model = filled(folder, settings, dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, local_files_only=True).eval()
    model.set_attn_implementation(attention)
    inner = [(name, m) for name, m in model.named_modules() if type(m) is nn.Linear and name != "lm_head"]
    for name, linear in inner if rounded else ():
        model.set_submodule(name, Int8Inputs(linear))
    return model


@torch.inference_mode()
def logits(model: Any, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """For each text, given as its tokens after the one that opens it: float32 (tokens, vocabulary)."""
    opening = model.config.eos_token_id
    return [model(torch.tensor([[opening, *text]])).logits[0, :-1].float() for text in texts]
