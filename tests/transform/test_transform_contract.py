"""What every transform on the list must keep."""

import pytest
import torch

from quantwise.core import recipe
from quantwise.core.scheme import parse_scheme
from quantwise.grids.integer import integer_grid
from quantwise.transform import TRANSFORMS


def test_the_two_lists_name_the_same_transforms() -> None:
    assert set(recipe.TRANSFORMS) == set(TRANSFORMS)
    assert all(make().name == name for name, make in TRANSFORMS.items())


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("scheme", ["int4-g32", "int8-channel", "int4-tensor", "int3-g64-asym"])
def test_scales_are_positive_repeat_and_leave_their_arguments_alone(name: str, scheme: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(99, 64, generator=generator, dtype=torch.float64) * torch.logspace(-2, 2, 64, dtype=torch.float64)
    seen = {"hessian": x.T @ x, "mean_square": x.square().mean(0), "absmax": x.abs().amax(0)}
    sinks = [torch.randn(rows, 64, generator=generator).bfloat16() for rows in (1, 48)]
    before = [sink.clone() for sink in sinks]
    grid = integer_grid(parse_scheme(scheme))
    made, again = (
        TRANSFORMS[name]()(sinks, [grid] * 2, {k: v for k, v in seen.items() if k in TRANSFORMS[name]().needs})
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(sinks, before, strict=True))
    assert made.scale.dtype == torch.float32
    assert made.scale.shape == (64,)
    assert bool((made.scale > 0).all())
    assert bool(torch.isfinite(made.scale).all())
    assert torch.equal(made.scale, again.scale)
    if made.clips is not None:
        groups = 64 // (grid.group or 64)
        assert [c.shape for c in made.clips] == [(1, groups), (48, groups)]
        assert all(torch.equal(a, b) for a, b in zip(made.clips, again.clips or (), strict=True))
