"""Cost of a solved item: by hand, against all orders of the answers, and against a truth that is known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from quantwise.core.artifact import Candidate
from quantwise.core.evidence import Measurement
from quantwise.core.question import Question
from quantwise.core.solved_item import SolvedItem
from quantwise.core.verdict import Cost
from quantwise.cost.course import Way, course, way_of
from quantwise.cost.solved import run_cost, solved_items
from quantwise.scenarios.prices import Prices, Review

BASE, SMALL = Candidate("f16", "llamacpp", baseline=True), Candidate("q4_0", "llamacpp")
EUR = Prices("EUR", 3.6)  # a thousandth a second
SCENARIO = {
    "name": "office",
    "objective": ["bytes"],
    "prices": {"currency": "EUR", "machine_hour": 3.6},
    "reruns": 1,
    "review": {"probability": 0.5, "price": 0.01, "solves": 0.8},
    "requests_per_month": 100_000,
}
QUESTION = Question(
    model="m",
    model_hash="0",
    scenario=SCENARIO,
    tasks=(),
    candidates=(BASE, SMALL),
    calibration={},
    runtimes={},
    brought={},
    template_hash=None,
    scorers="1",
)


def row(name: str, item: str, valid: bool, seconds: float | None, **changes: object) -> Measurement:
    plain = Measurement(name, "certify", "json", item, 0, 0, float(valid), "stop", "", seconds=seconds)
    return replace(plain, **changes)  # type: ignore[arg-type]


def arm(name: str, count: int, fails: int, seconds: float) -> list[Measurement]:
    """The first ``fails`` of so many items are not valid."""
    return [row(name, f"{i:03d}", i >= fails, seconds) for i in range(count)]


def found(
    ours: Sequence[Measurement], theirs: Sequence[Measurement], question: Question = QUESTION, **timing: float | None
) -> SolvedItem | None:
    return solved_items(question, {SMALL.name: ours, BASE.name: theirs}, {}, timing).get(SMALL.name)


def test_golden_arithmetic_by_hand() -> None:
    """100 items. Baseline: 10 fail, 2 s an answer. Candidate: 30 fail, 1 s an answer. One rerun, one answer measured.

    Baseline: 90 answers and 10 twice, 110 x 2 s = 220 s = 0.22 EUR; 10 x 0.5 reviews = 5 x 0.01 = 0.05 EUR; solved
    90 + 5 x 0.8 = 94. So 0.27 / 94 EUR. Candidate: 130 s = 0.13 EUR, 15 reviews = 0.15 EUR, solved 70 + 12 = 82.
    """
    item = found(arm(SMALL.name, 100, 30, 1.0), arm(BASE.name, 100, 10, 2.0))
    assert item is not None
    assert (item.items, item.candidate, item.baseline) == (100, "q4_0@llamacpp", "f16@llamacpp")
    ours, theirs = item.ours, item.theirs
    assert (theirs.failing, theirs.unsolved, theirs.answers, theirs.reviews) == pytest.approx((0.1, 0.06, 1.1, 0.05))
    assert (ours.failing, ours.unsolved, ours.answers, ours.reviews) == pytest.approx((0.3, 0.18, 1.3, 0.15))
    assert (theirs.seconds, theirs.money) == pytest.approx((220 / 94, 0.27 / 94))
    assert (ours.seconds, ours.money) == pytest.approx((130 / 82, 0.28 / 82))
    assert item.ratio == pytest.approx((0.28 / 82) / (0.27 / 94))
    assert item.interval is not None
    assert item.interval[0] < item.ratio < item.interval[1]
    assert (ours.joules, theirs.joules) == (None, None)
    assert any("one answer per item" in note for note in item.notes)
    assert "energy is unknown" in item.notes


def test_break_even_by_hand() -> None:
    """Nothing fails, 2 s against 1 s: 0.002 against 0.001 EUR, 100 EUR a month saved; 10 h of work cost 36 EUR."""
    item = found(arm(SMALL.name, 64, 0, 1.0), arm(BASE.name, 64, 0, 2.0), build=32_400.0, certify=3_600.0)
    assert item is not None
    assert item.ratio == pytest.approx(0.5)
    assert item.interval is not None
    assert item.interval[0] < 0.5 < item.interval[1] < 1.0, "not to the point: an item may yet fail"
    assert item.saved_per_month is not None
    assert item.break_even_months is not None
    low, saved, high = item.saved_per_month
    assert saved == pytest.approx(100.0)
    assert low < saved < high
    assert item.break_even_months == pytest.approx((36 / high, 0.36, 36 / low))
    known = replace(item, interval=(0.4, 0.6), saved_per_month=(90.0, 100.0, 120.0), break_even_months=(0.3, 0.36, 0.4))
    assert known.price(SCENARIO) == [
        "a solved item costs 0.001 EUR, 0.50 times (95% interval 0.40 to 0.60) that of f16@llamacpp",
        "quantizing and evaluating, 10 h at 36 EUR, are earned back in 11 days (9.13 to 12.2): 100 EUR a month (90 to "
        "120) are saved at 100,000 requests",
    ]


def test_break_even_is_not_told_where_the_saving_may_be_none_or_a_stage_is_unknown() -> None:
    draw = random.Random(1)
    noisy = [row(SMALL.name, f"{i:03d}", True, 2.0 * draw.uniform(0.5, 1.5)) for i in range(64)]
    base = arm(BASE.name, 64, 0, 2.0)
    item = found(noisy, base, certify=60.0)
    assert item is not None
    assert item.interval is not None
    assert item.interval[0] < 1.0 < item.interval[1]
    assert (item.saved_per_month, item.break_even_months) == (None, None)
    assert [line.endswith("; more items would settle whether it is cheaper") for line in item.price(SCENARIO)] == [True]
    cheaper = found(arm(SMALL.name, 64, 0, 1.0), base, build=None, certify=60.0)
    assert cheaper is not None
    assert cheaper.saved_per_month is not None
    assert cheaper.break_even_months is None
    assert len(cheaper.price(SCENARIO)) == 1
    dearer = found(arm(SMALL.name, 64, 0, 4.0), base, certify=60.0)
    assert dearer is not None
    assert dearer.saved_per_month is None


def by_orders(repeats: list[tuple[bool, float]], way: Way) -> tuple[float, ...]:
    """The slow way: every order of the measured answers, then failing ones without end."""
    failed = [s for valid, s in repeats if not valid]
    totals = [0.0] * 5
    orders = list(itertools.permutations(repeats))
    for order in orders:
        endless = [*order, *[(False, sum(failed) / len(failed) if failed else 0.0)] * way.reruns]
        answers, seconds, done = 0, 0.0, False
        for valid, took in endless[: 1 + way.reruns]:
            answers += 1
            seconds += took
            done = valid
            if done:
                break
        reviews = 0.0 if done or way.review is None else way.review.probability
        solved = 1.0 if done else reviews * way.review.solves if way.review else 0.0
        for place, value in enumerate((float(not order[0][0]), answers, seconds, reviews, solved)):
            totals[place] += value / len(orders)
    return tuple(totals)


@pytest.mark.parametrize("reruns", [0, 1, 2, 4])
@pytest.mark.parametrize("review", [None, Review(0.4, 1.0, 0.7)])
def test_the_course_of_an_item_is_the_mean_over_all_orders_of_its_answers(reruns: int, review: Review | None) -> None:
    way, draw = Way(EUR, reruns, review), random.Random(reruns)
    for count in range(1, 6):
        for valid in range(count + 1):
            repeats = [(i < valid, draw.uniform(0.5, 3.0)) for i in range(count)]
            assert course(repeats, way) == pytest.approx(by_orders(repeats, way))


def test_a_greedy_failure_stays_one_and_sampled_repeats_let_reruns_help() -> None:
    way = Way(EUR, reruns=3)
    assert course([(False, 1.0)], way) == (1.0, 4.0, 4.0, 0.0, 0.0)
    assert course([(False, 1.0)] * 4, way)[-1] == 0.0, "repeats that are all alike help as little"
    assert course([(False, 1.0), (True, 1.0)], way)[-1] == 1.0


def test_requests_under_way_together_share_the_machine() -> None:
    base = arm(BASE.name, 64, 0, 2.0)
    four = replace(QUESTION, parallel={"llamacpp": 4})
    item = found(arm(SMALL.name, 64, 0, 1.0), base, four)
    assert item is not None
    assert (item.ours.seconds, item.theirs.seconds) == pytest.approx((0.25, 0.5))
    # The last block of a file is short: three requests are three at a time.
    short = [replace(r, block=i // 3) for i, r in enumerate(base[:63])]
    item = found(short, short, four)
    assert item is not None
    assert item.ours.seconds == pytest.approx(2.0 / 3)


def test_only_items_that_both_were_asked_count_and_tasks_weigh_alike() -> None:
    ours = [*arm(SMALL.name, 90, 0, 1.0), *(replace(r, task="code") for r in arm(SMALL.name, 30, 0, 9.0))]
    theirs = [*arm(BASE.name, 60, 0, 1.0), *(replace(r, task="code") for r in arm(BASE.name, 99, 0, 3.0))]
    item = found(ours, theirs)
    assert item is not None
    assert item.items == 60 + 30
    assert (item.ours.seconds, item.theirs.seconds) == pytest.approx((5.0, 2.0))


def test_a_cluster_is_resampled_as_one() -> None:
    """Sixty copies of the same item in ten clusters say what ten items say."""
    draw = random.Random(0)
    took = [draw.uniform(1.0, 3.0) for _ in range(40)]
    ours = [row(SMALL.name, f"{i:03d}", True, took[i % 40], cluster=f"c{i % 40}") for i in range(240)]
    theirs = [row(BASE.name, f"{i:03d}", True, 2.0, cluster=f"c{i % 40}") for i in range(240)]
    single = found([r for r in ours if int(r.item) < 40], [r for r in theirs if int(r.item) < 40])
    clustered = found(ours, theirs)
    loose = found([replace(r, cluster=None) for r in ours], [replace(r, cluster=None) for r in theirs])
    assert single is not None and clustered is not None and loose is not None  # noqa: PT018

    def width(item: SolvedItem) -> float:
        assert item.interval is not None
        return item.interval[1] - item.interval[0]

    assert width(clustered) == pytest.approx(width(single), rel=0.05)
    assert width(loose) < 0.5 * width(clustered)
    few = [replace(r, cluster=f"c{i % 20}") for i, r in enumerate(theirs)]
    assert found([replace(r, candidate=SMALL.name) for r in few], few) is None, "twenty clusters are too few"


def test_unknown_times_are_unknown_and_a_few_failed_requests_take_the_mean() -> None:
    base = arm(BASE.name, 100, 0, 2.0)
    assert found([replace(r, seconds=None) for r in base], base) is None
    some = [replace(r, seconds=None, score=0.0, finish="crash") if i < 4 else r for i, r in enumerate(base)]
    item = found(some, base)
    assert item is not None
    assert item.ours.failing == pytest.approx(0.04)
    assert item.ours.seconds == pytest.approx((96 * 2 + 4 * 2 * 2) / (96 + 4 * 0.5 * 0.8))
    more = [replace(r, seconds=None, finish="crash") if i < 6 else r for i, r in enumerate(base)]
    assert found(more, base) is None
    assert found(base[:20], base) is None, "too few items"
    assert found([], base) is None


def test_a_timeout_or_a_partial_score_solves_nothing_and_nothing_solved_has_no_price() -> None:
    base = arm(BASE.name, 50, 0, 1.0)
    late = [replace(r, finish="timeout", score=1.0) for r in base]
    nearly = [replace(r, score=0.99) for r in base]
    way = {k: v for k, v in SCENARIO.items() if k != "review"}
    for rows in (late, nearly):
        item = found(rows, base, replace(QUESTION, scenario=way))
        assert item is not None
        assert (item.ours.failing, item.ours.unsolved, item.ours.money) == (1.0, 1.0, None)
        assert (item.ratio, item.interval, item.dearer(0.05)) == (None, None, False)


def test_energy_is_per_solved_item_where_it_was_measured() -> None:
    costs = {c.name: Cost(c.name, 1, 1, 1.0, joules_per_item=10.0) for c in (BASE, SMALL)}
    rows = {SMALL.name: arm(SMALL.name, 100, 30, 1.0), BASE.name: arm(BASE.name, 100, 0, 1.0)}
    item = solved_items(QUESTION, rows, costs, {})[SMALL.name]
    assert (item.ours.joules, item.theirs.joules) == pytest.approx((10.0 * 130 / 82, 10.0))
    assert "energy is unknown" not in item.notes


def test_repeats_that_were_measured_are_used_and_the_rest_is_said() -> None:
    """Three repeats of each item; of the candidate's one in three is valid, so that the first rerun helps half."""
    ours = [row(SMALL.name, f"{i:03d}", k == i % 3, 1.0, repeat=k) for i in range(60) for k in range(3)]
    theirs = [row(BASE.name, f"{i:03d}", True, 1.0, repeat=k) for i in range(60) for k in range(3)]
    item = found(ours, theirs)
    assert item is not None
    assert item.ours.failing == pytest.approx(2 / 3)
    assert item.ours.answers == pytest.approx(1 + 2 / 3)
    assert item.ours.reviews == pytest.approx(0.5 * 1 / 3)
    assert item.notes == ("energy is unknown",)
    longer = found(ours, theirs, replace(QUESTION, scenario={**SCENARIO, "reruns": 5}))
    assert longer is not None
    assert longer.notes[0].startswith("3 answers per item were measured")


