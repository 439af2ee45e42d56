"""The usual layer-wise advice against its opposite at the same bytes, on the reference model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.build.held_out import held_out


@pytest.mark.long
@pytest.mark.timeout(900)
def test_advice_beats_the_other_way_round_and_down_projections_are_no_less_sensitive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attention gains more than gate and up projections; how it stands beside down projections depends on the model."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import layerwise

    trained = layerwise.reference_model()
    trained = replace(trained, calibration=trained.calibration[:128], held_out=trained.held_out[::6])
    data = held_out(trained.folder, trained.held_out)
    sums = layerwise.weighed(trained, data, "int3-g128").sums
    assert sums["as advised"].sum() < 0.8 * sums["the other way round"].sum()
    assert sums["attention"].sum() < 0.95 * min(sums["gate_proj"].sum(), sums["up_proj"].sum())
    assert sums["first and last block"].sum() < 0.9 * sums["the blocks between"].sum()
    assert sums["down_proj"].sum() < min(sums["gate_proj"].sum(), sums["up_proj"].sum())
