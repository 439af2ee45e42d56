"""Codes of the quantized cache against loops that do one number at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from quantwise.kv_cache.codes import cut, decode, encode, joined, rows


def slow(values: Tensor, bits: int, group: int | None) -> tuple[list[list[int]], list[list[float]]]:
    """Codes and values of a (tokens, channels) matrix, number by number."""
    tokens, channels = values.shape
    codes = [[0] * channels for _ in range(tokens)]
    told = [[0.0] * channels for _ in range(tokens)]
    for t in range(tokens):
        for c in range(channels):
            first = 0 if group is None else t // group * group
            shares = values[t] if group is None else values[first : first + group, c]
            around = [float(v) for v in shares]
            low = 0.0 if bits == 8 else float(np.float16(min(around)))
            top = max(map(abs, around)) / 127 if bits == 8 else (max(around) - low) / 15
            scale = float(np.float16(np.float32(top)))
            code = round((float(values[t, c]) - low) / scale) if scale else 0
            code = max(-127 if bits == 8 else 0, min(127 if bits == 8 else 15, code))
            codes[t][c], told[t][c] = code, low + scale * code
    return codes, told


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", [None, 4])
def test_codes_and_values_are_those_of_the_loop(bits: int, group: int | None) -> None:
    torch.manual_seed(0)
    values = torch.randn(8, 6) * torch.tensor([1.0, 1, 20, 0.1, 1, 3]) + torch.tensor([0.0, 0, 30, 0, -2, 0])
    values[:, 3] = 0.5  # a constant channel
    made = encode(values[None, None], bits, group)
    codes, told = slow(values, bits, group)
    if bits == 8:
        assert made.packed[0, 0].tolist() == codes
    else:
        assert made.packed[0, 0].tolist() == [[row[c] + 16 * row[c + 1] for c in (0, 2, 4)] for row in codes]
    assert decode(made, torch.float32)[0, 0].numpy() == pytest.approx(np.array(told), abs=1e-5)


@pytest.mark.parametrize(("bits", "group"), [(8, None), (8, 4), (4, None), (4, 4)])
def test_an_error_is_at_most_half_a_step(bits: int, group: int | None) -> None:
    torch.manual_seed(1)
    values = torch.randn(2, 3, 16, 8)
    made = encode(values, bits, group)
    step = made.scale.float() if group is None else made.scale.float().repeat_interleave(group, dim=-2)
    # The largest number may lie beyond the last code by what float16 takes off the scale.
    beyond = step * (127 if bits == 8 else 15) * 2**-11
    assert bool(((decode(made, torch.float32) - values).abs() <= step / 2 + beyond + 1e-3 * step).all())


def test_what_is_stored_is_as_small_as_it_says() -> None:
    values = torch.randn(2, 3, 64, 16)
    counts = {(8, None): 16 + 2, (4, None): 8 + 4}
    for (bits, group), each in counts.items():
        held = sum(t.numel() * t.element_size() for t in encode(values, bits, group).tensors)
        assert held == 2 * 3 * 64 * each
    by_channel = sum(t.numel() * t.element_size() for t in encode(values, 4, 32).tensors)
    assert by_channel == 2 * 3 * (64 * 8 + 2 * 16 * 4)


@pytest.mark.parametrize("group", [None, 4])
def test_parts_are_put_together_and_taken_apart(group: int | None) -> None:
    torch.manual_seed(2)
    values = torch.randn(3, 2, 12, 6)
    whole = encode(values, 4, group)
    both = joined(joined(None, encode(values[:, :, :8], 4, group)), encode(values[:, :, 8:], 4, group))
    seen = decode(whole, torch.float32)
    assert len(whole) == len(both) == 12
    assert torch.equal(seen, decode(both, torch.float32))
    assert torch.equal(seen[:, :, :4], decode(cut(whole, 4), torch.float32))
    assert torch.equal(seen[[2, 0]], decode(rows(whole, torch.tensor([2, 0])), torch.float32))
