"""Each item asked K times: seeds that arms share, one block at most asked again, reruns that help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_arms import Killed, KilledAt, arms, certify, fake, items, question, task
from quantwise.core.decoding import Decoding, seed_of
from quantwise.core.evidence import Measurement
from quantwise.core.item import Item
from quantwise.core.question import Question
from quantwise.core.runtime import Ask, Reply
from quantwise.cost.course import Way, arm_of, course
from quantwise.losses import lost_note
from quantwise.measure import Arm, Bench
from quantwise.record.held import _accuracy
from quantwise.scenarios.prices import Prices
from quantwise.store import Store
from test_measure import Parrot

FOUR = Decoding(temperature=0.8, top_p=0.95, repeats=4, top_k=20, min_p=0.05)


def drawn(asked: Question, runtime: Any) -> dict[str, Arm]:
    return {name: replace(arm, decoding=asked.decoding, seed=asked.seed) for name, arm in arms(asked, runtime).items()}


def test_every_item_is_asked_k_times_by_seeds_that_all_arms_share() -> None:
    asked = question(decoding=FOUR, seed=3)
    seen: dict[str, list[Ask]] = {}
    for name, arm in drawn(asked, None).items():
        parrot = Parrot([Reply("w0")] * 8)
        with Bench() as bench:
            rows = bench.block(replace(arm, runtime=parrot), items("copy", 2), stage="certify", task="copy", block=0)
        seen[name] = parrot.seen
        assert [(r.item, r.repeat) for r in rows] == [(i.id, k) for i in items("copy", 2) for k in range(4)]
    one, two = seen.values()
    assert one == two
    assert [a.seed for a in one[:4]] == [seed_of(3, "copy", "00000", k) for k in range(4)]
    assert {(a.temperature, a.top_p, a.top_k, a.min_p) for a in one} == {(0.8, 0.95, 20, 0.05)}


def test_a_look_beforehand_and_a_choice_are_asked_once() -> None:
    arm = drawn(question(decoding=FOUR), None)["small@fake"]
    choice = Item(id="c", task="copy", target=0, scorer="choice", prompt="x", choices=(" a", " b"))
    parrot = Parrot([Reply(choice_logprobs=(-0.1, -2.0))])
    with Bench() as bench:
        (row,) = bench.block(replace(arm, runtime=parrot), [choice], stage="certify", task="copy", block=0)
    assert parrot.seen[0].temperature == 0
    assert row.repeat == 0
    looked = Parrot([Reply("w0"), Reply("w1")])
    with Bench() as bench:
        rows = bench.block(replace(arm, runtime=looked), items("copy", 2), stage="screen", task="copy", block=0)
    assert [r.repeat for r in rows] == [0, 0]
    assert looked.seen[0].temperature == 0.8


def test_the_run_that_tells_noise_draws_by_seeds_of_its_own() -> None:
    arm = drawn(question(decoding=FOUR, seed=3), None)["small@fake"]
    seen = []
    for repeat in (0, 1):
        parrot = Parrot([Reply("w0")])
        with Bench() as bench:
            bench.block(replace(arm, runtime=parrot), items("copy", 1), stage="aa", task="copy", block=0, repeat=repeat)
        seen.append(parrot.seen[0].seed)
    assert seen == [seed_of(3, "copy", "00000", repeat) for repeat in (0, 1)]


def test_what_is_counted_are_items_and_not_their_repeats() -> None:
    asked = question(decoding=FOUR)
    name = asked.tasks[0].name
    plain = Measurement("small@fake", "certify", name, "", 0, 0, 1.0, "", "stop")
    rows = [replace(plain, item=str(i), repeat=k) for i in range(3) for k in range(4)]
    rows[:2] = [replace(row, finish="timeout", score=0.0) for row in rows[:2]]
    assert _accuracy(asked, rows)[name] == {"n": 3, "mean": pytest.approx(10 / 12), "lost": 1}
    assert lost_note(name, {"small@fake": rows})[0].startswith(f"lost items on {name}: 1 of 3 of small@fake")


def test_a_thinking_model_is_given_its_cap_and_scored_on_its_answer_alone() -> None:
    arm = drawn(question(decoding=Decoding(thinking_cap=100)), None)["small@fake"]
    three = [replace(item, stop=("\n",)) for item in items("copy", 3)]
    said = ["<think>w0\nor not</think>w0\nmore", "<think>w1", "w2"]
    parrot = Parrot([Reply(said[0]), Reply(said[1], "length", output_tokens=164), Reply(said[2])])
    with Bench() as bench:
        rows = bench.block(replace(arm, runtime=parrot), three, stage="certify", task="copy", block=0)
    assert {(a.max_tokens, a.stop) for a in parrot.seen} == {(164, ())}
    assert [(r.score, r.finish, r.output) for r in rows] == [
        (1.0, "stop", "w0"),
        (0.0, "length", ""),
        (1.0, "stop", "w2"),
    ]


def test_no_answer_scores_nothing_even_where_an_empty_one_would() -> None:
    arm = drawn(question(decoding=Decoding(thinking_cap=100)), None)["small@fake"]
    anything = Item(id="r", task="copy", target=None, scorer="regex", prompt="x", options={"pattern": "^"})
    with Bench() as bench:
        parrot = Parrot([Reply("<think>so", "length")])
        (row,) = bench.block(replace(arm, runtime=parrot), [anything], stage="certify", task="copy", block=0)
    assert (row.score, row.finish) == (0.0, "length")


def sampled(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> dict[tuple[str, str], Any]:
    import fake_arms

    monkeypatch.setattr(fake_arms, "arms", drawn)
    asked = question(tasks=[task(items=96, margin=0.2)], decoding=FOUR)
    return certify(folder, asked, fake(errors={"small": 0.05, "base": 0.05}), **more)


def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampled(tmp_path / "whole", monkeypatch)
    for words in (2, 3):
        with pytest.raises(Killed):
            sampled(tmp_path / "cut", monkeypatch, progress=KilledAt(words))
    assert sampled(tmp_path / "cut", monkeypatch) == whole
    with Store(tmp_path / "whole") as one, Store(tmp_path / "cut") as two:
        rows = one.rows("certify")
        assert rows == two.rows("certify")
    assert {r.repeat for r in rows} == {0, 1, 2, 3}
    verdict = whole["small", "copy"]
    assert verdict.comparison.n <= 96, "the item is the unit"
    assert len({r.score for r in rows}) == 2


def test_only_what_was_lost_is_replaced(tmp_path: Path) -> None:
    def row(repeat: int, finish: str, score: float) -> Measurement:
        return Measurement("small@fake", "certify", "copy", "i", repeat, 0, score, finish, "")

    with Store(tmp_path, create=True) as store:
        store.add_block([], [row(0, "stop", 1.0), row(1, "timeout", 0.0)])
        store.replace_rows([row(0, "stop", 0.0), row(1, "stop", 1.0)])
        assert [(r.finish, r.score) for r in store.rows("certify")] == [("stop", 1.0), ("stop", 1.0)]


def test_reruns_help_where_answers_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the answers fail by chance: one greedy answer leaves half unsolved, two reruns of four repeats few."""
    import fake_arms

    monkeypatch.setattr(fake_arms, "arms", drawn)
    way = Way(Prices("EUR", 1.0), reruns=2)
    left = {}
    for name, decoding in (("greedy", Decoding()), ("drawn", FOUR)):
        asked = question(tasks=[task(items=96, margin=0.2)], decoding=decoding)
        certify(tmp_path / name, asked, fake(errors={"small": 0.5, "base": 0.5}, delay_s=1e-4))
        with Store(tmp_path / name) as store:
            arm = arm_of(store.rows("certify", "small@fake"), 8)
        assert arm is not None
        left[name] = sum(1.0 - course(repeats, way)[4] for repeats in arm.values()) / len(arm)
    assert 0.35 < left["greedy"] < 0.65
    assert left["drawn"] < 0.25


def test_requests_of_all_repeats_share_the_machine() -> None:
    rows = [
        Measurement("a", "certify", "copy", f"i{i}", k, 0, 1.0, "stop", "", seconds=8.0)
        for i in range(2)
        for k in range(4)
    ]
    arm = arm_of(rows, 8)
    assert arm is not None
    assert {seconds for repeats in arm.values() for _, seconds in repeats} == {1.0}
