"""The rule, one case at a time."""

import math
from dataclasses import replace

import pytest

from quantwise.core.artifact import Candidate
from quantwise.core.evidence import Fit
from quantwise.core.question import Question, TaskQuestion
from quantwise.core.verdict import Answer, Comparison, Cost, Verdict
from quantwise.decision.gates import standing
from quantwise.decision.objective import Evidence
from quantwise.decision.rule import decide

BASE = Candidate("16bit", "llamacpp", baseline=True)
Q8, Q4 = Candidate("q8_0", "llamacpp"), Candidate("q4_0", "llamacpp")
CONTROL = Candidate("rtn:int4-tensor", "transformers", control=True, computes_as_stored=False)
SLOW = Candidate("gptq:int4-g64", "transformers", computes_as_stored=False)
TASK = TaskQuestion("code", "code", "0", "code", 0.05, 512, 96)
QUESTION = Question(
    model="m",
    model_hash="0",
    scenario={"name": "laptop", "objective": ["bytes", "seconds_per_item"], "max_p95_seconds": None},
    tasks=(TASK,),
    candidates=(BASE, Q8, Q4, CONTROL, SLOW),
    calibration={},
    runtimes={},
    brought={},
    template_hash=None,
    scorers="1",
)
BYTES = {BASE.name: 1600, Q8.name: 850, Q4.name: 450, CONTROL.name: 400, SLOW.name: 420}


def verdict(candidate: Candidate, answer: Answer, **changes: object) -> Verdict:
    comparison = Comparison(400, 5, 4, 0.05, -0.0025, (-0.03, 0.02), 100.0 if answer == "PASS" else 2.0, 0.1)
    more = (100, 300, 900) if answer == "UNKNOWN" else None
    found = Verdict(
        candidate.name, BASE.name, "code", answer, "need_n" if more else "", comparison, more, max_drop=0.03
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def evidence(answers: dict[Candidate, Answer], **changes: object) -> Evidence:
    plain = Evidence(
        verdicts=[verdict(c, a) for c, a in answers.items()],
        fits={},
        costs={n: Cost(n, b, None, 0.01 if "llamacpp" in n else None) for n, b in BYTES.items()},
        broken={},
        p95_seconds=dict.fromkeys(BYTES, 0.1),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


ALL_PASS: dict[Candidate, Answer] = {Q8: "PASS", Q4: "PASS", CONTROL: "FAIL", SLOW: "PASS"}


def why(decision: object, candidate: Candidate) -> str:
    return next(r.why for r in decision.ruled_out if r.candidate == candidate.name)  # type: ignore[attr-defined]


def test_the_smallest_that_passes_is_shipped_with_a_safer_fallback_and_a_rollback() -> None:
    decision = decide(QUESTION, evidence(ALL_PASS))
    assert (decision.ship, decision.fallback, decision.rollback, decision.status) == (
        Q4.name,
        Q8.name,
        BASE.name,
        "ship",
    )
    assert "bytes 450 against 850" in why(decision, Q8)


def test_endpoints_are_no_further_tasks_and_look_at_no_further_items() -> None:
    plain = decide(QUESTION, evidence(ALL_PASS))
    assert plain.because[0] == "non-inferior on 1 task and 400 paired items at margins of 5.0%, alpha 0.05"
    strict = replace(QUESTION, scenario={**QUESTION.scenario, "endpoints": {"refusal": 0.2}})
    sign = verdict(Q4, "PASS", task="code: refusals", max_drop=0.19)
    told = evidence(ALL_PASS)
    decision = decide(strict, replace(told, verdicts=[*told.verdicts, sign]))
    assert decision.because[0] == f"{plain.because[0]}, and on 1 endpoint of the answers"
    assert "a drop of at most 3.0% on any one task" in decision.because[1]


def test_what_is_dequantized_is_never_shipped_although_it_is_smaller() -> None:
    decision = decide(QUESTION, evidence(ALL_PASS))
    assert "stored small but dequantized" in why(decision, SLOW)


def test_what_was_expected_to_be_packed_and_was_not_is_not_shipped_either() -> None:
    told = evidence(ALL_PASS, dequantized=frozenset({Q4.name}))
    decision = decide(QUESTION, told)
    assert decision.ship == Q8.name
    assert "stored small but dequantized" in why(decision, Q4)


def test_the_control_is_never_shipped_even_if_it_passes() -> None:
    decision = decide(QUESTION, evidence({**ALL_PASS, CONTROL: "PASS"}))
    assert decision.ship == Q4.name
    assert "negative control" in why(decision, CONTROL)


def test_one_fail_rules_out_and_one_unknown_holds_back() -> None:
    failed = decide(QUESTION, evidence({**ALL_PASS, Q4: "FAIL"}))
    assert failed.ship == Q8.name
    assert "FAILs code" in why(failed, Q4)
    open_ = decide(QUESTION, evidence({**ALL_PASS, Q4: "UNKNOWN"}))
    assert open_.ship == Q8.name
    assert "about 300 more items, 100 to 900" in why(open_, Q4)


def test_nothing_passed_yet_is_unknown_and_names_the_best_supported() -> None:
    decision = decide(QUESTION, evidence({**ALL_PASS, Q8: "UNKNOWN", Q4: "UNKNOWN"}))
    assert (decision.status, decision.ship) == ("unknown", None)
    assert decision.best_supported in (Q8.name, Q4.name)
    assert decision.best_supported in decision.headline
    assert "about 300 more items" in why(decision, Q8)


def test_everything_failed_is_keep_16_bit() -> None:
    decision = decide(QUESTION, evidence({**ALL_PASS, Q8: "FAIL", Q4: "FAIL"}))
    assert (decision.status, decision.ship) == ("keep", BASE.name)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"broken": {Q4.name: "cannot be run: bad magic"}}, "bad magic"),
        ({"fits": {Q4.name: Fit(Q4.name, 9, 9, 9, 1, "no", "use a context of 512")}}, "use a context of 512"),
        ({"p95_seconds": {Q4.name: 3.0, Q8.name: 0.1}}, "p95 3.00 s"),
        ({"p95_seconds": {Q4.name: None, Q8.name: 0.1}}, "p95 is unknown"),
    ],
)
def test_other_reasons_to_rule_out(changes: dict[str, object], expected: str) -> None:
    question = replace(QUESTION, scenario={**QUESTION.scenario, "max_p95_seconds": 1.0})
    decision = decide(question, evidence(ALL_PASS, **changes))
    assert decision.ship == Q8.name
    assert expected in why(decision, Q4)


