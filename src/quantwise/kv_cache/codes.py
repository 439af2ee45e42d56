"""Integer codes with float16 scales: rounding along one dimension, and two 4-bit codes to a byte.

8 bit: scale = absmax / 127, value = scale * code, code in -127 .. 127. 4 bit: scale = (max - min) / 15, value = min +
scale * code, code in 0 .. 15. Scale and minimum are rounded to float16 before a code is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_HIGHEST = {8: 127, 4: 15}


@dataclass(frozen=True, slots=True)
class Codes:
    """Rounded numbers of shape [..., T, D].

    ``packed``: int8 [..., T, D], or uint8 [..., T, D / 2] with the even channel in the low four bits. ``scale`` and
    ``minimum`` (None where symmetric): float16, of a shape that repeats to [..., T, D]: [..., T, 1] per token, or
    [..., T / group, D] per channel, with ``group`` tokens to a scale.
    """

    packed: Tensor
    scale: Tensor
    minimum: Tensor | None
    group: int

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What is stored."""
        return (self.packed, self.scale) if self.minimum is None else (self.packed, self.scale, self.minimum)

    def __len__(self) -> int:
        """Tokens."""
        return int(self.packed.shape[-2])


def encode(values: Tensor, bits: int, group: int | None = None) -> Codes:
    """Round ``values`` [..., T, D]: each token by itself, or each channel over ``group`` tokens.

    T must be a multiple of ``group``, and D even at 4 bit.
    """
    exact = values.float()
    parts, dim = (exact.unsqueeze(-3), -1) if group is None else (_in_groups(exact, group), -2)
    if bits == 8:
        minimum = None
        scale = (parts.abs().amax(dim, keepdim=True) / _HIGHEST[bits]).half()
        shifted, lowest = parts, -_HIGHEST[bits]
    else:
        minimum = parts.amin(dim, keepdim=True).half()
        scale = ((parts.amax(dim, keepdim=True) - minimum.float()) / _HIGHEST[bits]).half()
        shifted, lowest = parts - minimum.float(), 0
    # A constant group has the scale zero, and any code stands for its minimum.
    step = torch.where(scale > 0, scale.float(), 1.0)
    codes = (shifted / step).round_().clamp_(lowest, _HIGHEST[bits])
    flat = codes.reshape(values.shape)
    shared = [None if s is None else s.squeeze(-3 if group is None else -2) for s in (scale, minimum)]
    packed = flat.to(torch.int8) if bits == 8 else _two_to_a_byte(flat.to(torch.uint8))
    assert shared[0] is not None
    return Codes(packed, shared[0], shared[1], group or 1)


def decode(codes: Codes, dtype: torch.dtype) -> Tensor:
    """The numbers that the codes stand for, [..., T, D]."""
    whole = codes.packed if codes.packed.dtype is torch.int8 else _one_to_a_byte(codes.packed)
    values = _in_groups(whole.float(), codes.group) * codes.scale.float().unsqueeze(-2)
    if codes.minimum is not None:
        values = values + codes.minimum.float().unsqueeze(-2)
    return values.flatten(-3, -2).to(dtype)


def joined(first: Codes | None, second: Codes) -> Codes:
    """The tokens of both, one behind the other."""
    if first is None:
        return second
    pairs = zip(first.tensors, second.tensors, strict=True)
    return _of([torch.cat(pair, dim=-2) for pair in pairs], second.group)


def cut(codes: Codes, tokens: int) -> Codes:
    """The first ``tokens`` tokens, a whole number of groups."""
    packed, *shared = codes.tensors
    parts = [packed[..., :tokens, :], *(s[..., : tokens // codes.group, :] for s in shared)]
    return _of([part.clone() for part in parts], codes.group)


def rows(codes: Codes, indices: Tensor) -> Codes:
    """The batch rows ``indices``."""
    return _of([t.index_select(0, indices.to(t.device)) for t in codes.tensors], codes.group)


def _of(tensors: list[Tensor], group: int) -> Codes:
    return Codes(tensors[0], tensors[1], tensors[2] if len(tensors) > 2 else None, group)


def _in_groups(values: Tensor, group: int) -> Tensor:
    """[..., T, D] as [..., T / group, group, D]."""
    *before, tokens, width = values.shape
    return values.reshape(*before, tokens // group, group, width)


def _two_to_a_byte(codes: Tensor) -> Tensor:
    return codes[..., ::2] | (codes[..., 1::2] << 4)


def _one_to_a_byte(packed: Tensor) -> Tensor:
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)
