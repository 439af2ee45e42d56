"""Flips: a fair choice when there are too many, texts cut in the middle, outputs split where they part."""

from __future__ import annotations

from collections import Counter
from typing import Any

from quantwise.report.flips import MOST_CHARACTERS, choose


def flip(number: int, task: str = "t", **other: Any) -> dict[str, Any]:
    return {
        "task": task, "item": str(number), "candidate": "c", "baseline": "b", "prompt": "p", "target": "x",
        "baseline_output": "same then this", "candidate_output": "same then that", "baseline_score": 1.0,
        "candidate_score": 0.0, **other,
    }  # fmt: skip


def test_the_choice_gives_every_group_its_turn() -> None:
    rows = [flip(k) for k in range(900)] + [flip(k, "rare") for k in range(3)]
    rows += [flip(k, baseline_score=0.0, candidate_score=1.0) for k in range(50)]
    shown, in_all = choose(rows, 40)
    assert (len(shown), in_all) == (40, 953)
    counts = Counter((row.task, row.worse) for row in shown)
    assert counts["rare", True] == 3
    assert abs(counts["t", True] - counts["t", False]) <= 1


def test_outputs_are_split_where_they_part() -> None:
    row = choose([flip(0)])[0][0]
    assert (row.same, row.baseline_rest, row.candidate_rest) == ("same then th", "is", "at")
    assert row.worse


def test_long_prompts_keep_both_ends() -> None:
    prompt = "start " + 5000 * "x" + " the question?"
    row = choose([flip(0, prompt=prompt)])[0][0]
    assert row.prompt.startswith("start ")
    assert row.prompt.endswith("the question?")
    assert f"{len(prompt) - MOST_CHARACTERS:,} characters left out" in row.prompt


def test_an_output_that_is_missing_is_unknown_and_an_empty_one_is_empty() -> None:
    rows, _ = choose([flip(0, candidate_output=None, candidate_score=None), flip(1, candidate_output="")])
    assert rows[0].candidate_rest == "unknown"
    assert rows[0].worse
    assert rows[1].same + rows[1].candidate_rest == ""
