"""Streams of a server that fails on purpose: each ends in one outcome, and only a whole answer is ``ok``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from known_server import event, known_server
from quantwise.core.errors import InputError
from quantwise.core.item import Message
from quantwise.core.runtime import Ask
from quantwise.runtimes.process import free_port
from quantwise.runtimes.streaming import (
    OUTCOMES,
    Server,
    Streamed,
    clock,
    find_server,
    stream,
    stream_request,
    streaming_client,
)

CHUNK = {"model": "m", "choices": [{"text": "a", "index": 0, "finish_reason": None}]}
LAST = {"model": "m", "choices": [{"text": "", "index": 0, "finish_reason": "stop"}]}
NAMES = [
    *("choices", "usage", "timings", "model", "error", "message", "text", "delta", "content", "tool_calls", "function"),
    *("finish_reason", "prompt_tokens", "completion_tokens", "prompt_tokens_details", "prompt_ms", "predicted_ms"),
]
WHOLE = event(CHUNK) + event(LAST) + event("[DONE]")


@pytest.fixture(scope="module")
def known() -> Iterator[Server]:
    with known_server() as url:
        yield find_server(url)


def ask(server: Server, prompt: str, chat: bool = False, limit_s: float = 20.0) -> Streamed:
    what = Ask(messages=(Message("user", prompt),), max_tokens=4) if chat else Ask(text=prompt, max_tokens=4)
    return asyncio.run(stream(streaming_client(server), stream_request(what, server.model, {}), limit_s))


def answer_of(*portions: bytes, limit_s: float = 10.0) -> Streamed:
    """What becomes of an answer that a server writes in these portions before it closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for portion in portions:
            writer.write(portion)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async def go() -> Streamed:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with listening:
            root = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/prefix"
            server = Server(root, root, "m")
            return await stream(streaming_client(server), stream_request(Ask(text="x"), "m", {}), limit_s)

    return asyncio.run(go())


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


def test_every_piece_has_its_time_and_tokens_are_the_servers(known: Server) -> None:
    before = clock()
    got = ask(known, json.dumps({"ttft": 0.1, "tpot": 0.05, "tokens": 4}))
    assert (got.outcome, got.error, got.finish, got.status) == ("ok", None, "length", 200)
    assert (got.text, got.output_tokens, got.prompt_tokens) == ("w0 w1 w2 w3 ", 4, 6)
    assert before <= got.sent < got.pieces[0] <= got.finished <= got.ended <= clock()  # type: ignore[operator]
    assert got.pieces[0] - got.sent >= 0.1
    assert got.pieces[3] - got.sent >= 0.25
    assert len(got.pieces) == 4


def test_messages_go_to_the_chat_endpoint(known: Server) -> None:
    got = ask(known, json.dumps({"tokens": 3}), chat=True)
    assert (got.outcome, got.text, got.output_tokens) == ("ok", "w0 w1 w2 ", 3)


@pytest.mark.parametrize(
    ("fault", "outcome", "pieces", "says"),
    [
        ("429", "overloaded", 0, "status 429: on purpose"),
        ("500", "error", 0, "status 500: on purpose"),
        ("404", "refused", 0, "status 404"),
        ("no stream", "malformed", 0, "application/json"),
        ("die", "broken", 2, "closed"),
        ("hang", "timeout", 2, "no end after 0.4 s, 2 pieces"),
        ("garbage", "malformed", 2, "<html>oops"),
        ("bad json", "malformed", 2, "cannot be read"),
        ("error", "error", 2, "out of blocks"),
        ("no finish", "unfinished", 4, "without a finish reason"),
        ("no done", "unfinished", 4, "DONE"),
        ("other model", "other_model", 0, "answered as 'another'"),
        ("comments", "ok", 4, None),
    ],
)
def test_each_fault_has_its_outcome(known: Server, fault: str, outcome: str, pieces: int, says: str | None) -> None:
    for chat in (False, True):
        limit_s = 0.4 if fault == "hang" else 20.0
        got = ask(known, json.dumps({"fault": fault, "tokens": 4}), chat, limit_s)
        assert (got.outcome, len(got.pieces)) == (outcome, pieces)
        assert (says is None) == (got.error is None)
        assert says is None or says in str(got.error)
        assert "\n" not in str(got.error)
        assert got.ended >= got.sent


def test_tokens_that_nobody_counted_are_unknown(known: Server) -> None:
    got = ask(known, json.dumps({"fault": "no usage", "tokens": 4}))
    assert (got.outcome, got.output_tokens, got.prompt_tokens) == ("ok", None, None)


def test_nobody_there_is_a_broken_connection() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    got = ask(Server(url, url, "m"), "x")
    assert (got.outcome, got.pieces) == ("broken", ())
    with pytest.raises(InputError, match="no server answers"):
        find_server(url)


def test_a_model_after_the_hash_must_be_there(known: Server) -> None:
    assert find_server(f"{known.url}/v1#known").model == "known"
    with pytest.raises(InputError, match="has no model 'other'"):
        find_server(f"{known.url}#other")


