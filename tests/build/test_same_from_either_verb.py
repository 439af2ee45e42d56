"""A recipe, a seed and a calibration set make one artifact, whether ``build`` or ``decide`` makes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import write_tiny

from quantwise import prepare, workbench
from quantwise.core.progress import Silent
from quantwise.question import pose
from quantwise.question.request import Request
from quantwise.store import Store
from quantwise.tasks.calibration import CalibrationSet


@pytest.mark.parametrize(("samples", "seed"), [(None, 0), (16, 3), (700, 0)])
def test_hashes_are_equal(tmp_path: Path, samples: int | None, seed: int) -> None:
    """700 texts have more tokens than a build reads of texts that nobody counted."""
    model = tmp_path / "model"
    model.mkdir()
    write_tiny(model, "llama", num_hidden_layers=1, hidden_size=32, intermediate_size=32, num_attention_heads=2)
    chosen = CalibrationSet((), samples, seed)
    asked = Request(model=model, candidates=("imatrix:int4-g32",), tasks=("recall",), calibration=chosen, seed=seed)
    posed = pose.pose(asked)
    with Store(tmp_path / "run", create=True) as store:
        store.freeze(posed.question)
        decided = prepare.build(store, posed, {}, Silent())["imatrix:int4-g32@transformers"]
    (built,) = workbench.build_recipes(
        model, ["imatrix:int4-g32"], tmp_path / "out", calibration=chosen, seed=seed, progress=Silent()
    )
    assert decided.hash == built.hash
    assert Path(decided.location).name == Path(built.location).name