def test_the_ladder_stops_at_the_first_that_does_not_pass() -> None:
    question = replace(QUESTION, multiplicity="ladder")
    decision = decide(question, evidence({**ALL_PASS, Q8: "UNKNOWN"}))
    assert decision.ship is None
    assert "below q8_0@llamacpp on the ladder" in why(decision, Q4)
    assert question.m == 1
    assert QUESTION.m == 2


def test_an_unknown_objective_never_wins_and_is_named() -> None:
    question = replace(QUESTION, scenario={**QUESTION.scenario, "objective": ["joules_per_item", "bytes"]})
    decision = decide(question, evidence(ALL_PASS))
    assert decision.ship == Q4.name
    assert any("joules per item: unknown here" in line for line in decision.unmeasured)


BY_TIME = replace(QUESTION, scenario={**QUESTION.scenario, "objective": ["seconds_per_item", "bytes"]})


def timed(base: float, q8: float, q4: float, spread: float = 0.01) -> dict[str, object]:
    """Seconds per item of the three, with intervals of that relative width around their ratios."""
    seconds = {BASE.name: base, Q8.name: q8, Q4.name: q4}
    ratios = {
        (a, b): {"seconds_per_item": (x / y / (1 + spread), x / y * (1 + spread))}
        for a, x in seconds.items()
        for b, y in seconds.items()
    }
    return {"costs": {n: Cost(n, BYTES[n], None, s) for n, s in seconds.items()}, "ratios": ratios}


