"""What made-up rows say: verdicts count texts, lost answers never help, times pair within one process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantwise.cache_study.findings import findings
from quantwise.cache_study.request import Request, parse_options, settings
from quantwise.cache_study.subject import Subject
from quantwise.core.artifact import Artifact
from quantwise.models import reference
from quantwise.plan.model_source import read_decoder
from quantwise.report.cache_table import cells, lines
from quantwise.stats.sample_size import zero_flip_floor_sequential
from quantwise.store import Store

MIB = 1024 * 1024
SUBJECT = Subject(Artifact("m.gguf", "gguf", "h", 100), read_decoder(str(reference.path())), None, 1024)
REQUEST = Request(None, parse_options("f16,q8_0"), documents=100, questions=2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "run", create=True) as held:
        yield held


def put(
    store: Store, option: str, number: int, scores: Sequence[float | None] = (1.0, 1.0), *, top: float = 0.8,
    speeds: tuple[float, float] = (1.0, 1.0), process: str = "one",
) -> None:  # fmt: skip
    answers = [
        {"item": f"{number}-{place}", "cluster": f"text-{number}", "finish": "crash" if value is None else "stop",
         "score": value, "output": "", "tokens": 9, "error": None}
        for place, value in enumerate(scores)
    ]  # fmt: skip
    body = {
        "number": number, "option": option, "process": process, "tokens": 900,
        "phases": {"read": 900, "read_seconds": speeds[0], "written": 31, "written_seconds": speeds[1]},
        "tail": [[[1, math.log(top)], [2, math.log(1 - top)]]] * 3, "answers": answers,
    }  # fmt: skip
    store.put("unit", f"{number:05d}/{option}", body)


def found(store: Store, request: Request = REQUEST) -> dict[str, Any]:
    return findings(store, SUBJECT, request, settings(request, "h", 1024, "xllamacpp", ()))


def other(store: Store, request: Request = REQUEST) -> dict[str, Any]:
    return dict(found(store, request)["options"][1])


def test_questions_of_one_text_count_as_one(store: Store) -> None:
    for number in range(60):
        put(store, "f16", number)
        put(store, "q8_0", number, (0.0, 1.0) if number == 0 else (1.0, 1.0))
    record = other(store)
    comparison = record["verdict"]["comparison"]
    assert (comparison["n"], comparison["regressions"], comparison["delta"]) == (60, 1, pytest.approx(-0.5 / 60))
    assert (record["asked"], record["recall"]) == (120, pytest.approx(119 / 120))
    assert [row["recall"] for row in record["recall_by_depth"]] == [pytest.approx(59 / 60), 1.0]
    assert [row["depth"] for row in record["recall_by_depth"]] == [0.25, 0.75]


def test_enough_equal_texts_pass_and_few_are_unknown(store: Store) -> None:
    least = zero_flip_floor_sequential(0.05)
    for number in range(least):
        put(store, "f16", number)
        put(store, "q8_0", number)
    answers = [other(store, replace(REQUEST, documents=n))["verdict"]["verdict"] for n in (least - 1, least)]
    assert answers == ["UNKNOWN", "PASS"]
    few = other(store, Request(None, parse_options("f16,q8_0"), documents=10, questions=2))["verdict"]
    assert (few["verdict"], few["comparison"]["n"]) == ("UNKNOWN", 10)
    assert "more texts" in few["explanation"]
    assert "items" not in few["explanation"]


def test_a_cache_that_forgets_fails(store: Store) -> None:
    for number in range(40):
        put(store, "f16", number)
        put(store, "q8_0", number, (0.0, 0.0) if number % 2 else (1.0, 1.0))
    assert other(store)["verdict"]["verdict"] == "FAIL"


def test_where_the_model_itself_recalls_nothing_there_is_no_verdict(store: Store) -> None:
    for number in range(100):
        put(store, "f16", number, (0.0, 0.0))
        put(store, "q8_0", number, (0.0, 0.0))
    verdict = other(store)["verdict"]
    assert verdict["verdict"] == "UNKNOWN"
    assert "f16 itself recalls 0%" in verdict["explanation"]


def test_lost_answers_are_never_a_pass(store: Store) -> None:
    for number in range(100):
        put(store, "f16", number)
        put(store, "q8_0", number, (None, None) if number < 20 else (1.0, 1.0))
    record = other(store)
    assert (record["verdict"]["verdict"], record["verdict"]["reason"]) == ("UNKNOWN", "missing")
    assert (record["asked"], record["lost"], record["recall"]) == (160, 40, 1.0)
    # A recall of 100 % must not stand there as if nothing had happened.
    assert "q8_0: 40 questions got no answer and are not in its recall" in list(lines(found(store)))


def test_divergence_is_that_of_the_rows(store: Store) -> None:
    for number in range(4):
        put(store, "f16", number, top=0.8)
        put(store, "q8_0", number, top=0.4)
    far = other(store)["divergence"]
    assert far["mean_kl"] == pytest.approx(0.8 * math.log(2) + 0.2 * math.log(1 / 3))
    assert (far["same_top"], far["positions"], far["chunks"]) == (0.0, 12, 4)


def test_speeds_pair_within_one_process_and_among_the_timed(store: Store) -> None:
    for number in range(4):
        put(store, "f16", number, speeds=(1.0, 1.0))
        put(store, "q8_0", number, speeds=(2.0, 0.5))
    put(store, "q8_0", 3, speeds=(50.0, 50.0), process="another")
    record = other(store)
    assert record["read_ratio"] == {"value": pytest.approx(0.5), "low": pytest.approx(0.5), "high": pytest.approx(0.5)}
    assert record["written_ratio"]["value"] == pytest.approx(2.0)
    two = other(store, Request(None, parse_options("f16,q8_0"), documents=100, questions=2, timed=2))
    assert (two["timed_texts"], two["read_ratio"]["low"]) == (2, None)
    assert two["read_tokens_per_s"] == pytest.approx(450.0)


def test_bytes_are_those_of_the_plan_unless_the_log_says_otherwise(store: Store) -> None:
    put(store, "f16", 0)
    assert other(store)["as_planned"] is None
    planned = other(store)["cache_bytes"]
    assert planned == 4 * 1024 * 2 * 2 * 68  # layers, tokens, keys and values, heads, two blocks of 34 bytes
    for logged, same in ((planned + 4000, True), (planned + MIB, False)):
        store.put("memory", "q8_0", {"cache_bytes": logged})
        assert other(store)["as_planned"] is same
    told = found(store)
    assert cells(told)[1][2].endswith(" *")
    assert "log states other bytes" in list(lines(told))[-1]


def test_nothing_measured_reads_as_unknown(store: Store) -> None:
    told = found(store)
    assert [row[4] for row in cells(told)] == ["unknown", "unknown"]
    assert told["options"][1]["verdict"]["reason"] == "not_measured"
    assert "0 texts of unknown tokens" in next(iter(lines(told)))
