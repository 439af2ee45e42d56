"""The last line of a decision: what to type next, for every way in which one can end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from records import brought, undecided

from quantwise.core.verdict import FloorVerdict
from quantwise.report.next_step import next_step
from quantwise.report.reading import Reading, settles
from quantwise.testing.sample_record import specimen

FOCUS = "q8_0@llamacpp"


def said(record: dict[str, Any], **changes: Any) -> str:
    return str(next_step(Reading({**record, "folder": "runs/one", **changes})))


def open_record(*rows: dict[str, Any], **question: Any) -> dict[str, Any]:
    """UNKNOWN on the first of two tasks, one of which has 450 items; ``rows`` change its verdicts."""
    record = undecided()
    record["question"] |= {"tasks": [{"name": "mine", "available": 450}, {"name": "suite", "available": None}]}
    record["question"] |= question
    first = record["verdicts"][0] | {"candidate": FOCUS, "task": "mine", "n": 96}
    record["verdicts"] = [first | row for row in rows]
    record["decision"] |= {"ruled_out": [{"candidate": FOCUS, "why": "UNKNOWN on mine"}], "best_supported": FOCUS}
    return record


def test_a_record_without_a_folder_has_no_next_step() -> None:
    assert next_step(Reading(specimen())) is None


def test_what_is_shipped_is_named_by_its_place() -> None:
    record = specimen()
    shipped = next(c for c in record["candidates"] if c["name"] == record["decision"]["ship"])
    assert said(record) == f"serve {shipped['artifact']['location']}"
    record = brought()
    url = record["candidates"][1]["artifact"]["location"]
    record["decision"] |= {"status": "ship", "ship": record["candidates"][1]["name"]}
    assert said(record) == f"send your requests to {url}"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"n_more": [100, 312, 900]}, "`quantwise measure runs/one --more 310` asks on"),
        ({"n_more": [100, 3412, 9000]}, "`quantwise measure runs/one --more 354` asks what items are left"),
        ({"task": "suite", "n_more": [100, 3412, 9000]}, "`quantwise measure runs/one --more 3400` asks on"),
        ({"n": 450, "reason": "items_exhausted"}, "every item of mine was asked; add items"),
        ({"reason": "not_measured"}, "the same command goes on"),
    ],
)
def test_what_is_open_is_settled_by_items_as_far_as_there_are_any(row: dict[str, Any], expected: str) -> None:
    assert said(open_record(row)).startswith(expected)


def test_rows_that_were_imported_are_no_more_than_they_are() -> None:
    record = open_record({"reason": "items_exhausted"})
    base = record["verdicts"][0]["baseline"]
    told = said(record, imported=[{"candidate": base, "items": {"mine": 96}}])
    assert told == f"bring more rows of {base} (`quantwise evidence import runs/one FILE`), then the same command"


def test_what_was_ruled_out_for_good_is_not_asked_again() -> None:
    lost = {"candidate": "q4_0@llamacpp", "reason": "need_n", "task": "suite", "n_more": [1, 90_000, 99_999]}
    record = open_record({"n_more": [100, 312, 900]}, lost)
    record["decision"]["best_supported"] = None
    assert said(record).startswith("`quantwise measure runs/one --more 310`")


@pytest.mark.parametrize(
    ("runtime", "lost", "expected"),
    [
        ("openai", 9, "the same command asks again what was lost"),
        ("openai", 0, "mend what the failed requests above say"),
        ("llamacpp", 9, "mend what the failed requests above say"),
    ],
)
def test_only_what_a_server_by_url_lost_is_asked_again(runtime: str, lost: int, expected: str) -> None:
    record = open_record({"reason": "missing", "smallest_margin": 0.08}, mode="fixed")
    next(c for c in record["candidates"] if c["name"] == FOCUS)["runtime"] = runtime
    faults = [{"candidate": FOCUS, "asked": 96, "lost": lost, "refused": 9 - lost, "retried": 0, "example": "no"}]
    assert said(record, faults=faults).startswith(expected)
    assert settles(record["verdicts"][0]) == "too many answers are missing"


def test_a_floor_that_lacks_answers_has_nobody_beside_it() -> None:
    record = open_record()
    next(c for c in record["candidates"] if c["name"] == FOCUS)["runtime"] = "openai"
    floor = FloorVerdict(FOCUS, "mine", 0.5, "UNKNOWN", "missing", 96, 0.6, 0.4, 0.7, 1.0, 1.0, missing=9)
    faults = [{"candidate": FOCUS, "asked": 96, "lost": 9, "refused": 0, "retried": 0, "example": "no"}]
    told = said(record, floors=[asdict(floor)], faults=faults)
    assert told == "the same command asks again what was lost"


def test_a_server_that_is_away_is_to_be_started() -> None:
    record = open_record({"n_more": [100, 312, 900]})
    why = "UNKNOWN, because its server is away (refused); run the same command when it answers again"
    record["decision"]["ruled_out"] = [{"candidate": FOCUS, "why": why}]
    assert said(record) == "start the server that is away; the same command goes on"


def test_a_fixed_number_is_looked_at_once() -> None:
    assert "larger --fixed-n" in said(open_record({"n_more": None}, mode="fixed"))
    assert "goes on to the number" in said(open_record({"n_more": [64, 64, 64]}, mode="fixed"))
