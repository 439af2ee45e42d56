"""Thinking is parted from the answer, counted, capped, and never scored."""

from __future__ import annotations

import pytest

from quantwise.core.runtime import Ask, Finish, Reply
from quantwise.runtimes.thinking import answered, opened, parted

OPEN = "<|user|>how many?<|assistant|>\n<think>\n"


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("text", "inside", "thought", "answer"),
    [
        ("42", False, "", "42"),
        ("<think>\ntwo and two\n</think>\n\n4", False, "\ntwo and two\n", "4"),
        ("<think></think>4", False, "", "4"),
        ("two and two\n</think>\n4", True, "two and two\n", "4"),
        ("<thinking>a</thinking>b", False, "a", "b"),
        ("  <reasoning>a</reasoning> b", False, "a", "b"),
        ("<think>two and", False, "two and", None),
        ("two and", True, "two and", None),
        ("a < b and <b>", False, "", "a < b and <b>"),
        ("The tag </think> closes a thought. 42", False, "", "The tag </think> closes a thought. 42"),
        ("<think>a </reasoning> b</think>4", False, "a </reasoning> b", "4"),
        ("<think>a </reasoning> b", False, "a </reasoning> b", None),
        ("<think>a</think>b</think>c", False, "a", "b</think>c"),
    ],
)
def test_an_output_parts_into_thinking_and_answer(text: str, inside: bool, thought: str, answer: str | None) -> None:
    assert parted(text, inside) == (thought, answer)


def test_templates_that_open_the_thinking_are_seen() -> None:
    assert opened(OPEN)
    assert not opened("<think>a</think>\n\n")
    assert not opened(None)


def settled(text: str, *, finish: Finish = "stop", prompt: str | None = "hi", cap: int = 5, **more: object) -> Reply:
    return answered(Ask(text=prompt), Reply(text, finish, **more), cap, ("\n", "END"), words)  # type: ignore[arg-type]


def test_a_server_that_renders_by_itself_may_have_opened_the_thinking() -> None:
    assert settled("two</think>4", prompt=None).text == "4"
    assert settled("two</think>4").text == "two</think>4"


def test_the_answer_ends_at_a_stop_text_and_what_is_thought_does_not() -> None:
    reply = settled("<think>one\ntwo END three</think>7\nand more", finish="length")
    assert (reply.text, reply.finish, reply.thinking_tokens) == ("7", "stop", 4)


@pytest.mark.parametrize(
    "reply",
    [
        settled("<think>one two three four five six</think>7"),
        settled("<think>7", finish="length"),
        settled("7 is the answer", finish="length", prompt=OPEN),
        settled("so it is 7", finish="length", prompt=None),
        settled("", finish="length", thinking="so it is 7"),
        settled("7", thinking="a b c", thinking_tokens=6),
    ],
)
def test_thinking_without_an_end_or_beyond_the_cap_is_no_answer(reply: Reply) -> None:
    assert (reply.text, reply.finish) == ("", "length")
    assert reply.thinking_tokens


def test_what_a_server_parted_is_taken_as_it_is() -> None:
    assert settled("7", thinking="two words") == Reply("7", thinking="two words", thinking_tokens=2)
    assert settled("7", thinking="two words", thinking_tokens=3).thinking_tokens == 3


def test_failed_requests_and_answers_without_thinking_stay() -> None:
    lost = Reply(finish="timeout", error="late")
    assert answered(Ask(text="a"), lost, 5, (), None) == lost
    assert settled("7") == Reply("7", thinking_tokens=0)
    unknown = answered(Ask(text="a"), Reply("<think>a</think>7"), 5, (), None)
    assert (unknown.text, unknown.thinking_tokens) == ("7", None)
