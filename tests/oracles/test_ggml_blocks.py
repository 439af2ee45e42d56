"""q8_0 and q4_0, byte for byte against the block definitions of ggml written out weight by weight."""

import struct

import numpy as np
import pytest

from quantwise.grids.ggml_blocks import GgmlBlocks


def slow_q8_0(row: np.ndarray) -> bytes:
    out = b""
    for block in row.reshape(-1, 32):
        d = np.float32(max(abs(x) for x in block)) / np.float32(127)
        inverse = np.float32(1) / d if d else np.float32(0)
        codes = []
        for x in block:
            scaled = np.float32(x * inverse)
            half_away = np.floor(abs(scaled) + np.float32(0.5))
            codes.append(int(np.copysign(half_away, scaled)))
        out += np.float16(d).tobytes() + struct.pack("32b", *codes)
    return out


def slow_q4_0(row: np.ndarray) -> bytes:
    out = b""
    for block in row.reshape(-1, 32):
        largest = max(block, key=abs)
        d = np.float32(largest) / np.float32(-8)
        inverse = np.float32(1) / d if d else np.float32(0)
        codes = [min(15, int(np.float32(np.float32(x * inverse) + np.float32(8.5)))) for x in block]
        packed = [codes[i] | codes[i + 16] << 4 for i in range(16)]
        out += np.float16(d).tobytes() + bytes(packed)
    return out


@pytest.mark.parametrize(("name", "slow"), [("q8_0", slow_q8_0), ("q4_0", slow_q4_0)])
def test_bytes_equal_the_definition(name: str, slow: object) -> None:
    values = np.random.default_rng(7).standard_normal((6, 160)).astype(np.float32)
    values[2] *= 1e-3
    values[4, 32:64] = 0
    stored = GgmlBlocks(name).encode(values)
    assert stored.tobytes() == b"".join(slow(row) for row in values)  # type: ignore[operator]


@pytest.mark.parametrize(("name", "bits", "share"), [("q8_0", 8.5, 1 / 127), ("q4_0", 4.5, 1 / 8), ("f16", 16, 2**-10)])
def test_decoding_comes_back_within_the_step(name: str, bits: float, share: float) -> None:
    values = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    grid = GgmlBlocks(name)
    assert grid.bits_per_weight == bits
    error = np.abs(grid.decode(grid.encode(values)) - values).reshape(4, 2, 32)
    largest = np.abs(values).reshape(4, 2, 32).max(-1, keepdims=True)
    assert bool((error <= largest * share * 1.01).all())
