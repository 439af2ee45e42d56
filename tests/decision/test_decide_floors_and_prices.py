"""The rule where floors, a budget or the price of a solved item decide, one case at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quantwise.core.artifact import Candidate
from quantwise.core.question import Question, TaskQuestion
from quantwise.core.solved_item import Priced, SolvedItem, Solving
from quantwise.core.verdict import Answer, Comparison, Cost, Decision, FloorVerdict, Verdict
from quantwise.decision.objective import Evidence
from quantwise.decision.rule import decide

BASE = Candidate("16bit", "llamacpp", baseline=True, model="large")
Q4 = Candidate("q4_0", "llamacpp", model="large")
Q8 = Candidate("q8_0", "llamacpp", model="small")
QUESTION = Question(
    model="m",
    model_hash="0",
    scenario={"name": "laptop", "objective": ["bytes"], "max_p95_seconds": None},
    tasks=(TaskQuestion("code", "code", "0", "code", 0.05, 512, 96, floor=0.6),),
    candidates=(BASE, Q4, Q8),
    calibration={},
    runtimes={},
    brought={},
    template_hash=None,
    scorers="1",
)
BYTES = {BASE.name: 1600, Q4.name: 450, Q8.name: 400}
PRICES = {"prices": {"currency": "EUR", "machine_hour": 1.0}, "objective": ["money_per_solved", "bytes"]}


def verdict(candidate: Candidate, answer: Answer) -> Verdict:
    comparison = Comparison(400, 5, 4, 0.05, -0.0025, (-0.03, 0.02), 100.0 if answer == "PASS" else 2.0, 0.1)
    return Verdict(
        candidate.name, BASE.name, "code", answer, "", comparison, (1, 2, 3) if answer == "UNKNOWN" else None
    )


def floor(candidate: Candidate, answer: Answer) -> FloorVerdict:
    return FloorVerdict(
        candidate.name, "code", 0.6, answer, "", 200, 0.65, 0.6, 0.7, 50.0, 1.0, explanation="so and so"
    )


def evidence(pairs: dict[Candidate, Answer], floors: dict[Candidate, Answer], **changes: Any) -> Evidence:
    plain = Evidence(
        verdicts=[verdict(c, a) for c, a in pairs.items()],
        fits={},
        costs={n: Cost(n, b, None, 0.01) for n, b in BYTES.items()},
        broken={},
        p95_seconds={},
        floors=[floor(c, a) for c, a in floors.items()],
    )
    return replace(plain, **changes)


def asked(**scenario: Any) -> Question:
    return replace(QUESTION, scenario={**QUESTION.scenario, **scenario})


def why(decision: Decision, candidate: Candidate) -> str:
    return next(r.why for r in decision.ruled_out if r.candidate == candidate.name)


ALL: dict[Candidate, Answer] = {Q4: "PASS", Q8: "PASS"}
FLOORS: dict[Candidate, Answer] = {BASE: "PASS", Q4: "PASS", Q8: "PASS"}


def test_the_baseline_is_one_more_to_be_shown_where_floors_alone_decide() -> None:
    """A PASS on its own floor lets it be kept, so that its error counts too."""
    assert (QUESTION.m, asked(compare="floor").m) == (2, 3)
    assert asked(compare="floor").pass_threshold == 3 / 0.05
    assert replace(asked(compare="floor"), multiplicity="ladder").m == 1


def test_a_floor_gates_beside_the_margin_and_is_unknown_until_it_is_shown() -> None:
    assert decide(QUESTION, evidence(ALL, FLOORS)).ship == Q8.name
    low = decide(QUESTION, evidence(ALL, {**FLOORS, Q8: "FAIL"}))
    assert (low.ship, why(low, Q8)) == (Q4.name, "below the floor: code, so and so")
    open_ = decide(QUESTION, evidence(ALL, {BASE: "PASS", Q4: "UNKNOWN", Q8: "UNKNOWN"}))
    assert (open_.status, open_.ship) == ("unknown", None)
    assert why(open_, Q4).startswith("UNKNOWN whether at the floor: code")


def test_where_the_scenario_compares_with_the_floor_a_drop_against_the_baseline_decides_nothing() -> None:
    pairs: dict[Candidate, Answer] = {Q4: "FAIL", Q8: "UNKNOWN"}
    assert decide(QUESTION, evidence(pairs, FLOORS)).ship != Q8.name
    decision = decide(asked(compare="floor"), evidence(pairs, FLOORS))
    assert decision.ship == Q8.name
    assert decision.because[0] == "at or above the floor on code: so and so"
    assert not any("non-inferior" in line for line in decision.because)


def test_nothing_has_to_be_better_than_a_baseline_that_is_below_the_floor_and_it_is_no_fallback() -> None:
    larger = evidence({Q4: "PASS"}, {BASE: "FAIL", Q4: "PASS", Q8: "FAIL"})
    larger = replace(larger, costs={n: Cost(n, b, None, 0.01) for n, b in {**BYTES, Q4.name: 9000}.items()})
    decision = decide(asked(compare="floor"), larger)
    assert (decision.ship, decision.fallback) == (Q4.name, None)
    assert f"{BASE.name} is below the floor on code, so nothing had to be better than it" in decision.because
    kept = decide(asked(compare="floor"), evidence({}, {BASE: "FAIL", Q4: "FAIL", Q8: "FAIL"}))
    assert kept.status == "keep"
    assert kept.headline.endswith(f"But {BASE.name} is below the floor on code.")


def test_the_ladder_stops_at_an_unknown_floor() -> None:
    question = replace(QUESTION, multiplicity="ladder")
    decision = decide(question, evidence(ALL, {**FLOORS, Q4: "UNKNOWN"}))
    assert why(decision, Q8) == f"stands below {Q4.name} on the ladder, which did not pass"


def solving(money: float) -> Solving:
    return Solving(0.1, 0.0, 1.0, 0.0, money, (money * 0.9, money * 1.1), None, money, (money * 0.9, money * 1.1))


def priced(q4: float, q8: float, between: Priced | None = None, **changes: Any) -> Evidence:
    """A solved item costs 1 with the baseline, and so much with the two; ``between`` is Q4's over Q8's."""
    arms = {Q4: q4, Q8: q8}
    solved = {
        c.name: SolvedItem(c.name, BASE.name, 300, solving(m), solving(1.0), m, (m * 0.9, m * 1.1))
        for c, m in arms.items()
    }
    found: dict[tuple[str, str], dict[str, Priced | None]] = {}
    for candidate, money in arms.items():
        against = Priced(money, money * 0.9, money * 1.1)
        found[candidate.name, BASE.name] = {"money_per_solved": against}
        found[BASE.name, candidate.name] = {"money_per_solved": against.inverse()}
    if between:
        found[Q4.name, Q8.name] = {"money_per_solved": between}
        found[Q8.name, Q4.name] = {"money_per_solved": between.inverse()}
    return evidence(ALL, FLOORS, solved=solved, priced=found, **changes)


def test_the_cheaper_solved_item_wins_where_the_paired_interval_excludes_one() -> None:
    decision = decide(asked(**PRICES), priced(0.5, 0.8, Priced(0.625, 0.5, 0.8)))
    assert decision.ship == Q4.name
    assert "money per solved 0.5 against 0.8" in why(decision, Q8)


def test_else_it_is_not_shown_to_differ_and_the_next_term_decides() -> None:
    decision = decide(asked(**PRICES), priced(0.5, 0.8, Priced(0.625, 0.3, 1.2)))
    assert decision.ship == Q8.name, "fewer bytes"
    assert any(
        f"money per solved is not shown to differ from that of {Q4.name} (1.60 times, 0.83 to 3.33)" in line
        and line.endswith("so bytes decided between them")
        for line in decision.because
    ), decision.because
    trifle = decide(asked(**PRICES), priced(0.5, 0.51, Priced(0.98, 0.97, 0.99)))
    assert trifle.ship == Q8.name, "two per cent change no deployment"


def test_a_budget_rules_out_what_is_shown_above_it_and_holds_back_what_may_be() -> None:
    decision = decide(asked(**PRICES, budget={"per_solved_item": 0.7}), priced(0.5, 0.8, Priced(1.6, 1.5, 1.7)))
    assert decision.ship == Q4.name
    assert why(decision, Q8).startswith("over the budget: a solved item costs 0.8 EUR")
    decision = decide(asked(**PRICES, budget={"per_solved_item": 0.85}), priced(0.5, 0.8, Priced(1.6, 1.5, 1.7)))
    assert why(decision, Q8).startswith("UNKNOWN whether within the budget")
    monthly = asked(**PRICES, budget={"per_month": 700.0, "per_solved_item": 9.0}, requests_per_month=1000)
    over = why(decide(monthly, priced(0.5, 0.8, Priced(1.6, 1.5, 1.7))), Q8)
    assert over.startswith("over the budget")
    assert over.endswith("the budget is 0.7 (that of a month over its requests)")


def test_a_baseline_over_the_budget_is_said_in_a_whole_sentence() -> None:
    dear = decide(asked(**PRICES, budget={"per_solved_item": 0.1}), priced(0.5, 0.8, Priced(1.6, 1.5, 1.7)))
    assert f"But {BASE.name} is over the budget: a solved item costs 1 EUR" in dear.headline
    near = decide(asked(**PRICES, budget={"per_solved_item": 1.0}), priced(0.5, 0.8, Priced(1.6, 1.5, 1.7)))
    said = f"{BASE.name} is not shown to be within the budget: a solved item costs 1 EUR"
    assert any(line.startswith(said) for line in near.because), near.because