def test_what_passes_but_is_slower_than_the_baseline_is_not_shipped() -> None:
    decision = decide(BY_TIME, evidence(ALL_PASS, **timed(0.01, 0.03, 0.03)))
    assert (decision.status, decision.ship) == ("keep", BASE.name)
    assert decision.acceptable == (Q8.name, Q4.name)
    assert "16bit@llamacpp is better: seconds per item 0.01 against 0.03" in why(decision, Q4)


def test_the_faster_of_two_is_shipped_where_time_comes_first() -> None:
    assert decide(BY_TIME, evidence(ALL_PASS, **timed(0.03, 0.01, 0.02))).ship == Q8.name


def test_a_difference_within_the_noise_leaves_it_to_the_next_term() -> None:
    noisy = timed(0.03, 0.010, 0.012, spread=0.5)
    assert decide(BY_TIME, evidence(ALL_PASS, **noisy)).ship == Q4.name
    small = timed(0.03, 0.0100, 0.0104, spread=0.001)
    assert decide(BY_TIME, evidence(ALL_PASS, **small)).ship == Q4.name
    unresolved = {**timed(0.03, 0.010, 0.012), "ratios": {}}
    assert decide(BY_TIME, evidence(ALL_PASS, **unresolved)).ship == Q4.name


def test_a_time_decides_only_where_the_items_in_common_say_the_same() -> None:
    """Each arm settles at items of its own, so that its mean may say the contrary of the paired comparison."""
    contrary = timed(0.03, 0.010, 0.020)
    contrary["ratios"] = {pair: {"seconds_per_item": (1.1, 1.2)} for pair in ((Q8.name, Q4.name), (Q4.name, Q8.name))}
    decision = decide(BY_TIME, evidence(ALL_PASS, **contrary))
    assert decision.ship is not Q8.name
    assert "seconds per item" not in str([r.why for r in decision.ruled_out if r.candidate in (Q8.name, Q4.name)])


def test_equals_of_the_baseline_are_acceptable_and_not_shipped() -> None:
    by_time_only = replace(QUESTION, scenario={**QUESTION.scenario, "objective": ["seconds_per_item"]})
    decision = decide(by_time_only, evidence(ALL_PASS, **timed(0.01, 0.01, 0.0101)))
    assert (decision.status, decision.ship) == ("keep", BASE.name)
    assert "nothing shows that it is better than 16bit@llamacpp" in why(decision, Q8)
    assert "would be acceptable" in decision.headline


def test_a_p95_that_is_not_known_yet_is_no_reason_to_keep_16_bit() -> None:
    question = replace(QUESTION, scenario={**QUESTION.scenario, "max_p95_seconds": 1.0})
    decision = decide(question, evidence(ALL_PASS, p95_seconds={Q8.name: None, Q4.name: 3.0}))
    assert decision.status == "unknown"
    assert [row.candidate for row in decision.ruled_out if row.open] == [Q8.name]
    slow = decide(question, evidence(ALL_PASS, p95_seconds={Q8.name: 3.0, Q4.name: 3.0}))
    assert slow.status == "keep"


def test_a_candidate_whose_server_is_away_is_open_and_not_ruled_out() -> None:
    away = {Q8.name: "UNKNOWN, because its server is away (refused)", Q4.name: "cannot be run: bad magic"}
    decision = decide(QUESTION, evidence(ALL_PASS, broken=away))
    assert decision.status == "unknown"
    assert {row.candidate: row.open for row in decision.ruled_out}[Q8.name]
    assert not {row.candidate: row.open for row in decision.ruled_out}[Q4.name]


def test_what_turned_out_dequantized_is_not_waited_for() -> None:
    told = evidence({**ALL_PASS, Q8: "FAIL", Q4: "UNKNOWN"}, dequantized=frozenset({Q4.name}))
    assert decide(QUESTION, told).status == "keep"


def test_what_can_never_be_shipped_is_not_waited_for() -> None:
    unknown = evidence({**ALL_PASS, Q8: "FAIL", Q4: "UNKNOWN"}, fits={Q4.name: Fit(Q4.name, 9, 9, 9, 1, "no", None)})
    assert decide(QUESTION, unknown).status == "keep"


