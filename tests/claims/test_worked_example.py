"""The literature's worked example of symmetric int4, to the digit, and per-channel against per-tensor scales."""

from __future__ import annotations

import pytest
import torch

from quantwise.core.scheme import parse_scheme
from quantwise.grids.integer import IntegerGrid, integer_grid
from quantwise.quantize import QUANTIZERS

EXAMPLE = torch.tensor([[0.18, -0.91, 1.62, 2.94]])


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_four_weights_in_symmetric_int4(granularity: str) -> None:
    grid = IntegerGrid(4, granularity, scale_dtype=torch.float32)  # type: ignore[arg-type]
    codes, steps = grid.quantize(EXAMPLE)
    assert round(steps.scale.item(), 6) == 0.42
    assert codes.tolist() == [[0, -2, 4, 7]]
    values = grid.decode(codes, steps)
    assert torch.round(values, decimals=6).tolist() == torch.tensor([[0.0, -0.84, 1.68, 2.94]]).tolist()
    assert torch.round((values - EXAMPLE).abs(), decimals=6).max() == pytest.approx(0.18)


def test_the_stored_scale_is_the_nearest_that_16_bit_hold() -> None:
    codes, steps = integer_grid(parse_scheme("int4-channel")).quantize(EXAMPLE)
    assert codes.tolist() == [[0, -2, 4, 7]]
    assert steps.scale.item() == torch.tensor(0.42).to(torch.bfloat16).item() == 0.419921875


def relative_errors(weight: torch.Tensor, scheme: str) -> torch.Tensor:
    """Mean square error of each row as a share of the row's mean square."""
    made = QUANTIZERS["rtn"]()(weight, integer_grid(parse_scheme(scheme)), {})
    return (made.dequantized - weight).square().mean(1) / weight.square().mean(1)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_scale_per_channel_beats_one_per_tensor_on_rows_of_different_scale(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.logspace(0, -2, 32)[:, None] * torch.randn(32, 256)
    per_channel, per_tensor = (relative_errors(weight, f"int{bits}-{shape}") for shape in ("channel", "tensor"))
    assert (per_channel[4:] < per_tensor[4:]).all()
    assert per_tensor.mean() > 20 * per_channel.mean()
    # Rows of a hundredth of the largest scale are lost with one scale for all in 4 bit: every weight rounds to zero.
    assert per_tensor[-1] == pytest.approx(1.0, abs=1e-3) if bits == 4 else per_tensor[-1] < 1


def test_on_rows_of_one_scale_the_two_hardly_differ() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 256)
    ratio = relative_errors(weight, "int8-tensor").mean() / relative_errors(weight, "int8-channel").mean()
    assert 1.0 < ratio < 2.5