def test_a_stream_may_come_in_any_portions() -> None:
    text = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    text += b"".join(b"%x;note\r\n%s\r\n" % (len(d), d) for d in (WHOLE[:7], WHOLE[7:])) + b"0\r\nTrailer: x\r\n\r\n"
    for cut in range(1, len(text), 7):
        got = answer_of(text[:cut], text[cut:])
        assert (got.outcome, got.text, got.finish) == ("ok", "a", "stop")
    crlf = WHOLE.replace(b"\n", b"\r\n")
    for framing in (b"Content-Length: %d\r\n" % len(crlf), b""):
        assert answer_of(HEAD + framing + b"\r\n" + crlf).outcome == "ok"
    assert answer_of(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"\r\n" + WHOLE).outcome == "ok"
    lines = b'event: message\nid: 3\nretry: 10\n\ndata: {"model": "m",\ndata:  "choices": []}\n\n'
    assert answer_of(HEAD + b"\r\n" + lines + WHOLE).outcome == "ok"


@pytest.mark.parametrize(
    ("portions", "outcome"),
    [
        ((b"",), "broken"),
        ((b"HTTP/1.1 200",), "broken"),
        ((b"SSH-2.0-x\r\n",), "malformed"),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",), "malformed"),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",), "malformed"),
        ((HEAD + b"Content-Length: many\r\n\r\n",), "malformed"),
        ((HEAD + b"Content-Length: 900\r\n\r\n" + event(CHUNK),), "broken"),
        ((HEAD + b"X: " + b"y" * 80_000 + b"\r\n\r\n",), "malformed"),
        ((HEAD + b"\r\n" + event(CHUNK) + event([1, 2]),), "malformed"),
        ((HEAD + b"\r\n" + event({"choices": [None]}),), "malformed"),
        ((HEAD + b"\r\n" + event(CHUNK | {"error": {"message": "no\nroom"}}),), "error"),
        ((HEAD + b'\r\nerror: {"code": 500}\n\n',), "error"),
        ((HEAD + b"\r\n" + event({"choices": [{"text": "", "finish_reason": "abort"}]}) + event("[DONE]"),), "error"),
        ((HEAD + b"\r\ndata: [DONE]\n\n",), "unfinished"),
        ((HEAD + b"\r\n",), "unfinished"),
    ],
)
def test_what_is_no_answer_is_never_ok(portions: tuple[bytes, ...], outcome: str) -> None:
    got = answer_of(*portions)
    assert got.outcome == outcome, got.error
    assert got.error
    assert "\n" not in got.error


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(chunks=st.lists(JSON, max_size=3))
def test_no_event_is_too_strange(chunks: list[Any]) -> None:
    got = answer_of(HEAD + b"\r\n", *(event(c) for c in chunks), event(CHUNK), event(LAST), event("[DONE]"))
    assert got.outcome in OUTCOMES
    assert (got.outcome == "ok") == (got.error is None)
    json.dumps([got.text, got.prompt_tokens, got.output_tokens, got.server_seconds], allow_nan=False)


def test_neither_depth_nor_size_brings_it_down() -> None:
    assert answer_of(HEAD + b"\r\n", b"data: " + b"[" * 100_000 + b"\n\n").outcome == "malformed"
    huge = {"usage": {"prompt_tokens": 10**400, "completion_tokens": 1e400}, "timings": {"prompt_ms": float("inf")}}
    got = answer_of(HEAD + b"\r\n", event(huge), WHOLE)
    assert (got.prompt_tokens, got.output_tokens, got.server_seconds) == (None, None, None)
    assert answer_of(b"HTTP/1.1 500 X\r\n\r\n", b"no " * 1_000_000).outcome == "error"


def test_what_comes_after_done_does_no_harm() -> None:
    got = answer_of(HEAD + b"Content-Length: 9999\r\n\r\n" + WHOLE + event({"error": "late"}))
    assert (got.outcome, got.text) == ("ok", "a")


@pytest.mark.parametrize(
    ("told", "same"),
    [
        *((told, True) for told in ("m", "m:latest", "m-2024-08-06", "m-20240806", "m-0613", "m-1231")),
        *((told, False) for told in ("m-mini", "n", "m-2507", "m-0132", "m-0012", "m-1301")),
    ],
)
def test_a_dated_snapshot_is_the_same_model(told: str, same: bool) -> None:
    chunks = [event(chunk | {"model": told}) for chunk in (CHUNK, LAST)]
    assert answer_of(HEAD + b"\r\n", *chunks, event("[DONE]")).outcome == ("ok" if same else "other_model")


def test_reasoning_tool_calls_and_a_llama_servers_timings_are_read() -> None:
    call: dict[str, Any] = {"tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]}
    deltas = [{"role": "assistant", "content": None}, {"reasoning_content": "hm"}, {"content": "b"}, call]
    chunks = [event({"choices": [{"delta": d, "finish_reason": None}]}) for d in deltas]
    end = {
        "choices": [{"delta": {}, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
        "timings": {"prompt_n": 5, "prompt_ms": 20, "predicted_n": 5, "predicted_ms": 50.0},
    }
    got = answer_of(HEAD + b"\r\n", *chunks, event(end), event("[DONE]"))
    assert (got.outcome, got.text, len(got.pieces), got.finish) == ("ok", 'hmb{"x": 1}', 3, "tool_calls")
    assert (got.cached_tokens, got.server_seconds, got.server_tokens) == (4, (0.02, 0.05), (5, 5))


def test_the_key_is_sent_and_the_path_of_the_address_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTWISE_API_KEY", "secret")
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(HEAD + b"\r\n" + WHOLE)
        writer.close()

    async def go() -> Streamed:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            root = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/prefix"
            return await stream(streaming_client(Server(root, root, "m")), stream_request(Ask(text="x"), "m", {}), 10.0)

    assert asyncio.run(go()).outcome == "ok"
    assert heads[0].startswith(b"POST /prefix/v1/completions HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret\r\n" in heads[0]
