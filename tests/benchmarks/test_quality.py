"""The quality benchmark says reached, missed, and "not by the whole interval" where it should."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from quantwise.core.recipe import parse_recipe
from quantwise.stats.bootstrap import Estimate, bootstrap_ratio

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("quality")


def row(quality: ModuleType, ratio: Estimate, goal: float | None, ours: int = 100, theirs: int = 100) -> Any:
    sums = np.array([1.0, 2.0])
    weighed = quality.Weighed
    return quality.Row(weighed("gptq:q4_k_m", ours, sums), weighed("llama.cpp q4_k_m", theirs, sums), ratio, goal)


@pytest.mark.parametrize(
    ("ratio", "goal", "ours", "verdict"),
    [
        (Estimate(0.6, 0.5, 0.7), 0.75, 100, "goal 0.75: reached"),
        (Estimate(0.7, 0.6, 0.8), 0.75, 100, "goal 0.75: reached, not by the whole interval"),
        (Estimate(0.7, 0.6, None), 0.75, 100, "goal 0.75: reached, not by the whole interval"),
        (Estimate(0.76, 0.6, 0.8), 0.75, 100, "goal 0.75: MISSED"),
        (Estimate(0.1, 0.1, 0.1), 0.75, 101, "goal 0.75: MISSED (more bytes)"),
        (Estimate(0.1, 0.1, 0.1), None, 100, ""),
    ],
)
def test_verdict(quality: ModuleType, ratio: Estimate, goal: float | None, ours: int, verdict: str) -> None:
    assert row(quality, ratio, goal, ours).verdict == verdict


def test_table_divides_by_positions_and_pairs_texts(quality: ModuleType) -> None:
    ratio = bootstrap_ratio([1.0, 2.0], [2.0, 4.0])
    text = quality.table([row(quality, ratio, 0.75)], 30.0)
    assert text.count("0.10000") == 2
    assert "| 0.500 | 0.500 to 0.500 | goal 0.75: reached |" in text


def test_every_recipe_can_be_read_and_goals_are_those_of_the_plan(quality: ModuleType) -> None:
    goals = {(contest.part, contest.goal) for contest in quality.CONTESTS}
    assert goals == {("gguf", 0.75), ("integer", 0.9), ("auto", 0.85)}
    for contest in quality.CONTESTS:
        for recipe in (contest.ours, *contest.beside):
            assert parse_recipe(recipe.format(bytes=2_000_000)).quantizer is not None


def test_goals_only_leaves_out_what_stands_beside_and_nothing_else(quality: ModuleType) -> None:
    every, goals = (quality.contests(quality.PARTS, only) for only in (False, True))
    assert every == list(quality.CONTESTS)
    assert [(c.peer, c.kind, c.ours, c.goal) for c in goals] == [(c.peer, c.kind, c.ours, c.goal) for c in every]
    assert not any(contest.beside for contest in goals)
    assert {contest.part for contest in quality.contests(("auto",), True)} == {"auto"}


def test_bytes_are_those_of_files_with_tensors(quality: ModuleType, tmp_path: Path) -> None:
    weighing = importlib.import_module("weighing")
    (tmp_path / "model.safetensors").write_bytes(b"x" * 7)
    (tmp_path / "config.json").write_bytes(b"x" * 50)
    assert weighing.file_bytes(tmp_path) == 7
    assert weighing.file_bytes(tmp_path / "model.safetensors") == 7
