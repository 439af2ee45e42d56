"""SmoothQuant against equation 4 of its paper, one channel at a time."""

import pytest
import torch

from quantwise.core.errors import QuantwiseError
from quantwise.core.scheme import parse_scheme
from quantwise.grids.integer import integer_grid
from quantwise.transform.smoothquant import SmoothQuant

GRID = integer_grid(parse_scheme("int8-channel"))


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.8])
def test_the_scale_is_the_formula(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 12, generator=generator) * torch.logspace(-1, 2, 12)
    sinks = [torch.randn(rows, 12, generator=generator) for rows in (7, 3)]
    scale = SmoothQuant(alpha)(sinks, [GRID] * len(sinks), {"absmax": x.abs().amax(0)}).scale
    for j in range(12):
        largest_input = max(abs(float(v)) for v in x[:, j])
        largest_weight = max(abs(float(v)) for sink in sinks for v in sink[:, j])
        assert float(scale[j]) == pytest.approx(largest_input**alpha / largest_weight ** (1 - alpha), rel=1e-5)


def test_alpha_of_a_half_makes_inputs_and_weights_equally_large() -> None:
    x, sink = torch.tensor([[100.0, 0.5, -3.0]]), torch.tensor([[0.1, -2.0, 0.3]])
    scale = SmoothQuant()([sink], [GRID], {"absmax": x.abs().amax(0)}).scale
    assert torch.allclose((x / scale).abs(), (sink * scale).abs())


def test_rows_are_shared_and_dead_channels_left_alone() -> None:
    absmax = torch.tensor([1.0, 0.0, 9.0, 0.0])
    sink = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    shared = SmoothQuant()([sink], [GRID], {"absmax": absmax}, torch.tensor([0, 1, 0, 1]))
    assert shared.scale.tolist() == [3.0, 1.0, 3.0, 1.0]
    assert shared.degradations[0].what.startswith("2 of 4 input channels")
    assert SmoothQuant()([sink * 0], [GRID], {"absmax": absmax}).scale.tolist() == [1.0] * 4


def test_inputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(QuantwiseError, match="not finite"):
        SmoothQuant()([torch.ones(1, 2)], [GRID], {"absmax": torch.tensor([1.0, torch.inf])})
