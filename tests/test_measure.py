"""The bench: who is open, what is asked, and what is written down when a runtime fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fake_arms import Watched, arms, fake, items, question
from quantwise.chat import ChatTemplate
from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.core.evidence import Measurement
from quantwise.core.item import Item, Message
from quantwise.core.runtime import Ask, Executes, Footprint, Reply, RuntimeOptions
from quantwise.cost.candidate import cost
from quantwise.measure import Arm, Bench

THREE = question("small", "other")


def asked(bench: Bench, arm: Arm, things: list[Item]) -> list[Measurement]:
    return bench.block(arm, things, stage="certify", task="copy", block=0)


@dataclass
class Parrot:
    """Replies as it is told, and keeps what it was asked."""

    replies: list[Reply]
    seen: list[Ask] = field(default_factory=list)
    name: str = "parrot"
    executes: Executes | None = None

    def version(self) -> str:
        return "1"

    def refuses(self, artifact: Any) -> None:
        return None

    @contextmanager
    def open(self, artifact: Any, options: RuntimeOptions) -> Iterator[Any]:
        yield self

    def ask(self, asks: list[Ask]) -> list[Reply]:
        self.seen += asks
        return self.replies[: len(asks)]

    def footprint(self) -> Footprint:
        return Footprint(executes=self.executes)


def arm(runtime: Any, **changes: Any) -> Arm:
    return replace(arms(question(), runtime)["small@fake"], **changes)


def test_arms_stay_open_while_they_fit_together() -> None:
    watched = Watched(fake())
    with Bench(3000) as bench:
        for _ in range(2):
            for one in arms(THREE, watched).values():
                asked(bench, one, items("copy", 4))
        assert [what for what, _ in watched.log].count("open") == 3
        assert ("close", "base") not in watched.log
    assert sorted(where for what, where in watched.log if what == "close") == ["base", "other", "small"]


@pytest.mark.parametrize(("limit", "opened"), [(2000, 6), (1000, 6), (10, 6), (None, 3)])
def test_beyond_the_limit_the_least_recently_used_is_closed_and_all_are_measured(
    limit: int | None, opened: int
) -> None:
    watched = Watched(fake())
    with Bench(limit) as bench:
        for _ in range(2):
            for one in arms(THREE, watched).values():
                assert [row.score for row in asked(bench, one, items("copy", 4))] == [1.0] * 4
        assert bench.footprint("base@fake") is not None
    assert [what for what, _ in watched.log].count("open") == opened


def test_who_was_used_last_stays() -> None:
    watched = Watched(fake())
    found = arms(THREE, watched)
    with Bench(2000) as bench:
        for name in ("base@fake", "small@fake", "base@fake", "other@fake"):
            asked(bench, found[name], items("copy", 1))
        assert [where for what, where in watched.log if what == "close"] == ["small"]
        assert bench.footprint("nobody") is None


def test_a_runtime_that_dies_is_started_again_and_nobody_notices() -> None:
    watched = Watched(fake(dies_after=40))
    with Bench() as bench:
        first, second = (asked(bench, arm(watched), items("copy", 32)) for _ in range(2))
    assert [row.score for row in first + second] == [1.0] * 64
    assert [what for what, _ in watched.log] == ["open", "ask", "ask", "close", "open", "ask", "close"]


def test_what_dies_twice_on_a_block_is_crashes_of_its_items_and_the_next_block_is_asked() -> None:
    watched = Watched(fake(dies_after=10))
    with Bench() as bench:
        rows = asked(bench, arm(watched), items("copy", 32))
        after = asked(bench, arm(watched), items("copy", 8))
    assert {(row.finish, row.score) for row in rows} == {("crash", 0.0)}
    assert "died, as it was told" in (rows[0].error or "")
    assert [row.score for row in after] == [1.0] * 8
    assert [what for what, _ in watched.log].count("open") == 3


def test_what_cannot_be_opened_is_an_error_and_never_a_row() -> None:
    with Bench() as bench:
        with pytest.raises(RuntimeFailure, match="for being refused"):
            asked(bench, replace(arm(fake()), artifact=replace(arm(fake()).artifact, location="refused")), [])
        with pytest.raises(RuntimeFailure, match="is gone"):
            asked(bench, arm(Watched(fake(dies_after=3), opens={"small": 1})), items("copy", 8))


def test_input_that_was_right_when_asked_is_a_failure_of_the_place_later() -> None:
    class Away(Parrot):
        @contextmanager
        def open(self, artifact: Any, options: RuntimeOptions) -> Iterator[Any]:
            raise InputError("no server answers at http://here")
            yield

    with Bench() as bench, pytest.raises(RuntimeFailure, match="no server answers"):
        asked(bench, arm(Away([])), items("copy", 1))


def test_failed_and_unreadable_answers_score_nothing_and_say_why() -> None:
    replies = [
        Reply("7", seconds=0.5),
        Reply("seven", seconds=0.5),
        Reply(finish="timeout", error="too slow"),
        Reply("7", finish="refused", error="too long"),
        Reply("7", finish="length"),
    ]
    sevens = [Item(str(i), "copy", 7, "numeric", prompt="3 + 4 =", cluster="sums") for i in range(5)]
    with Bench() as bench:
        rows = asked(bench, arm(Parrot(replies)), sevens)
    assert [(r.score, r.finish) for r in rows] == [
        (1.0, "stop"),
        (0.0, "stop"),
        (0.0, "timeout"),
        (0.0, "refused"),
        (1.0, "length"),
    ]
    assert (rows[1].output, rows[2].error, rows[0].cluster, rows[0].seconds) == ("seven", "too slow", "sums", 0.5)
    assert rows[2].seconds is None


def test_choices_are_scored_by_their_log_probabilities() -> None:
    pick = Item("1", "copy", 1, "choice", prompt="the", choices=(" cat", " cats"))
    parrot = Parrot([Reply(choice_logprobs=(-2.0, -1.0))])
    with Bench() as bench:
        (row,) = asked(bench, arm(parrot), [pick])
    assert (row.score, row.output) == (1.0, "-2.0000 -1.0000")
    assert parrot.seen[0].choices == pick.choices


def test_times_of_what_is_computed_in_16_bit_are_unknown() -> None:
    slow = replace(arm(Parrot([Reply("w0", seconds=1.0, first_token_seconds=0.1)])))
    expanded = replace(slow, candidate=replace(slow.candidate, computes_as_stored=False))
    with Bench() as bench:
        assert asked(bench, slow, items("copy", 1))[0].first_token_seconds == 0.1
    with Bench() as bench:
        (row,) = asked(bench, expanded, items("copy", 1))
    assert (row.score, row.seconds, row.first_token_seconds) == (1.0, None, None)


@pytest.mark.parametrize("executes", [None, "as stored", "packed", "dequantized"])
def test_a_session_that_dequantizes_has_no_times_whatever_was_expected_of_it(executes: Executes | None) -> None:
    told = arm(Parrot([Reply("w0", seconds=1.0, first_token_seconds=0.1)], executes=executes))
    assert told.candidate.computes_as_stored
    with Bench() as bench:
        (row,) = asked(bench, told, items("copy", 1))
    real = executes != "dequantized"
    assert (row.score, row.seconds, row.first_token_seconds) == (1.0, 1.0 if real else None, 0.1 if real else None)
    found = cost(told.candidate, told.artifact, Footprint(peak_process_bytes=9, executes=executes), [row])
    assert (found.memory_bytes, found.seconds_per_item) == ((9, 1.0) if real else (None, None))


def test_messages_are_rendered_once_for_all_and_raw_prompts_are_left_alone() -> None:
    template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>")
    talk = Item("1", "copy", "x", "exact", messages=(Message("user", "say x"),), stop=("\n",), max_tokens=3)
    raw = Item("2", "copy", "x", "exact", prompt="say x")
    parrot = Parrot([Reply("x"), Reply("x")])
    with Bench() as bench:
        asked(bench, arm(parrot, template=template), [talk, raw])
        asked(bench, arm(parrot), [talk])
    rendered, plain, theirs = parrot.seen
    assert (rendered.text, rendered.rendered) == ("<user>say x<assistant>", True)
    assert (rendered.stop, rendered.max_tokens) == (("\n",), 3)
    assert (plain.text, plain.rendered) == ("say x", False)
    assert (theirs.text, theirs.messages) == (None, talk.messages)
