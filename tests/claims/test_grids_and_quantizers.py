"""NF4 against int4 on normal weights, GPTQ against rounding on held-out text, and seeds that overlap."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from measuring import measure

from quantwise.build.held_out import held_out
from quantwise.calibration_study import in_domain
from quantwise.chat import ChatTemplate
from quantwise.core.recipe import parse_recipe
from quantwise.core.scheme import parse_scheme
from quantwise.grids.grid import Grid
from quantwise.grids.integer import integer_grid
from quantwise.grids.nf4 import Nf4Grid
from quantwise.models import reference


def relative_error(grid: Grid, weight: torch.Tensor) -> float:  # type: ignore[type-arg]
    codes, steps = grid.quantize(weight)
    return float((grid.decode(codes, steps) - weight).square().mean() / weight.square().mean())


@pytest.mark.parametrize("seed", range(3))
def test_nf4_beats_int4_on_normal_weights_and_loses_on_even_ones(seed: int) -> None:
    """It has its codes where normal weights lie; where weights are spread evenly, even steps are better."""
    generator = torch.Generator().manual_seed(seed)
    normal, even = torch.randn(64, 512, generator=generator), torch.rand(64, 512, generator=generator) * 2 - 1
    nf4, int4 = Nf4Grid(), integer_grid(parse_scheme("int4-g64"))
    assert relative_error(nf4, normal) < 0.85 * relative_error(int4, normal)
    assert relative_error(nf4, even) > 1.2 * relative_error(int4, even)


def test_gptq_beats_rounding_on_text_it_has_not_seen(tmp_path: Path) -> None:
    found = measure(reference.path(), tmp_path, "rtn:int4-g64", "imatrix:int4-g64", "gptq:int4-g64")
    rounding, importance, gptq = (values.mean() for values in found.values())
    assert gptq < 0.7 * rounding
    assert gptq < 0.8 * importance


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_best_seed_of_a_worse_method_can_beat_the_worst_seed_of_a_better_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So a method's name says less than its artifact does: artifacts are certified, not methods."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import calibration_seeds

    folder = reference.path()
    data = held_out(folder, in_domain("screen", 48, ChatTemplate.from_folder(folder)))
    recipes = [parse_recipe(text) for text in ("imatrix:int4-g64", "awq+rtn:int4-g64")]
    found = calibration_seeds.measure(recipes, data, seeds=4, samples=16)
    worse, better = sorted((sums.sum(1) for sums in found.values()), key=lambda kl: -float(kl.mean()))
    assert worse.mean() > 1.05 * better.mean()
    assert worse.min() < better.max()
