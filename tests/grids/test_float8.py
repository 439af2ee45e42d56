"""FP8 against all of its 256 bytes, written out by hand."""

import itertools

import pytest
import torch

from quantwise.core.errors import QuantwiseError
from quantwise.grids.float8 import Float8Grid, from_bytes, input_scale, to_bytes
from quantwise.grids.int8_inputs import fixed_scale


def number(byte: int) -> float:
    """What a byte of e4m3 stands for, by the definition of the type."""
    exponent, mantissa = byte >> 3 & 15, byte & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    size = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if byte >> 7 else size


NUMBERS = {byte: number(byte) for byte in range(256) if byte & 127 != 127}


def nearest(value: float) -> float:
    """By trying all bytes: the nearest number, of two the one with an even mantissa. All in exact doubles."""
    return min(NUMBERS.items(), key=lambda item: (abs(item[1] - value), item[0] & 1))[1]


def test_codes_are_ranks_and_cover_every_byte_but_nan() -> None:
    stored = torch.tensor(sorted(NUMBERS), dtype=torch.uint8).view(torch.float8_e4m3fn)
    codes = from_bytes(stored)
    assert codes.abs().max() == 126
    assert torch.equal(to_bytes(codes).float(), stored.float())
    values = Float8Grid().value(torch.arange(-126, 127).float(), torch.ones(1))
    assert sorted(set(NUMBERS.values())) == values.tolist()


def test_rounding_is_to_the_nearest_even_and_saturates() -> None:
    values = torch.cat([torch.randn(1500, generator=torch.Generator().manual_seed(0)) * scale for scale in (0.01, 40)])
    ends = sorted(set(NUMBERS.values()))
    middles = torch.tensor([(a + b) / 2 for a, b in itertools.pairwise(ends)])
    values = torch.cat([values, middles, torch.tensor([448.0, 463.9, 464.0, 470.0, 1e9, -1e9, 0.0])])
    grid = Float8Grid(scale_dtype=torch.float32)
    read = grid.value(grid.round(values, torch.ones(1)), torch.ones(1))
    assert read.tolist() == [nearest(v) for v in values.tolist()]


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_scales_bring_the_largest_weight_to_the_top(granularity: str) -> None:
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(-6, 1, 24).unsqueeze(1)
    weight[3] = 0
    grid = Float8Grid(granularity, scale_dtype=torch.float32)  # type: ignore[arg-type]
    codes, steps = grid.quantize(weight)
    assert codes.dtype == torch.int8
    assert codes.abs().max() == 126
    if granularity == "channel":
        # Three bits of mantissa: at most half a step of 2^-3, or half the smallest number of the row.
        error = (grid.decode(codes, steps) - weight).abs()
        assert bool((error <= torch.maximum(weight.abs() * 2**-4, steps.scale * 2**-10) * 1.0001).all())
        assert bool((grid.decode(codes, steps)[3] == 0).all())
    again, _ = grid.quantize(grid.decode(codes, steps))
    assert torch.equal(again, codes)


def test_a_fixed_scale_of_inputs_covers_the_largest_one() -> None:
    assert input_scale(torch.tensor([1.0, 896.0, 0.0])).tolist() == [2.0]
    assert input_scale(torch.zeros(4)).tolist() == [1.0]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_give_no_scale(broken: float) -> None:
    """A scale of 1, or of infinity, would be stored and silently wrong."""
    for scale in (input_scale, fixed_scale):
        with pytest.raises(QuantwiseError, match="not finite"):
            scale(torch.tensor([1.0, broken]))
