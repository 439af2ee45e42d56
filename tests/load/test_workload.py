"""What is asked: files and suites, made-up text of the right length; and servers are asked what they know."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from known_server import known_server
from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.load.workload import Items, MadeUp, find_asker, measured_words, read_items, warm_up
from quantwise.runtimes.streaming import find_server, streaming_client


def write(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "asked.jsonl"
    path.write_text("\n".join(lines) + "\n\n")
    return str(path)


def test_prompts_and_messages_are_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}]
    lines = [{"prompt": "one", "max_tokens": 5, "id": "ignored"}, {"messages": turns}]
    items = read_items(write(tmp_path, *map(json.dumps, lines)), 10, 0)
    assert [a.max_tokens for a in items.asks] == [5, 64]
    assert (items.asks[0].text, items.asks[1].text, items.asks[1].messages[0].content) == ("one", None, "hi")
    assert [a.max_tokens for a in items.draw(1, 4)] == [64, 5, 64, 5]
    assert {a.max_tokens for a in read_items(write(tmp_path, *map(json.dumps, lines)), 10, 0, 7).asks} == {7}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", ":2: not JSON"),
        ("[1]", ":2: needs one of prompt and messages"),
        ('{"prompt": "a", "messages": []}', ":2: needs one of"),
        ('{"messages": []}', ":2: needs one of"),
        ('{"prompt": "a", "max_tokens": 0}', ":2: max_tokens 0"),
        ('{"prompt": "a", "max_tokens": true}', ":2: max_tokens True"),
        ('{"messages": [{"role": "user"}]}', ":2: a message lacks"),
        ('{"messages": ["hi"]}', ":2: a message lacks"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_items(write(tmp_path, '{"prompt": "fine"}', line), 10, 0)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_items(str(tmp_path / "nothing.jsonl"), 10, 0)
    with pytest.raises(InputError, match="no items"):
        read_items(write(tmp_path), 10, 0)


def test_a_suite_is_asked_as_messages() -> None:
    items = read_items("json_output", 12, 0)
    assert len(items.asks) == 12
    assert all(a.messages and a.text is None for a in items.asks)


def test_made_up_text_is_the_same_for_all_and_never_twice() -> None:
    work = MadeUp(40, 8, seed=3)
    first = work.draw(0, 50)
    assert [a.text for a in first] == [a.text for a in work.draw(0, 50)]
    assert len({a.text for a in [*first, *work.draw(50, 50)]}) == 100
    assert len({str(a.text)[:60] for a in first}) == 50
    assert {len(str(a.text).split()) for a in first} == {40}
    assert MadeUp(40, 8, chat=True).draw(0, 1)[0].messages


def test_words_are_measured_on_the_server() -> None:
    with known_server(overhead=9, per_word=2) as url:
        server = find_server(url)
        http = streaming_client(server)

        async def go() -> MadeUp:
            asker = await find_asker(server, http, MadeUp(209, 4), 10)
            assert asker.notes == ()
            return await measured_words(MadeUp(209, 4), asker, http, 10)

        assert asyncio.run(go()).words == 100


def asked(fault: str, workload: MadeUp | Items) -> tuple[str, ...]:
    """Notes on a server with this fault, once it is warm."""
    with known_server(fault=fault, tokens=2) as url:
        server = find_server(url)
        http = streaming_client(server)

        async def go() -> tuple[str, ...]:
            asker = await find_asker(server, http, workload, 10)
            assert len(await warm_up(asker, http, workload, 3, 10)) == 3
            return asker.notes

        return asyncio.run(go())


def test_what_a_server_does_not_know_is_found_out_and_said(tmp_path: Path) -> None:
    items = read_items(write(tmp_path, '{"prompt": "one"}'), 3, 0)
    assert asked("", MadeUp(8, 2)) == ()
    assert asked("strict", items) == ()
    assert "ignore_eos" in asked("strict", MadeUp(8, 2))[0]
    assert "does not count tokens" in asked("no usage", MadeUp(8, 2))[0]


@pytest.mark.parametrize("fault", ["500", "other model", "no stream", "404"])
def test_a_server_that_answers_nothing_is_a_failure_with_its_word(fault: str) -> None:
    with pytest.raises(RuntimeFailure, match=r"does not answer: .*(on purpose|another|application/json)") as caught:
        asked(fault, MadeUp(8, 2))
    assert "\n" not in str(caught.value)
