"""The other verbs on a real run: more evidence, the report again, the record's promised names, exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROMISED = {"decision", "candidates", "verdicts", "costs", "question_hash"}
OF_A_VERDICT = {
    *("candidate", "task", "verdict", "reason", "n", "delta", "interval", "flips"),
    *("e_pass", "e_fail", "n_more"),
}


@pytest.fixture(scope="session")
def open_run(
    quantwise: Callable[..., Any], gguf_file: Path, own_words: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A file against its copy on too few items: UNKNOWN. Holds ``first.json``, the record as printed."""
    place = tmp_path_factory.mktemp("open")
    shutil.copy(gguf_file, place / "copy.gguf")
    asked = ["--baseline", gguf_file, "--candidate", "copy.gguf", "--tasks", own_words, "--items", 32]
    ended = quantwise(
        place, "decide", *asked, "--context", 64, "--margin", "words=5%", "--run", "run", "--json", "--strict"
    )
    assert ended.code == 4, ended.err
    assert ended.err, "progress goes to standard error"
    (place / "first.json").write_text(ended.out)
    return place


@pytest.fixture
def run(open_run: Path, tmp_path: Path) -> Path:
    shutil.copy(open_run / "copy.gguf", tmp_path)
    shutil.copy(open_run / "first.json", tmp_path)
    return shutil.copytree(open_run / "run", tmp_path / "run")


def test_the_record_has_what_was_promised(run: Path) -> None:
    record = json.loads((run.parent / "first.json").read_text())
    assert set(record) >= PROMISED
    (verdict,) = record["verdicts"]
    assert set(verdict) >= OF_A_VERDICT
    assert (verdict["verdict"], verdict["reason"], verdict["n"], verdict["flips"]) == ("UNKNOWN", "need_n", 32, 0)
    low, middle, high = verdict["n_more"]
    assert 0 < low <= middle <= high
    assert verdict["e_pass"] > 1 > verdict["e_fail"]
    assert verdict["interval"][0] < verdict["delta"] == 0 < verdict["interval"][1]
    assert record["question_hash"] == json.loads((run / "decision.json").read_text())["question_hash"]
    assert all(cost["artifact_bytes"] and cost["seconds_per_item"] for cost in record["costs"])


def test_measure_more_settles_it_and_keeps_what_was_asked(here: Callable[..., Any], run: Path) -> None:
    before = json.loads((run.parent / "first.json").read_text())["verdicts"][0]
    ended = here("measure", "run", "--more", 96, "--json", "--strict")
    assert ended.code == 0, ended.err
    (verdict,) = ended.record["verdicts"]
    assert verdict["verdict"] == "PASS"
    assert before["n"] < verdict["n"] <= before["n"] + 96
    # It said how many it would take, rounded up to whole blocks.
    assert verdict["n"] <= -(-(before["n"] + before["n_more"][2]) // 32) * 32
    assert ended.record["decision"]["acceptable"] == ["copy.gguf@llamacpp"]
    again = here("measure", "run", "--more", 32, "--json")
    assert again.record["verdicts"] == ended.record["verdicts"], "what is settled is not measured further"


def test_report_reads_the_folder_alone(here: Callable[..., Any], run: Path) -> None:
    first = json.loads((run.parent / "first.json").read_text())
    (run.parent / "copy.gguf").unlink()
    (run / "report.html").unlink()
    ended = here("report", "run", "--json", "--strict")
    assert (ended.code, ended.err) == (4, "")
    assert ended.record["verdicts"] == first["verdicts"]
    assert ended.record["decision"] == first["decision"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "copy.gguf@llamacpp" in page
    assert 'src="http' not in page
    screen = here("report", "run")
    assert screen.code == 0
    assert "UNKNOWN" in screen.out
    assert "report      run/report.html" in screen.out


def test_decide_says_all_of_its_progress_on_standard_error(here: Callable[..., Any], run: Path) -> None:
    question = json.loads((run / "question.json").read_text())
    base = question["candidates"][0]["source"]
    asked = ["--baseline", base, "--candidate", "copy.gguf", "--tasks", question["tasks"][0]["source"], "--items", 32]
    again = ["decide", *asked, "--context", 64, "--margin", "words=5%", "--run", "run"]
    loud, quiet = here(*again), here(*again, "--quiet")
    assert [line.split(":")[0] for line in loud.err.splitlines() if " took " in line] == [
        "read the question",
        "screen",
        "A/A noise floor",
        "certify",
    ]
    # All but the rate of generations, which counts the time of every process.
    same = [line for line in loud.out.splitlines() if "per second" not in line]
    assert same == [line for line in quiet.out.splitlines() if "per second" not in line]
    assert "took" not in quiet.err
    assert loud.out.startswith("quantwise ")


def test_plan_reads_headers_only(here: Callable[..., Any], model: Path, gguf_file: Path, tmp_path: Path) -> None:
    folder, file = here("plan", model, "--json"), here("plan", gguf_file, "--json", "--context", 64)
    assert (folder.code, folder.err, file.code, file.err) == (0, "", 0, "")
    assert [plan["fits"] for plan in folder.record["candidates"]] == ["yes"] * 7
    assert [plan["scheme"] for plan in file.record["candidates"]] == ["stored"]
    assert file.record["weights_effective_bytes"] < gguf_file.stat().st_size
    assert "16bit@llamacpp fits" in here("plan", model).out
    assert not list(tmp_path.iterdir())


def test_build_writes_artifacts_once(
    here: Callable[..., Any], model: Path, tmp_path: Path, complete: Callable[[Path], int]
) -> None:
    first = here("build", model, "q8_0", "gptq:int4-g64", "--out", "artifacts", "--json")
    assert first.code == 0, first.err
    assert [a["recipe"] for a in first.record] == ["rtn:q8_0", "gptq:int4-g64"]
    assert [a["format"] for a in first.record] == ["gguf", "compressed-tensors"]
    assert complete(tmp_path) == 2
    second = here("build", model, "q8_0", "gptq:int4-g64", "--out", "artifacts", "--json", "--quiet")
    assert second.err == ""
    assert second.record == first.record, "not built again: even the seconds are the same"
