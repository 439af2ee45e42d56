"""Where ggml puts the bits: blocks of 32 or 256 weights as bytes, taken apart and put together without loss.

Written after the structs and comments of ggml/src/ggml-common.h. All arrays have one row for each block; ``u8`` below
are a block's bytes. Every function pair is exact: ``join(split(u8)) == u8``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Fields:
    """The numbers of n blocks.

    ``codes`` uint8 (n, weights) as stored, before an offset is taken off; ``d`` float16 (n,) and ``m`` float16 (n,) or
    None: the block's scale and minimum. ``scales`` and ``minima`` are the small integers of its sub-blocks, int16
    (n, sub-blocks), None where there are none.
    """

    codes: Bytes
    d: npt.NDArray[np.float16]
    m: npt.NDArray[np.float16] | None = None
    scales: npt.NDArray[np.int16] | None = None
    minima: npt.NDArray[np.int16] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """One type: ``weights`` and ``size`` (bytes) of a block; codes of ``bits`` bits, of which ``offset`` stands for 0;
    ``sub`` weights share a scale.
    """

    weights: int
    size: int
    bits: int
    offset: int
    sub: int
    split: Callable[[Bytes], Fields]
    join: Callable[[Fields], Bytes]
    lowest: int


def _half(u8: Bytes, at: int) -> npt.NDArray[np.float16]:
    return np.ascontiguousarray(u8[:, at : at + 2]).view("<f2")[:, 0]


def _raw(half: npt.NDArray[np.float16] | None) -> Bytes:
    if half is None:
        raise ValueError("a block of this type has a minimum")
    return np.ascontiguousarray(half.astype("<f2")).view(np.uint8).reshape(-1, 2)


def _spread(u8: Bytes, bits: int, per_byte: int, run: int) -> Bytes:
    """Bit fields out of bytes: ``run`` bytes hold first the lowest ``bits`` of ``run`` weights, then the next ..."""
    parts = u8.reshape(len(u8), -1, 1, run)
    shifts = (np.arange(per_byte, dtype=np.uint8) * bits).reshape(1, 1, -1, 1)
    return ((parts >> shifts) & np.uint8((1 << bits) - 1)).reshape(len(u8), -1)


def _gather(codes: Bytes, bits: int, per_byte: int, run: int) -> Bytes:
    """The inverse of ``_spread``."""
    parts = (codes & np.uint8((1 << bits) - 1)).reshape(len(codes), -1, per_byte, run)
    shifts = (np.arange(per_byte, dtype=np.uint8) * bits).reshape(1, 1, -1, 1)
    merged: Bytes = np.bitwise_or.reduce(parts << shifts, axis=2).reshape(len(codes), -1)
    return merged


def _bits(u8: Bytes) -> Bytes:
    """32 bits, the lowest of the first byte first."""
    return np.unpackbits(u8, axis=1, bitorder="little")


def _split_q8_0(u8: Bytes) -> Fields:
    return Fields(u8[:, 2:] ^ np.uint8(0x80), _half(u8, 0))


def _join_q8_0(f: Fields) -> Bytes:
    return np.hstack([_raw(f.d), f.codes ^ np.uint8(0x80)])


def _split_4(u8: Bytes, minimum: bool) -> Fields:
    at = 4 if minimum else 2
    return Fields(_spread(u8[:, at:], 4, 2, 16), _half(u8, 0), _half(u8, 2) if minimum else None)


def _join_4(f: Fields, minimum: bool) -> Bytes:
    return np.hstack([_raw(f.d), *([_raw(f.m)] if minimum else []), _gather(f.codes, 4, 2, 16)])


def _split_5(u8: Bytes, minimum: bool) -> Fields:
    at = 4 if minimum else 2
    codes = _spread(u8[:, at + 4 :], 4, 2, 16) | _bits(u8[:, at : at + 4]) << np.uint8(4)
    return Fields(codes, _half(u8, 0), _half(u8, 2) if minimum else None)


def _join_5(f: Fields, minimum: bool) -> Bytes:
    high = np.packbits(f.codes >> np.uint8(4), axis=1, bitorder="little")
    return np.hstack([_raw(f.d), *([_raw(f.m)] if minimum else []), high, _gather(f.codes, 4, 2, 16)])


def _split_q2(u8: Bytes) -> Fields:
    small = u8[:, :16]
    scales, minima = (small & 15).astype(np.int16), (small >> np.uint8(4)).astype(np.int16)
    return Fields(_spread(u8[:, 16:80], 2, 4, 32), _half(u8, 80), _half(u8, 82), scales, minima)


def _join_q2(f: Fields) -> Bytes:
    scales, minima = _small(f)
    return np.hstack([scales | minima << np.uint8(4), _gather(f.codes, 2, 4, 32), _raw(f.d), _raw(f.m)])


def _split_q3(u8: Bytes) -> Fields:
    # Of the 16 scales of 6 bits, 8 bytes hold the low 4 bits and 4 bytes the high 2.
    low = _spread(u8[:, 96:104], 4, 2, 8)
    high = _spread(u8[:, 104:108], 2, 4, 4)
    scales = (low | high << np.uint8(4)).astype(np.int16) - 32
    codes = _spread(u8[:, 32:96], 2, 4, 32) | _spread(u8[:, :32], 1, 8, 32) << np.uint8(2)
    return Fields(codes, _half(u8, 108), None, scales)


def _join_q3(f: Fields) -> Bytes:
    if f.scales is None:
        raise ValueError("a block of q3_k has scales")
    scales = (f.scales + 32).astype(np.uint8)
    return np.hstack(
        [
            _gather(f.codes >> np.uint8(2), 1, 8, 32),
            _gather(f.codes, 2, 4, 32),
            _gather(scales, 4, 2, 8),
            _gather(scales >> np.uint8(4), 2, 4, 4),
            _raw(f.d),
        ]
    )


def _split_small_6(u8: Bytes) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """8 scales and 8 minima of 6 bits in 12 bytes: four of each with the high bits of the others above them."""
    first, second, rest = u8[:, :4], u8[:, 4:8], u8[:, 8:12]
    scales = np.hstack([first & 63, rest & 15 | first >> 6 << np.uint8(4)])
    minima = np.hstack([second & 63, rest >> 4 | second >> 6 << np.uint8(4)])
    return scales.astype(np.int16), minima.astype(np.int16)


def _join_small_6(scales: Bytes, minima: Bytes) -> Bytes:
    first = scales[:, :4] | scales[:, 4:] >> 4 << 6
    second = minima[:, :4] | minima[:, 4:] >> 4 << 6
    return np.hstack([first, second, scales[:, 4:] & 15 | minima[:, 4:] << np.uint8(4)])


def _small(f: Fields) -> tuple[Bytes, Bytes]:
    if f.scales is None or f.minima is None:
        raise ValueError("a block of this type has scales and minima")
    return f.scales.astype(np.uint8), f.minima.astype(np.uint8)


def _split_q4(u8: Bytes) -> Fields:
    return Fields(_spread(u8[:, 16:], 4, 2, 32), _half(u8, 0), _half(u8, 2), *_split_small_6(u8[:, 4:16]))


def _join_q4(f: Fields) -> Bytes:
    return np.hstack([_raw(f.d), _raw(f.m), _join_small_6(*_small(f)), _gather(f.codes, 4, 2, 32)])


def _split_q5(u8: Bytes) -> Fields:
    codes = _spread(u8[:, 48:], 4, 2, 32) | _spread(u8[:, 16:48], 1, 8, 32) << np.uint8(4)
    return Fields(codes, _half(u8, 0), _half(u8, 2), *_split_small_6(u8[:, 4:16]))


def _join_q5(f: Fields) -> Bytes:
    high = _gather(f.codes >> np.uint8(4), 1, 8, 32)
    return np.hstack([_raw(f.d), _raw(f.m), _join_small_6(*_small(f)), high, _gather(f.codes, 4, 2, 32)])


def _split_q6(u8: Bytes) -> Fields:
    codes = _spread(u8[:, :128], 4, 2, 64) | _spread(u8[:, 128:192], 2, 4, 32) << np.uint8(4)
    return Fields(codes, _half(u8, 208), None, u8[:, 192:208].view(np.int8).astype(np.int16))


def _join_q6(f: Fields) -> Bytes:
    if f.scales is None:
        raise ValueError("a block of q6_k has scales")
    scales = f.scales.astype(np.int8).view(np.uint8)
    return np.hstack([_gather(f.codes, 4, 2, 64), _gather(f.codes >> np.uint8(4), 2, 4, 32), scales, _raw(f.d)])


LAYOUTS: dict[str, Layout] = {
    # The code -128 of q8_0 is left out, as ggml's encoder does.
    "q8_0": Layout(32, 34, 8, 128, 32, _split_q8_0, _join_q8_0, -127),
    "q4_0": Layout(32, 18, 4, 8, 32, lambda u8: _split_4(u8, False), lambda f: _join_4(f, False), -8),
    "q4_1": Layout(32, 20, 4, 0, 32, lambda u8: _split_4(u8, True), lambda f: _join_4(f, True), 0),
    "q5_0": Layout(32, 22, 5, 16, 32, lambda u8: _split_5(u8, False), lambda f: _join_5(f, False), -16),
    "q5_1": Layout(32, 24, 5, 0, 32, lambda u8: _split_5(u8, True), lambda f: _join_5(f, True), 0),
    "q2_k": Layout(256, 84, 2, 0, 16, _split_q2, _join_q2, 0),
    "q3_k": Layout(256, 110, 3, 4, 16, _split_q3, _join_q3, -4),
    "q4_k": Layout(256, 144, 4, 0, 32, _split_q4, _join_q4, 0),
    "q5_k": Layout(256, 176, 5, 0, 32, _split_q5, _join_q5, 0),
    "q6_k": Layout(256, 210, 6, 32, 16, _split_q6, _join_q6, -32),
}
