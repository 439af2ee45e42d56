"""The planner beside the start-up log of stock llama.cpp: every printed digit of weights, cache and buffers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from quantwise.plan.llamacpp.model import KNOWN

pytest.importorskip("xllamacpp")

PROGRAM = Path(__file__).resolve().parents[3] / "benchmarks" / "plan_llamacpp.py"


def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plan_llamacpp", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plan_llamacpp"] = module
    spec.loader.exec_module(module)
    return module


BESIDE = program()
CASES = BESIDE.log_cases()
QUICK = [case for case in CASES if case[0].architecture in ("llama", "gemma3", "deepseek2", "gpt-oss")][:9]


def check(model: object, settings: object, folder: Path) -> None:
    rows = BESIDE.log_rows(model, settings, folder)
    assert {"weights", "outputs"} <= {row.what for row in rows}
    assert {"cache", "state"} & {row.what for row in rows}
    for row in rows:
        if row.what == "compute":
            assert row.ratio == pytest.approx(1.0, abs=0.05), row
        else:
            assert row.exact, row


@pytest.mark.parametrize("case", QUICK, ids=lambda case: BESIDE.label(*case))
def test_every_digit_of_the_log(case: tuple[object, object], tmp_path: Path) -> None:
    check(*case, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: BESIDE.label(*case))
def test_every_digit_of_every_log(case: tuple[object, object], tmp_path: Path) -> None:
    check(*case, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("case", BESIDE.RESIDENT, ids=lambda case: BESIDE.label(*case))
def test_the_process_within_8_percent(case: tuple[object, object], tmp_path: Path) -> None:
    row = BESIDE.resident_row(*case, tmp_path)
    assert row.ratio == pytest.approx(1.0, abs=0.08), row


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 150
    assert len({model.architecture for model, _ in CASES}) >= 30
    assert {model.architecture for model, _ in CASES} >= KNOWN
