"""The replay of real models: the table says what the statistics say, and the document is up to date."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.tasks.samples import read_pairs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_model_replay", ROOT / "benchmarks" / "real_model_replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(program: ModuleType) -> Path:
    try:
        folder: Path = program.data_folder()
    except InputError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="module")
def rows(program: ModuleType, data: Path) -> list[Any]:
    replayed: list[Any] = program.replay(data)
    return replayed


def test_document_is_what_the_program_writes(program: ModuleType, rows: list[Any]) -> None:
    assert (ROOT / "docs" / "real-models.md").read_text(encoding="utf-8") == program.page(rows)


def test_replay_covers_all_and_never_passes_what_it_fails(rows: list[Any]) -> None:
    assert len(rows) == 18
    for row in rows:
        at_one, at_two = (v.verdict for v in row.verdicts)
        assert (at_one, at_two) != ("PASS", "FAIL")
        assert at_one != "PASS" or at_two == "PASS"
        assert at_two != "FAIL" or at_one == "FAIL"
    assert not any(v.verdict == "FAIL" for row in rows if row.precision == "int8" for v in row.verdicts)


def test_samples_written_for_the_readme_give_the_row_of_the_table(
    program: ModuleType, data: Path, rows: list[Any], tmp_path: Path
) -> None:
    written = program.write_samples(data, tmp_path)
    assert len(written) == 27
    paired = read_pairs(tmp_path / "Qwen2.5-1.5B-fp16-arc.jsonl", tmp_path / "Qwen2.5-1.5B-int4-arc.jsonl")
    worse = sum(p.candidate < p.baseline for p in paired.pairs)
    comparison = next(
        r.verdicts[0].comparison
        for r in rows
        if (r.model, r.benchmark, r.precision) == ("Qwen2.5-1.5B", "ARC-Challenge", "int4")
    )
    assert (worse, len(paired.pairs)) == (comparison.regressions, comparison.n)
