from __future__ import annotations

import random
from dataclasses import replace

import pytest

from quantwise.core.item import Item, fingerprint
from quantwise.tasks.task import Task, cluster_repeats, split_items


def items(count: int) -> tuple[Item, ...]:
    return tuple(Item(f"i{n}", "t", "x", "exact", prompt=f"question {n}") for n in range(count))


def task(given: tuple[Item, ...]) -> Task:
    return Task("t", "other", "exact", "t.jsonl", "0", given)


@pytest.mark.parametrize(("count", "screened"), [(1, 0), (2, 1), (9, 1), (10, 1), (11, 2), (250, 25), (5000, 100)])
def test_a_tenth_screens_and_at_most_a_hundred(count: int, screened: int) -> None:
    screen, certify = split_items(task(items(count)), seed=0)
    assert len(screen) == screened
    assert {i.id for i in screen} | {i.id for i in certify} == {f"i{n}" for n in range(count)}
    assert not {i.id for i in screen} & {i.id for i in certify}
    assert task(items(count)).available == len(certify) == count - screened


def test_the_order_is_random_seeded_and_independent_of_the_files_order() -> None:
    given = items(200)
    shuffled = list(given)
    random.Random(1).shuffle(shuffled)
    first = split_items(task(given), seed=5)
    assert split_items(task(tuple(shuffled)), seed=5) == first
    assert split_items(task(given), seed=6) != first
    places = [int(i.id[1:]) for i in first[1]]
    assert places != sorted(places)


def test_more_items_extend_fewer() -> None:
    t = task(items(100))
    assert t.supply("certify", 50, 2)[:20] == t.supply("certify", 20, 2)
    assert len(t.supply("certify", 1000, 2)) == 90
    assert not {i.id for i in t.supply("screen", 100, 2)} & {i.id for i in t.supply("certify", 100, 2)}


def test_clusters_stay_together_on_one_side() -> None:
    given = tuple(replace(i, cluster=f"c{n // 7}") if n % 2 else i for n, i in enumerate(items(300)))
    for seed in range(20):
        screen, certify = split_items(task(given), seed)
        assert not {i.cluster for i in screen if i.cluster} & {i.cluster for i in certify if i.cluster}
        assert len(screen) <= 30
        assert task(given).available is not None
        assert len(certify) >= (task(given).available or 0)
        seen: list[str] = []
        for item in certify:
            if item.cluster and (not seen or seen[-1] != item.cluster):
                seen.append(item.cluster)
        assert len(seen) == len(set(seen))


def test_one_cluster_only_certifies() -> None:
    given = tuple(replace(i, cluster="c") for i in items(50))
    screen, certify = split_items(task(given), 0)
    assert (len(screen), len(certify)) == (0, 50)


def test_the_same_question_twice_is_one_observation() -> None:
    given = (*items(20), Item("again", "t", "x", "exact", prompt="  QUESTION\n3"))
    joined = cluster_repeats(given)
    assert joined[3].cluster is not None
    assert joined[3].cluster == joined[-1].cluster
    assert [i.cluster for n, i in enumerate(joined) if n not in (3, 20)] == [None] * 19
    for seed in range(30):
        screen, certify = split_items(task(joined), seed)
        assert not {fingerprint(i.text) for i in screen} & {fingerprint(i.text) for i in certify}


def test_copies_join_an_items_cluster() -> None:
    given = (Item("a", "t", "x", "exact", prompt="p", cluster="mine"), Item("b", "t", "x", "exact", prompt="P"))
    assert [i.cluster for i in cluster_repeats(given)] == ["mine", "mine"]


def test_empty_prompts_with_other_choices_are_other_questions() -> None:
    given = tuple(Item(str(n), "t", 0, "choice", prompt="", choices=(f"a{n}", f"b{n}")) for n in range(3))
    assert cluster_repeats(given) == given


def test_made_items_cannot_be_split() -> None:
    made = Task("t", "other", "exact", "t", "0", lambda part, count, seed: items(count))
    assert made.available is None
    assert len(made.supply("screen", 3, 0)) == 3
    with pytest.raises(ValueError, match="makes its items"):
        split_items(made, 0)
