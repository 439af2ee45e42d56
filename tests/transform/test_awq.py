"""AWQ's searches against the obvious version: every exponent and every bound tried on the inputs themselves."""

import pytest
import torch

from quantwise.core.errors import QuantwiseError
from quantwise.core.scheme import parse_scheme
from quantwise.grids.integer import IntegerGrid, integer_grid
from quantwise.transform.awq import Awq
from quantwise.transform.rescale import clipped


def rounded(weight: torch.Tensor, grid: IntegerGrid) -> torch.Tensor:
    steps = grid.fit(weight)
    return grid.decode(grid.encode(weight, steps), steps)


def inputs(tokens: int, columns: int, seed: int) -> torch.Tensor:
    """Correlated inputs, float64 (tokens, columns), a few channels of which are far larger than the others."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64) / columns**0.5
    x = torch.randn(tokens, columns, generator=generator, dtype=torch.float64) @ mixing
    x[:, torch.randperm(columns, generator=generator)[: columns // 16]] *= 30
    return x


def matrices(seed: int, columns: int, *rows: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, columns, generator=generator) for count in rows]


def slow_scale(
    sinks: list[torch.Tensor], grids: list[IntegerGrid], x: torch.Tensor
) -> tuple[torch.Tensor, list[float]]:
    """The best scale and the error of each exponent, without weights and then over weights, by running the layers."""
    best, errors = torch.empty(0), []
    sizes = x.square().mean(0).sqrt()
    weights = torch.stack([sink.double().square().mean(0) for sink in sinks]).mean(0).sqrt()
    for over_weights in (False, True):
        for step in range(21):
            scale = sizes ** (step / 20)
            if over_weights:
                scale = scale / weights ** (1 - step / 20)
            scale = (scale / scale.log().mean().exp()).float()
            error = 0.0
            for sink, grid in zip(sinks, grids, strict=True):
                wanted = x @ sink.double().T
                got = (x / scale) @ rounded(sink * scale, grid).double().T
                error += float((wanted - got).square().sum())
            if not errors or error < min(errors):
                best = scale
            errors.append(error)
    return best, errors


@pytest.mark.parametrize("scheme", ["int4-g32", "int4-g32-asym", "int3-channel", "int4-tensor"])
def test_the_scale_equals_the_obvious_version(scheme: str) -> None:
    grid, x = integer_grid(parse_scheme(scheme)), inputs(200, 64, 1)
    sinks = matrices(2, 64, 24, 8)
    scaling = Awq()(sinks, [grid] * len(sinks), {"hessian": x.T @ x})
    best, errors = slow_scale(sinks, [grid] * len(sinks), x)
    assert torch.allclose(scaling.scale, best, rtol=1e-5)
    assert min(errors) < 0.9 * errors[0]
    assert scaling.degradations == ()


def test_each_sink_is_searched_on_the_grid_that_it_will_have() -> None:
    """A mix gives one more bits than the other: what it gains then weighs less. Bounds too are those of its own."""
    coarse, fine = (integer_grid(parse_scheme(scheme)) for scheme in ("int2-g32", "int8-channel"))
    x, sinks = inputs(200, 64, 1), matrices(2, 64, 24, 24)
    mixed = Awq()(sinks, [coarse, fine], {"hessian": x.T @ x})
    best, _ = slow_scale(sinks, [coarse, fine], x)
    assert torch.allclose(mixed.scale, best, rtol=1e-5)
    assert not torch.allclose(mixed.scale, Awq()(sinks, [coarse] * 2, {"hessian": x.T @ x}).scale, rtol=1e-2)
    assert [clip.shape for clip in mixed.clips or ()] == [(24, 2), (24, 1)]


@pytest.mark.parametrize("scheme", ["int4-g32", "int3-g32-asym", "int4-channel"])
def test_each_groups_bound_equals_the_obvious_version(scheme: str) -> None:
    grid, x = integer_grid(parse_scheme(scheme)), inputs(150, 64, 3)
    (sink,) = matrices(4, 64, 10)
    scaling = Awq()([sink], [grid], {"hessian": x.T @ x})
    assert scaling.clips is not None
    scaled, seen = (sink * scaling.scale).double(), x / scaling.scale
    group, agreed = grid.group or 64, []
    for g in range(64 // group):
        part = slice(g * group, (g + 1) * group)
        largest = scaled[:, part].abs().amax(1)
        errors = []
        for step in range(10):
            bound = largest * (1 - step / 20)
            cut = scaled[:, part].clamp(-bound.unsqueeze(1), bound.unsqueeze(1))
            one_group = IntegerGrid(grid.bits, "channel", symmetric=grid.symmetric)
            change = rounded(cut.float(), one_group).double() - scaled[:, part]
            errors.append((seen[:, part] @ change.T).square().sum(0))
        chosen = largest * (1 - torch.stack(errors).argmin(0) / 20)
        agreed.append(torch.isclose(chosen, scaling.clips[0][:, g].double(), rtol=1e-5))
    # float32 against float64: two bounds may cost the same to seven digits.
    assert torch.stack(agreed).double().mean() >= 0.95


def test_clipping_lowers_the_error_of_the_outputs() -> None:
    grid, x = integer_grid(parse_scheme("int3-g64")), inputs(300, 128, 5)
    (sink,) = matrices(6, 128, 32)
    scaling = Awq()([sink], [grid], {"hessian": x.T @ x})
    assert scaling.clips is not None

    def error(weight: torch.Tensor) -> float:
        got = (x / scaling.scale) @ rounded(weight, grid).double().T
        return float((got - x @ sink.double().T).square().sum())

    scaled = sink * scaling.scale
    assert error(clipped(scaled, scaling.clips[0])) < 0.95 * error(scaled)


def test_channels_of_one_row_share_a_scale_and_silent_ones_keep_theirs() -> None:
    x = inputs(100, 32, 7)
    x[:, [4, 20]] = 0
    rows = torch.arange(32) % 16
    scaling = Awq()(matrices(8, 32, 16), [integer_grid(parse_scheme("int3-g32"))], {"hessian": x.T @ x}, rows)
    assert torch.equal(scaling.scale[:16], scaling.scale[16:])
    assert len(set(scaling.scale.tolist())) > 8
    assert scaling.scale[4] == 1
    assert [d.what for d in scaling.degradations] == [
        "2 of 32 input channels were silent in calibration; they are not scaled"
    ]


def test_inputs_that_never_came_or_are_not_finite() -> None:
    grid, (sink,) = integer_grid(parse_scheme("int4-g32")), matrices(9, 32, 4)
    nothing = torch.zeros(32, 32, dtype=torch.float64)
    assert torch.equal(Awq()([sink], [grid], {"hessian": nothing}).scale, torch.ones(32))
    with pytest.raises(QuantwiseError, match="not finite"):
        Awq()([sink], [grid], {"hessian": nothing + torch.nan})


def test_channels_that_a_model_merely_scaled_up_are_undone() -> None:
    """Multiplying inputs and dividing weights by the same changes no output, so neither what rounding costs."""
    grid, x = integer_grid(parse_scheme("int4-g64")), inputs(200, 64, 12)
    (sink,) = matrices(13, 64, 32)
    outlier = torch.ones(64)
    outlier[[5, 40]] = 50
    errors = []
    for factor in (torch.ones(64), outlier):
        seen, weight = x * factor, sink / factor
        scale = Awq()([weight], [grid], {"hessian": seen.T @ seen}).scale
        got = (seen / scale) @ rounded(weight * scale, grid).double().T
        errors.append(float((got - x @ sink.double().T).square().sum()))
    plain = (x * outlier) @ rounded(sink / outlier, grid).double().T
    assert errors[1] < 1.15 * errors[0]
    assert errors[1] < 0.5 * float((plain - x @ sink.double().T).square().sum())


def test_a_sample_of_rows_finds_nearly_the_best_scale_for_all() -> None:
    grid, x = integer_grid(parse_scheme("int4-g32")), inputs(200, 64, 10)
    sinks = matrices(11, 64, 96)
    scale = Awq(sample=32)(sinks, [grid] * len(sinks), {"hessian": x.T @ x}).scale
    _, errors = slow_scale(sinks, [grid] * len(sinks), x)
    got = (x / scale) @ rounded(sinks[0] * scale, grid).double().T
    assert float((got - x @ sinks[0].double().T).square().sum()) < 1.1 * min(errors) < errors[0]
