"""From rows to pairs: repeats, clusters, failures."""

from __future__ import annotations

from dataclasses import replace

from quantwise.core.evidence import Measurement, Pair
from quantwise.stats.pairing import pairs

ROW = Measurement("c", "certify", "t", "1", 0, 0, 1.0, "stop", "x")


def row(item: str, score: float, repeat: int = 0, **changes: object) -> Measurement:
    return replace(ROW, item=item, score=score, repeat=repeat, **changes)  # type: ignore[arg-type]


def test_samples_of_one_item_count_by_their_mean() -> None:
    base = [row("1", s, r) for r, s in enumerate((1.0, 1.0, 0.0, 0.0))]
    ours = [row("1", s, r) for r, s in enumerate((1.0, 0.0, 0.0, 0.0))]
    assert pairs(base, ours) == ([Pair("t/1", 0.5, 0.25)], 0)


def test_unequal_numbers_of_samples_are_still_means() -> None:
    assert pairs([row("1", 1.0)], [row("1", 1.0), row("1", 0.0, 1)])[0] == [Pair("t/1", 1.0, 0.5)]


def test_a_cluster_is_the_mean_of_its_items_and_not_of_its_samples() -> None:
    base = [row("1", 1.0, cluster="p"), row("2", 1.0, cluster="p"), row("3", 1.0)]
    ours = [row("1", s, r, cluster="p") for r, s in enumerate((0.0, 0.0, 0.0))] + [
        row("2", 1.0, cluster="p"),
        row("3", 1.0),
    ]
    assert pairs(base, ours)[0] == [Pair("t/p", 1.0, 0.5), Pair("t/3", 1.0, 1.0)]


def test_failures_are_scored_at_their_worst_and_counted_once_for_each_pair() -> None:
    base = [row("1", 0.0, finish="crash"), row("2", 1.0), row("3", 0.0, finish="timeout", cluster="p")]
    ours = [row("1", 0.0), row("2", 1.0, finish="timeout"), row("3", 0.0, finish="crash", cluster="p")]
    found, missing = pairs(base, ours)
    assert found == [Pair("t/1", 1.0, 0.0), Pair("t/2", 1.0, 0.0), Pair("t/p", 1.0, 0.0)]
    assert missing == 3


def test_kindly_what_was_lost_is_scored_at_its_best() -> None:
    base = [row("1", 0.0, finish="crash"), row("2", 1.0), row("3", 0.0, finish="timeout", cluster="p"), row("4", 1.0)]
    ours = [row("1", 0.0), row("2", 1.0, finish="timeout"), row("3", 0.0, finish="crash", cluster="p"), row("4", 0.0)]
    found, missing = pairs(base, ours, kindly=True)
    assert found == [Pair("t/1", 0.0, 0.0), Pair("t/2", 1.0, 1.0), Pair("t/p", 0.0, 1.0), Pair("t/4", 1.0, 0.0)]
    assert missing == 3


def test_what_both_refuse_is_equal_and_missing_all_the_same() -> None:
    both = [row("1", 0.0, finish="refused")]
    assert pairs(both, both) == pairs(both, both, kindly=True) == ([Pair("t/1", 0.0, 0.0)], 1)


def test_an_item_that_one_side_was_not_asked_is_left_out_and_not_missing() -> None:
    assert pairs([row("1", 1.0), row("2", 0.0, finish="crash")], [row("1", 1.0)]) == ([Pair("t/1", 1.0, 1.0)], 0)
    assert pairs([], []) == ([], 0)


def test_items_of_two_tasks_are_apart_although_their_ids_are_equal() -> None:
    other = replace(ROW, task="u", score=0.0)
    assert {p.item for p in pairs([ROW, other], [ROW, other])[0]} == {"t/1", "u/1"}
