"""What a candidate costs, on rows made by hand."""

from __future__ import annotations

import math

import pytest

from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.evidence import Measurement
from quantwise.cost.candidate import cost, p95_seconds, request_seconds

HERE = Candidate("q4_0", "llamacpp")
ARTIFACT = Artifact("a.gguf", "gguf", "0", 1000)


def row(i: int, seconds: float | None, finish: str = "stop", **more: object) -> Measurement:
    return Measurement("x", "certify", "t", str(i), 0, 0, 1.0, finish, "", seconds=seconds, **more)  # type: ignore[arg-type]


def test_tokens_per_second_are_of_the_answers_that_tell_both() -> None:
    written = [row(i, 2.0, output_tokens=20) for i in range(3)]
    choices = [row(10 + i, 1.0) for i in range(4)]  # a choice has a time and no output
    assert cost(HERE, ARTIFACT, None, [*written, *choices]).tokens_per_s == pytest.approx(60 / 6)
    assert cost(HERE, ARTIFACT, None, choices).tokens_per_s is None


def test_a_percentile_counts_failed_requests_as_slower_than_every_answer() -> None:
    answers = [row(i, 1.0 + i / 100) for i in range(95)]
    lost = [row(100 + i, None, "crash") for i in range(5)]
    assert p95_seconds(answers) == pytest.approx(1.0 + 90 / 100)
    assert p95_seconds([*answers, *lost[:4]]) == pytest.approx(1.0 + 94 / 100)  # the 95th of 99: the slowest answer
    assert p95_seconds([*answers, *lost]) == math.inf
    assert p95_seconds([*answers, *(row(200 + i, None, "refused") for i in range(50))]) == pytest.approx(1.9)
    assert p95_seconds(answers[:58]) is None


def test_a_server_that_hangs_is_not_fast_because_its_time_limit_is_short() -> None:
    hangs = [row(i, 5.0, "timeout") if i % 10 == 0 else row(i, 0.1) for i in range(100)]
    assert p95_seconds(hangs) == math.inf


def test_an_answer_after_further_tries_does_not_count_with_its_last_try_alone() -> None:
    assert request_seconds([row(0, 0.1, error="status 503"), row(1, 0.2)]) == [float("inf"), 0.2]


def test_the_tail_has_no_end_where_more_than_a_hundredth_failed() -> None:
    answers = [row(i, 1.0) for i in range(396)]
    lost = [row(1000 + i, None, "timeout") for i in range(8)]
    assert cost(HERE, ARTIFACT, None, answers).p99_over_p50 == 1.0
    assert cost(HERE, ARTIFACT, None, [*answers, *lost]).p99_over_p50 == math.inf
    assert cost(HERE, ARTIFACT, None, [*lost, *lost, *answers[:8]]).p99_over_p50 is None


def test_the_mean_is_of_the_answers_and_weighs_tasks_alike() -> None:
    long = [Measurement("x", "certify", "long", "0", 0, 0, 1.0, "stop", "", seconds=9.0)]
    short = [row(i, 1.0) for i in range(5)]
    found = cost(HERE, ARTIFACT, None, [*long, *short, row(99, 60.0, "timeout")])
    assert found.seconds_per_item == pytest.approx(5.0)
