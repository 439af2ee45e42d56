"""The walk's words as stages that a tired person can read."""

from __future__ import annotations

import io

from quantwise.prepare import WalkStages
from quantwise.report.progress import PlainProgress


def lines(*told: tuple[str, int, int]) -> list[str]:
    out = io.StringIO()
    with PlainProgress(out, every_s=0.0, clock=lambda: 0.0) as progress:
        steps = WalkStages(progress)
        for step in told:
            steps(*step)
    return [line.replace(", took 0.0 ms", "").replace(": took 0.0 ms", " took") for line in out.getvalue().splitlines()]


def test_what_is_one_step_is_not_counted() -> None:
    assert lines(("hash the model", 0, 1), ("write gptq:q4_0", 0, 1), ("write gptq:q4_0", 1, 1)) == [
        "build: hash the model ...",
        "build: hash the model took",
        "build: write gptq:q4_0 ...",
        "build: write gptq:q4_0 took",
    ]


def test_artifacts_are_one_stage_that_names_each_and_ends_full() -> None:
    told = [("write a", 0, 2), ("write a", 1, 2), ("write b", 1, 2), ("write b", 2, 2)]
    assert lines(*told) == [
        "build: write artifacts: 0 of 2",
        "build: write artifacts: 0 of 2, a",
        "build: write artifacts: 1 of 2, a",
        "build: write artifacts: 1 of 2, b",
        "build: write artifacts: 2 of 2, b",
        "build: write artifacts: 2 of 2",
    ]


def test_a_second_pass_and_other_work_are_stages_of_their_own() -> None:
    passes = [("quantize blocks", i, 2) for i in (0, 2, 0, 2)]
    said = lines(*passes, ("measure sensitivities", 5, 9), ("measure mixes of a", 1, 3))
    assert [line for line, before in zip(said, ["", *said], strict=False) if line != before] == [
        "build: quantize blocks: 0 of 2",
        "build: quantize blocks: 2 of 2",
        "build: quantize blocks: 0 of 2",
        "build: quantize blocks: 2 of 2",
        "build: measure sensitivities: 5 of 9",
        "build: measure mixes of a: 1 of 3",
    ]


def test_what_an_earlier_process_did_is_where_a_stage_begins() -> None:
    assert lines(("quantize blocks", 3, 5), ("quantize blocks", 5, 5))[0] == "build: quantize blocks: 3 of 5"
