"""What every quantizer on the list must keep."""

import pytest
import torch

from quantwise.core import recipe
from quantwise.core.errors import QuantwiseError
from quantwise.core.scheme import parse_scheme
from quantwise.grids import ggml_library
from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.grids.ggml_grid import GgmlGrid
from quantwise.grids.ggml_layout import LAYOUTS
from quantwise.grids.integer import integer_grid
from quantwise.quantize import QUANTIZERS

SCHEMES = ["int4-g32", "int4-g64-asym", "int8-channel", "int3-channel-asym", "int4-tensor", "int2-g128"]


def seen(columns: int) -> dict[str, torch.Tensor]:
    x = torch.randn(300, columns, generator=torch.Generator().manual_seed(columns), dtype=torch.float64)
    return {"hessian": x.T @ x, "mean_square": x.square().mean(0), "absmax": x.abs().amax(0)}


def test_the_two_lists_name_the_same_quantizers() -> None:
    assert set(recipe.QUANTIZERS) == set(QUANTIZERS)
    assert all(make().name == name for name, make in QUANTIZERS.items())


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("rows", [1, 48])
def test_codes_scales_and_values_agree_and_repeat(name: str, scheme: str, rows: int) -> None:
    grid = integer_grid(parse_scheme(scheme))
    weight = torch.randn(rows, 128, generator=torch.Generator().manual_seed(rows))
    before, statistics = weight.clone(), seen(128)
    made, again = (QUANTIZERS[name]()(weight, grid, statistics) for _ in range(2))
    assert torch.equal(weight, before)
    assert made.codes.shape == weight.shape
    assert made.codes.dtype == torch.int8
    assert (made.steps.zero is None) == grid.symmetric
    assert made.codes.min() >= grid.lowest
    assert made.codes.max() <= grid.highest
    assert torch.equal(made.steps.scale, made.steps.scale.bfloat16().float())
    assert torch.equal(made.dequantized, grid.decode(made.codes, made.steps))
    assert torch.equal(made.codes, again.codes)
    assert torch.equal(made.steps.scale, again.steps.scale)


@pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)")
@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 20])
def test_on_ggml_grids_bytes_hold_the_values_and_repeat(name: str, kind: str, rows: int) -> None:
    grid = GgmlGrid(kind)
    weight = torch.randn(rows, 512, generator=torch.Generator().manual_seed(rows))
    weight[0, :64] = 0
    before, statistics = weight.clone(), seen(512)
    made, again = (QUANTIZERS[name]()(weight, grid, statistics) for _ in range(2))
    assert torch.equal(weight, before)
    stored = grid.pack(made.codes, made.steps)
    assert torch.equal(stored, grid.pack(again.codes, again.steps))
    assert torch.equal(made.dequantized, torch.from_numpy(GgmlBlocks(kind).decode(stored.numpy())))
    change, hessian = (made.dequantized - weight).double(), statistics["hessian"]
    lost, energy = (float(((m @ hessian) * m).sum()) for m in (change, weight.double()))
    assert lost < 0.2 * energy


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_weight_on_the_grid_is_left_alone(name: str) -> None:
    """Eight bits hold small whole numbers exactly, so nothing is left to choose."""
    weight = torch.randint(-127, 128, (8, 64), generator=torch.Generator().manual_seed(0)).float()
    weight[:, 0] = 127
    made = QUANTIZERS[name]()(weight, integer_grid(parse_scheme("int8-channel")), seen(64))
    assert torch.equal(made.dequantized, weight)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_matrix_of_zeros_stays_zero(name: str) -> None:
    made = QUANTIZERS[name]()(torch.zeros(4, 64), integer_grid(parse_scheme("int4-g32-asym")), seen(64))
    assert bool((made.dequantized == 0).all())


@pytest.mark.parametrize("name", [name for name, make in QUANTIZERS.items() if make().needs])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_statistics_that_are_not_finite_are_refused(name: str, broken: float) -> None:
    statistics = {key: torch.full_like(values, broken) for key, values in seen(64).items()}
    with pytest.raises(QuantwiseError, match="not finite"):
        QUANTIZERS[name]()(torch.randn(4, 64), integer_grid(parse_scheme("int4-g32")), statistics)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_silent_inputs_keep_their_weights(name: str) -> None:
    """What calibration never saw may come later: its weights are rounded like others, not dropped."""
    statistics = {key: values.clone() for key, values in seen(128).items()}
    silent = [0, 31, 32, 100]
    for values in statistics.values():
        values[..., silent] = 0
    statistics["hessian"][silent] = 0
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(3))
    made = QUANTIZERS[name]()(weight, integer_grid(parse_scheme("int8-g32")), statistics)
    assert float((made.dequantized - weight).abs()[:, silent].max()) < 0.02 * float(weight.abs().max())