def test_without_prices_there_is_nothing() -> None:
    plain = replace(QUESTION, scenario={"name": "laptop", "objective": ["bytes"]})
    assert way_of(plain) is None
    assert found(arm(SMALL.name, 60, 0, 1.0), arm(BASE.name, 60, 0, 1.0), plain) is None


def test_what_the_run_cost() -> None:
    way = Way(EUR)
    assert run_cost(way, {"build": 1800.0, "certify": 1800.0}) == pytest.approx(3.6)
    assert run_cost(way, {"build": None, "certify": 1800.0}) is None
    assert run_cost(way, {}) is None


def test_the_sentence() -> None:
    dear = found(arm(SMALL.name, 400, 120, 1.0), arm(BASE.name, 400, 8, 1.0))
    assert dear is not None
    assert dear.dearer(0.05)
    said = dear.why_dearer(SCENARIO, 0.54)
    assert said.startswith("is 46% smaller, yet a solved item costs ")
    low, high = dear.interval or (0.0, 0.0)
    money = f"{dear.ours.money:.3g} EUR against {dear.theirs.money:.3g}"
    assert f"{money}, {dear.ratio:.2f} times (95% interval {low:.2f} to {high:.2f}) that of f16@llamacpp: " in said
    assert said.endswith(
        "30% of its answers fail validation and are rerun, 2% of the baseline's; with about 2.0% failing it would cost "
        "the same"
    )
    slow = found(arm(SMALL.name, 400, 9, 2.0), arm(BASE.name, 400, 8, 1.0))
    assert slow is not None
    assert slow.why_dearer(SCENARIO, None).startswith("a solved item costs")
    assert slow.why_dearer(SCENARIO, 1.2).endswith(
        "that of f16@llamacpp: an answer takes 2.00 times the baseline's; it would be dearer even if none failed"
    )
    both = found(arm(SMALL.name, 400, 120, 1.5), arm(BASE.name, 400, 8, 1.0))
    assert both is not None
    assert "baseline's; an answer takes 1.50 times the baseline's; " in both.why_dearer(SCENARIO, None)
    assert not replace(dear, ratio=1.04, interval=(1.01, 1.07)).dearer(0.05)
    assert not replace(dear, interval=(1.0, 2.0)).dearer(0.05)
