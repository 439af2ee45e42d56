"""What differs between two prompts is placed and named; what is alike, or cannot be compared, is said to be so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chat_server import Break, ChatServer
from quantwise.core.prompt_tokens import PromptTokens
from quantwise.prompts.difference import compare, disagreement, doubled_beginning
from quantwise.prompts.probes import CONVERSATIONS, USER, WITH_SYSTEM, Told, fingerprint, from_json, to_json


def told(broken: Break = "") -> Told:
    server = ChatServer(broken)
    found = {}
    for name, turns in CONVERSATIONS.items():
        ids, pieces = server.tokens(server.render([{"role": m.role, "content": m.content} for m in turns]))
        found[name] = PromptTokens(tuple(ids), tuple(pieces), len(ids), "a test")
    return found


def counts(prompts: Told) -> Told:
    return {name: PromptTokens(count=prompt.count, source="usage") for name, prompt in prompts.items()}


def test_equal_prompts_do_not_differ() -> None:
    assert compare(told(), told()).differs is None
    assert compare(told(), told()).compared == "token ids"
    assert compare(counts(told()), told()) == compare(told(), counts(told()))
    assert compare(counts(told()), told()).compared == "counts"
    assert compare({}, told()).compared == "nothing"
    assert compare(told(), {name: PromptTokens() for name in told()}).compared == "nothing"


@pytest.mark.parametrize(
    ("broken", "name", "at", "reason"),
    [
        ("double", USER, 1, "a beginning token that comes twice"),
        ("lost", USER, 0, "a lost beginning token"),
        ("no system", WITH_SYSTEM, 1, "a lost system turn"),
        ("default", USER, 1, "a system prompt that is added by default"),
        ("stripped", "white space around a turn", 2, "white space that one of them takes off or adds"),
        ("other", USER, 0, "another template"),
    ],
)
def test_every_break_is_placed_and_named(broken: Break, name: str, at: int, reason: str) -> None:
    found = compare(told(), told(broken))
    assert found.differs is not None
    assert found.differs.startswith(f"the prompt of {name} differs at token {at}: ")
    assert found.differs.endswith(f"likely {reason}")
    assert "\n" not in found.differs


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("double", "a beginning token that comes twice, or that only one of them has"),
        ("lost", "a lost beginning token"),
        ("no system", "a lost system turn"),
        ("default", "a system prompt that is added by default"),
        ("stripped", "another template"),
    ],
)
def test_counts_alone_show_it_too_and_say_that_they_are_counts(broken: Break, reason: str) -> None:
    for theirs, ours in ((told(), counts(told(broken))), (counts(told()), counts(told(broken)))):
        found = compare(theirs, ours)
        assert found.compared == "counts"
        assert str(found.differs).endswith(f"likely {reason} (only counts could be compared)")


def test_a_template_around_rendered_texts_is_named_with_what_to_do() -> None:
    wrapped = {n: replace(p, count=int(p.count or 0) + 8) for n, p in counts(told()).items()}
    assert "name servers alone" in str(compare(told(), wrapped, rendered=True).differs)
    assert "name servers alone" not in str(compare(told(), wrapped).differs)
    for broken, reason in (("double", "a beginning token that comes twice"), ("stripped", "another template")):
        assert reason in str(compare(told(), counts(told(broken)), rendered=True).differs)  # type: ignore[arg-type]


def test_texts_are_shown_and_ids_where_no_texts_are_told() -> None:
    assert "'<s>' where the other reads nothing" in str(compare(told(), told("double")).differs)
    bare = {name: replace(prompt, pieces=()) for name, prompt in told("double").items()}
    assert f"ids {bare[USER].ids[0]} where" in str(compare(told(), bare).differs)  # type: ignore[index]


def test_another_vocabulary_is_no_broken_template() -> None:
    other = {n: replace(p, ids=tuple(i + 7 for i in p.ids or ())) for n, p in told().items()}
    assert "another tokenizer" in str(compare(told(), other).differs)
    longer = {n: replace(p, count=2 * int(p.count or 0)) for n, p in counts(told()).items()}
    assert "another tokenizer" in str(compare(counts(told()), longer).differs)


def test_a_doubled_beginning_is_found_without_anyone_to_compare_with() -> None:
    said = str(doubled_beginning(told("double")))
    assert said.startswith(f"the prompt of {USER} begins with '<s>' twice")
    assert doubled_beginning(told()) is None
    blank = {USER: PromptTokens((5, 5, 6), ("\n", "\n", "x"))}
    assert doubled_beginning(blank) is None


def test_what_another_endpoint_tells_must_be_what_is_read() -> None:
    assert disagreement(told()) is None
    fewer = {n: replace(p, count=int(p.count or 0) - 3) for n, p in told().items()}
    assert "its chat endpoint reads" in str(disagreement(fewer))


def test_a_refused_conversation_is_a_difference_unless_both_refuse_it() -> None:
    refusing = told() | {WITH_SYSTEM: PromptTokens(refused="status 400: no system role")}
    assert "no system role" in str(compare(told(), refusing).differs)
    assert compare(refusing, refusing).differs is None
    assert compare(refusing, refusing).compared == "token ids"


def test_a_fingerprint_is_of_what_is_read_and_survives_the_store() -> None:
    prints = {fingerprint(told(b)) for b in ("", "double", "lost", "no system", "default", "stripped", "other")}  # type: ignore[arg-type]
    assert len(prints) == 7
    assert from_json(to_json(told())) == told()
    assert fingerprint(from_json(to_json(told()))) == fingerprint(told())
