"""Every kind of model that is built can be asked about: the quick look of ``decide``, and ``plan``."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_gguf_architectures import FIXED
from tiny_models import CONFIGS, write_tiny

from quantwise.planning import PlanRequest, plan
from quantwise.question import pose
from quantwise.question.request import Request


@pytest.mark.parametrize("kind", CONFIGS)
def test_decide_and_plan_take_it(kind: str, tmp_path: Path) -> None:
    write_tiny(tmp_path, kind, **FIXED.get(kind, {}))
    recipes = ("rtn:int8-channel", "gptq:int4-g64") + (() if kind == "opt" else ("gptq:q4_0", "auto:6bpw"))
    fits = pose.fits_here(Request(model=tmp_path, candidates=recipes, context=64))
    assert {name.partition("@")[0] for name in fits} == {"16bit", *recipes}
    assert all(fit.total_bytes for fit in fits.values())
    # llama.cpp does not compute OPT.
    runtime = "transformers" if kind == "opt" else "llamacpp"
    found = plan(PlanRequest(models=(str(tmp_path),), context=64, runtime=runtime))
    assert all(row["total_bytes"] for row in found["candidates"])
