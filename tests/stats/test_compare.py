"""The verdict rule: when PASS, when FAIL, and what an UNKNOWN says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantwise.core.errors import InputError
from quantwise.core.evidence import Pair
from quantwise.core.verdict import Comparison, Verdict
from quantwise.stats.compare import Rule, Supply, compare, compare_differences, verdict_from_comparison
from quantwise.stats.differences import Differences
from quantwise.stats.eprocess import log_e_counts


def judge(comparison: Comparison, rule: Rule | None = None, supply: Supply | None = None, **more: object) -> Verdict:
    named = {"candidate": "int4", "baseline": "fp16", "task": "arc"}
    return verdict_from_comparison(comparison, **named, rule=rule, supply=supply, **more)  # type: ignore[arg-type]


def pairs(regressions: int, improvements: int, n: int) -> list[Pair]:
    scores = [(1.0, 0.0)] * regressions + [(0.0, 1.0)] * improvements + [(1.0, 1.0)] * (n - regressions - improvements)
    return [Pair(str(i), base, cand) for i, (base, cand) in enumerate(scores)]


def compare_counts(regressions: int, improvements: int, n: int, margin: float) -> Comparison:
    return compare_differences(Differences.of_counts(regressions, improvements, n), margin)


def test_pairs_and_counts_give_the_same_comparison() -> None:
    assert compare(pairs(12, 8, 1000), 0.01) == compare_counts(12, 8, 1000, 0.01)


def test_a_comparison_holds_the_golden_values() -> None:
    comparison = compare(pairs(60, 20, 1319), 0.01)
    assert comparison.z == pytest.approx(-3.0865, abs=1e-4)
    assert comparison.e_fail == pytest.approx(22.95, rel=1e-3)
    assert comparison.delta == pytest.approx(-40 / 1319)
    assert (comparison.regressions, comparison.improvements, comparison.n) == (60, 20, 1319)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 500))
@settings(max_examples=40)
def test_swapping_the_arms_swaps_flips_and_sign(a: int, b: int, rest: int) -> None:
    one, other = compare_counts(a, b, a + b + rest, 0.02), compare_counts(b, a, a + b + rest, 0.02)
    assert (one.regressions, one.improvements) == (other.improvements, other.regressions)
    if one.n and one.delta is not None and other.delta is not None and one.interval and other.interval:
        assert one.delta == -other.delta
        assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]), abs=1e-8)


def test_the_three_answers() -> None:
    assert judge(compare_counts(5, 9, 541, 0.03)).verdict == "PASS"
    assert judge(compare_counts(60, 20, 1319, 0.01)).verdict == "FAIL"
    unknown = judge(compare_counts(12, 8, 1000, 0.01))
    assert (unknown.verdict, unknown.reason) == ("UNKNOWN", "need_n")


@pytest.mark.parametrize("n", [1, 10, 50, 164, 566])
def test_zero_flips_on_few_items_never_pass(n: int) -> None:
    assert judge(compare_counts(0, 0, n, 0.01)).verdict == "UNKNOWN"


def test_several_candidates_share_alpha_for_a_pass_but_not_for_a_fail() -> None:
    pass_once = compare_counts(0, 0, 600, 0.01)
    assert 20.0 <= pass_once.e_pass < 40.0
    assert judge(pass_once, Rule(multiplicity=1)).verdict == "PASS"
    assert judge(pass_once, Rule(multiplicity=2)).verdict == "UNKNOWN"
    assert judge(compare_counts(60, 20, 1319, 0.01), Rule(multiplicity=8)).verdict == "FAIL"


def test_more_than_five_percent_missing_is_unknown_whatever_the_rest_says() -> None:
    items = pairs(5, 9, 541)
    assert judge(compare(items, 0.03, missing=27)).verdict == "PASS"
    verdict = judge(compare(items, 0.03, missing=28))
    assert (verdict.verdict, verdict.reason) == ("UNKNOWN", "missing")
    assert "28 of 541" in verdict.explanation
    assert judge(compare(items, 0.03, missing=28), Rule(mode="fixed")).reason == "missing"


def lossy(regressions: int, improvements: int, n: int, lost: int) -> Comparison:
    """Of n items some were lost, of the rest so many flipped."""
    rest = pairs(regressions, improvements, n - lost)
    worst, best = [Pair("lost", 1.0, 0.0)] * lost, [Pair("lost", 0.0, 1.0)] * lost
    return compare(rest + worst, 0.03, missing=lost, kindly=rest + best)


@pytest.mark.parametrize("rule", [Rule(), Rule(mode="fixed")])
def test_losses_that_could_overturn_a_verdict_leave_none(rule: Rule) -> None:
    assert judge(compare(pairs(5, 9, 980), 0.03), rule).verdict == "PASS"
    assert judge(lossy(5, 9, 1000, 5), rule).verdict == "PASS"  # whatever they would have been
    passing = judge(lossy(5, 9, 1000, 40), rule)
    assert (passing.verdict, passing.reason) == ("UNKNOWN", "missing")
    assert "40 of 1000 items are missing (4 %); what they would have been decides" in passing.explanation
    assert judge(compare(pairs(100, 5, 980), 0.03), rule).verdict == "FAIL"
    assert judge(lossy(100, 5, 1000, 5), rule).verdict == "FAIL"
    failing = judge(lossy(70, 5, 1000, 40), rule)
    assert (failing.verdict, failing.reason) == ("UNKNOWN", "missing")


def test_the_interval_spans_all_that_the_lost_items_may_have_been() -> None:
    spans, none = lossy(5, 9, 1000, 20).interval, compare(pairs(5, 9, 1000), 0.03).interval
    assert spans is not None
    assert none is not None
    assert spans[0] < none[0] - 0.01
    assert spans[1] > none[1] + 0.01


def test_nothing_measured() -> None:
    verdict = judge(compare([], 0.01))
    assert (verdict.verdict, verdict.reason, verdict.max_drop) == ("UNKNOWN", "not_measured", None)


def test_what_an_unknown_says() -> None:
    verdict = judge(compare_counts(12, 8, 1000, 0.01), supply=Supply(seconds_per_item=0.9))
    assert verdict.n_more is not None
    low, mid, high = verdict.n_more
    assert low < mid < high
    assert verdict.minutes_more == pytest.approx(mid * 0.9 / 60)
    assert verdict.max_drop == pytest.approx(0.0196, abs=1e-3)
    assert verdict.explanation == (
        "no evidence of >1 % loss yet; need about 3400 more items (1100-63,000), about 51 min; "
        "data so far is compatible with a drop of at most 2 %"
    )


def test_what_a_pass_and_a_fail_say() -> None:
    assert judge(compare_counts(5, 9, 541, 0.03)).explanation.startswith(
        "non-inferior on these items at a margin of 3 %, alpha 0.05"
    )
    assert judge(compare_counts(60, 20, 1319, 0.01)).explanation.startswith("worse by more than 1 % on these items")


def test_items_and_budget_run_out() -> None:
    comparison = compare_counts(12, 8, 1000, 0.01)
    few = judge(comparison, supply=Supply(items_left=500))
    assert few.reason == "items_exhausted"
    assert few.smallest_margin is not None
    assert 0.01 < few.smallest_margin < 0.0196
    assert "only 500 are left" in few.explanation
    short = judge(comparison, supply=Supply(items_left=50_000, seconds_per_item=1.0, budget_seconds=600.0))
    assert short.reason == "budget"
    assert "only 600 fit into the budget" in short.explanation
    assert judge(comparison, supply=Supply(items_left=50_000)).reason == "need_n"


def test_data_that_leans_to_a_loss_says_so() -> None:
    verdict = judge(compare_counts(30, 18, 500, 0.01))
    assert (verdict.verdict, verdict.reason) == ("UNKNOWN", "margin_unreachable")
    assert verdict.n_more is not None
    assert "leans towards a loss" in verdict.explanation


def test_fixed_n_uses_tango_and_its_interval() -> None:
    fixed = Rule(mode="fixed")
    comparison = compare_counts(0, 0, 299, 0.01)
    assert judge(comparison).verdict == "UNKNOWN"
    verdict = judge(comparison, fixed)
    assert verdict.verdict == "PASS"
    assert verdict.comparison.interval == pytest.approx((-0.012685, 0.012685), abs=1e-5)
    assert judge(compare_counts(0, 0, 268, 0.01), fixed).verdict == "UNKNOWN"
    assert "fresh run" in judge(compare_counts(12, 8, 1000, 0.01), fixed).explanation


def graded(seed: int, shift: float, n: int = 600) -> list[Pair]:
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.3, 0.9, n)
    return [
        Pair(str(i), float(b), float(c))
        for i, (b, c) in enumerate(zip(base, base + rng.normal(shift, 0.05, n), strict=True))
    ]


def test_graded_scores_go_the_general_path() -> None:
    items = graded(1, 0.0)
    comparison = compare(items, 0.02)
    assert comparison.z is None
    assert judge(comparison).verdict == "PASS"
    assert judge(compare(graded(2, -0.1), 0.02)).verdict == "FAIL"
    with pytest.raises(InputError, match="right-or-wrong"):
        judge(comparison, Rule(mode="fixed"))


def test_graded_unknown_forecasts_only_with_its_differences() -> None:
    items = graded(3, 0.0, n=40)
    comparison = compare(items, 0.005)
    bare = judge(comparison)
    assert (bare.reason, bare.n_more) == ("need_n", None)
    assert comparison.interval is not None
    assert bare.max_drop == max(0.0, -comparison.interval[0])
    full = judge(comparison, differences=Differences.of_pairs(items))
    assert full.n_more is not None
    assert full.max_drop is not None
    assert bare.max_drop is not None
    assert full.max_drop <= bare.max_drop


def test_twenty_a_a_runs_never_fail() -> None:
    """The same engine twice, flipping 2 % of its items by noise: looked at after every block of 32."""
    for seed in range(20):
        draws = np.random.default_rng(seed).random(2048)
        for n in range(32, 2049, 32):
            worse, better = int((draws[:n] < 0.01).sum()), int((draws[:n] > 0.99).sum())
            assert log_e_counts(better, worse, n, -0.01) < math.log(20.0)
        assert judge(compare_counts(worse, better, 2048, 0.01)).verdict != "FAIL"


def test_bad_rules_and_margins_are_refused() -> None:
    with pytest.raises(InputError, match="alpha"):
        Rule(alpha=0.0)
    with pytest.raises(InputError, match="candidates"):
        Rule(multiplicity=0)
    for margin in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(InputError, match="margin"):
            compare_counts(0, 0, 10, margin)
