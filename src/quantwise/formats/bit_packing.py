"""Unsigned codes of 2, 3, 4 or 8 bits in 32-bit words: one stream of bits, the first code in the lowest bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quantwise.formats.checkpoint_limits import packs

_WORD = 32


def pack_words(codes: Tensor, bits: int) -> Tensor:
    """int32 (..., n * bits / 32) of whole codes (..., n) in 0 .. 2^bits - 1; three-bit codes may straddle two words.

    Raises ValueError where words stay unfilled.
    """
    if not packs(codes.shape[-1], bits):
        raise ValueError(f"{codes.shape[-1]} codes of {bits} bits do not fill words of {_WORD}")
    in_period = _WORD // math.gcd(_WORD, bits)
    periods = codes.to(torch.int64).reshape(*codes.shape[:-1], -1, in_period)
    words = torch.zeros(*periods.shape[:-1], in_period * bits // _WORD, dtype=torch.int64)
    for i in range(in_period):
        word, shift = divmod(i * bits, _WORD)
        words[..., word] |= periods[..., i] << shift
        if shift + bits > _WORD:
            words[..., word + 1] |= periods[..., i] >> (_WORD - shift)
    words &= 0xFFFFFFFF
    signed = torch.where(words >= 1 << (_WORD - 1), words - (1 << _WORD), words)
    return signed.to(torch.int32).reshape(*codes.shape[:-1], -1)


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """The codes that ``pack_words`` packed: int32 (..., n)."""
    in_period = _WORD // math.gcd(_WORD, bits)
    periods = (words.to(torch.int64) & 0xFFFFFFFF).reshape(*words.shape[:-1], -1, in_period * bits // _WORD)
    codes = torch.empty(*periods.shape[:-1], in_period, dtype=torch.int64)
    for i in range(in_period):
        word, shift = divmod(i * bits, _WORD)
        codes[..., i] = periods[..., word] >> shift
        if shift + bits > _WORD:
            codes[..., i] |= periods[..., word + 1] << (_WORD - shift)
    return (codes & ((1 << bits) - 1)).to(torch.int32).reshape(*words.shape[:-1], -1)
