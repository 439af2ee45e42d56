"""Input statistics of every linear layer of the 16-bit model, block by block, in one pass over the calibration set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantwise.build.calibration import Batch
from quantwise.core.errors import InputError


@dataclass(frozen=True, slots=True)
class BlockStatistics:
    """One decoder block: ``hessians`` maps a layer's full name to the float64 (in, in) sum of x x^T over real tokens.

    Layers that read the same tensor (q, k and v; gate and up) share one Hessian object.
    """

    index: int
    hessians: dict[str, Tensor]


class _Stop(Exception):
    """No error: it ends a forward pass once the first block's input is known."""


def decoder_blocks(model: nn.Module) -> tuple[str, Sequence[nn.Module]]:
    """Prefix and decoder blocks of a Transformers model. Raises InputError where they are not where Llama has them."""
    blocks = getattr(getattr(model, "model", None), "layers", None)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise InputError(f"{type(model).__name__} has no decoder blocks at model.layers; give a Llama-like model")
    return "model.layers", list(blocks)


def linear_layers(prefix: str, index: int, block: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of one block by their full names."""
    named = block.named_modules()
    return {f"{prefix}.{index}.{name}": module for name, module in named if isinstance(module, nn.Linear)}


@torch.no_grad()
def walk_blocks(model: nn.Module, batches: Sequence[Batch]) -> Iterator[BlockStatistics]:
    """Run block after block over all batches and yield each one's statistics; inputs are those of the 16-bit model.

    Holds the hidden states of all batches (tokens x hidden, float32) and the Hessians of one block.
    """
    prefix, blocks = decoder_blocks(model)
    calls = [_first_input(model, blocks[0], batch) for batch in batches]
    for index, block in enumerate(blocks):
        layers = linear_layers(prefix, index, block)
        sums = _Sums()
        handles = [layer.register_forward_pre_hook(sums.hook(name)) for name, layer in layers.items()]
        try:
            for i, (batch, (hidden, keywords)) in enumerate(zip(batches, calls, strict=True)):
                sums.begin(batch.real)
                out = block(hidden, **keywords)
                calls[i] = (out[0] if isinstance(out, tuple) else out, keywords)
        finally:
            for handle in handles:
                handle.remove()
        yield BlockStatistics(index, sums.hessians)


def _first_input(model: nn.Module, first: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
    """Hidden states and keyword arguments with which the model calls its first block."""
    caught: list[tuple[Tensor, dict[str, Any]]] = []

    def catch(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        caught.append((args[0] if args else keywords.pop("hidden_states"), keywords))
        raise _Stop

    handle = first.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        model(input_ids=batch.ids, use_cache=False)
    except _Stop:
        pass
    finally:
        handle.remove()
    return caught[0]


class _Sums:
    """Adds up x x^T for the layers of one block, once for each distinct input tensor."""

    def __init__(self) -> None:
        self.hessians: dict[str, Tensor] = {}
        self._real = torch.empty(0)
        self._seen: list[tuple[Tensor, Tensor]] = []

    def begin(self, real: Tensor) -> None:
        """A new batch: ``real`` marks its tokens that are no padding."""
        self._real, self._seen = real, []

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        """A forward pre-hook for one layer."""

        def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs = args[0]
            for tensor, hessian in self._seen:
                if tensor is inputs:
                    self.hessians[name] = hessian
                    return
            rows = inputs[self._real].float()
            if name not in self.hessians:
                self.hessians[name] = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
            self.hessians[name] += (rows.T @ rows).double()
            self._seen.append((inputs, self.hessians[name]))

        return add