def test_noise_of_the_runtime_is_told_where_it_explains_the_flips() -> None:
    quiet = decide(QUESTION, evidence(ALL_PASS, noise={"llamacpp": 0.001}))
    noisy = decide(QUESTION, evidence(ALL_PASS, noise={"llamacpp": 0.02}))
    assert not any("differs from itself" in line for line in quiet.because)
    assert any("differs from itself on 2.0% of items" in line for line in noisy.because)


def test_standing_needs_every_gate() -> None:
    assert standing([], "x") == "UNKNOWN"
    assert standing([verdict(Q4, "PASS"), verdict(Q4, "UNKNOWN")], Q4.name) == "UNKNOWN"
    assert standing([verdict(Q4, "FAIL"), verdict(Q4, "UNKNOWN")], Q4.name) == "FAIL"


def test_a_baseline_without_room_is_not_kept_without_a_word_and_not_fallen_back_on() -> None:
    no_room = {BASE.name: Fit(BASE.name, 9, 9, 9, 1, "no", None)}
    failed = decide(QUESTION, evidence({**ALL_PASS, Q8: "FAIL", Q4: "FAIL", SLOW: "FAIL"}, fits=no_room))
    assert failed.headline.endswith(f"But {BASE.name} does not fit.")
    shipped = decide(QUESTION, evidence({**ALL_PASS, Q8: "FAIL"}, fits=no_room))
    assert (shipped.ship, shipped.fallback, shipped.rollback) == (Q4.name, None, BASE.name)


def test_nothing_is_supported_best_before_anything_is_measured() -> None:
    unasked = evidence({Q8: "UNKNOWN", Q4: "UNKNOWN"})
    unasked = replace(unasked, verdicts=[replace(v, comparison=replace(v.comparison, n=0)) for v in unasked.verdicts])
    decision = decide(QUESTION, unasked)
    assert decision.best_supported is None
    assert decision.headline == f"Unknown: no candidate has passed every gate yet. Until then keep {BASE.name}."


def test_what_is_shown_of_a_candidate_stays_shown_while_its_server_is_away() -> None:
    away = "UNKNOWN, because its server is away (refused); run the same command when it answers again"
    both_fail = ALL_PASS | {Q8: "FAIL", Q4: "FAIL"}
    found = decide(QUESTION, evidence(both_fail, broken={Q8.name: away}))
    assert (found.status, why(found, Q8).split()[0]) == ("keep", "FAILs")
    found = decide(QUESTION, evidence(ALL_PASS | {Q8: "UNKNOWN", Q4: "FAIL"}, broken={Q8.name: away}))
    assert (found.status, why(found, Q8)) == ("unknown", away)


def test_a_tail_that_never_ends_is_the_worst_and_not_left_out() -> None:
    question = replace(QUESTION, scenario={**QUESTION.scenario, "objective": ["p99_over_p50", "bytes"]})
    tails = {BASE: 20.0, Q8: 9.0, Q4: math.inf, CONTROL: 9.0, SLOW: 9.0}
    costs = {c.name: Cost(c.name, BYTES[c.name], None, 0.01, p99_over_p50=tail) for c, tail in tails.items()}
    ratios = {
        (Q8.name, BASE.name): {"p99_over_p50": (0.3, 0.6)},
        (Q4.name, BASE.name): {"p99_over_p50": (math.inf, math.inf)},
        (Q8.name, Q4.name): {"p99_over_p50": (0.0, 0.0)},
        (Q4.name, Q8.name): {"p99_over_p50": (math.inf, math.inf)},
    }
    found = decide(question, evidence(ALL_PASS, costs=costs, ratios=ratios))
    assert found.ship == Q8.name
    assert "without end" in why(found, Q4)


def test_a_p95_that_falls_on_a_failed_request_is_too_slow() -> None:
    question = replace(QUESTION, scenario={**QUESTION.scenario, "max_p95_seconds": 1.0})
    found = decide(question, evidence(ALL_PASS, p95_seconds={Q8.name: math.inf, Q4.name: math.inf}))
    assert found.status == "keep"
    assert (
        why(found, Q8) == "too slow: one request in twenty or more failed or was asked again, the scenario allows 1.0 s"
    )
