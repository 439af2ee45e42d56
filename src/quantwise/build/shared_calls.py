"""What a model gives its blocks beside the hidden states, kept once for all batches: parts of the longest one's masks.

Kept for each batch, the masks of a model with windows, or with eager attention, may take more than its hidden states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class SharedCalls:
    """Keyword arguments of calls, their tensors replaced by views of equal values that are kept already.

    A tensor is kept itself only where nothing that is kept begins with it; rows of a batch that are all equal count as
    one. So give the longest batch first.
    """

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    @property
    def bytes(self) -> int:
        """Held by all calls together."""
        return sum(kept.numel() * kept.element_size() for kept in self._kept)

    def share(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The arguments of all blocks in one pass of the model; blocks with one tensor share it afterwards too."""
        known: dict[int, Tensor] = {}
        return [self._all(call, known) for call in calls]

    def _all(self, value: Any, known: dict[int, Tensor]) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in known:
                known[id(value)] = self._view(value)
            return known[id(value)]
        if isinstance(value, Mapping) and type(value) is dict:
            return {name: self._all(one, known) for name, one in value.items()}
        return tuple(self._all(one, known) for one in value) if type(value) is tuple else value

    def _view(self, tensor: Tensor) -> Tensor:
        one = tensor[:1] if tensor.ndim and torch.equal(tensor[:1].expand_as(tensor), tensor) else tensor
        for kept in self._kept:
            if kept.dtype != one.dtype or kept.ndim != one.ndim:
                continue
            if all(whole >= part for whole, part in zip(kept.shape, one.shape, strict=True)):
                begins = kept[tuple(slice(part) for part in one.shape)]
                if torch.equal(begins, one):
                    return begins.expand_as(tensor)
        self._kept.append(one.clone())
        return self._kept[-1].expand_as(tensor)
