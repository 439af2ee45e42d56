"""What a candidate costs, on rows made by hand."""

from __future__ import annotations

import math

import pytest

from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.evidence import Measurement
from quantwise.cost.candidate import cost, first_token_seconds, p95_seconds, request_seconds

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


def test_percentiles_of_requests_have_their_sample_floors() -> None:
    found = cost(HERE, ARTIFACT, None, [row(i, (1 + i) / 100) for i in range(400)])
    assert (found.p50_seconds, found.p95_seconds, found.p99_seconds) == (2.01, 3.81, 3.97)
    few = cost(HERE, ARTIFACT, None, [row(i, (1 + i) / 100) for i in range(58)])
    assert (few.p50_seconds, few.p95_seconds, few.p99_seconds) == (0.30, None, None)
    none = cost(HERE, ARTIFACT, None, [])
    assert (none.p50_seconds, none.p95_first_token_seconds) == (None, None)
    expanded = Candidate("int2-g64", "transformers", computes_as_stored=False)
    assert cost(expanded, ARTIFACT, None, [row(0, 1.0)]).p50_seconds is None


def test_the_first_token_is_of_the_tasks_that_tell_it_and_never_comes_where_a_request_failed() -> None:
    written = [row(i, 2.0, first_token_seconds=(1 + i) / 100) for i in range(60)]
    choices = [Measurement("x", "certify", "c", str(i), 0, 0, 1.0, "stop", "", seconds=1.0) for i in range(40)]
    dead = [Measurement("x", "certify", "c", f"d{i}", 0, 0, 0.0, "crash", "") for i in range(40)]
    found = cost(HERE, ARTIFACT, None, [*written, *choices, *dead])
    assert (found.p50_first_token_seconds, found.p95_first_token_seconds) == (0.31, 0.58)
    assert cost(HERE, ARTIFACT, None, [*choices, *dead]).p50_first_token_seconds is None
    assert first_token_seconds([*written[:1], row(99, None, "timeout")]) == [0.01, math.inf]
    assert (
        cost(HERE, ARTIFACT, None, [*written, *(row(90 + i, None, "crash") for i in range(5))]).p95_first_token_seconds
        == math.inf
    )
