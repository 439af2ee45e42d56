"""A server with known delays, in real and in virtual time, and ways to put load on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from virtual_clock import KnownHttp, VirtualLoop, run_in

from known_server import known_server
from quantwise.core.runtime import Ask
from quantwise.load import generator
from quantwise.load.generator import Block
from quantwise.runtimes import streaming
from quantwise.runtimes.lean_http import LeanHttp
from quantwise.runtimes.streaming import Server, StreamRequest, find_server, stream_request, streaming_client

VIRTUAL = Server("http://virtual", "http://virtual", "known")


@pytest.fixture(scope="session")
def known() -> Iterator[Server]:
    with known_server() as url:
        yield find_server(url)


def wishes(server: Server, wanted: Sequence[dict[str, Any]]) -> list[StreamRequest]:
    """Requests that say themselves what is to be done with them."""
    return [stream_request(Ask(text=json.dumps(wish)), server.model, {}) for wish in wanted]


@pytest.fixture
def put_on(known: Server) -> Callable[..., Block]:
    """``put_on(loop, wishes, ...)``: the block of a loop of the generator on the known server."""

    def run(loop: Callable[..., Coroutine[Any, Any, Block]], wanted: Sequence[dict[str, Any]], *rest: Any) -> Block:
        async def go() -> Block:
            http: LeanHttp = streaming_client(known)
            return await loop(http, wishes(known, wanted), *rest)

        return asyncio.run(go())

    return run


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Block]:
    """``simulate(loop, wishes, ...)``: the same in virtual time. ``late`` is (when, how long) the machine stops."""

    def run(
        loop: Callable[..., Coroutine[Any, Any, Block]],
        wanted: Sequence[dict[str, Any]],
        *rest: Any,
        late: tuple[float, float] | None = None,
    ) -> Block:
        virtual = VirtualLoop()
        monkeypatch.setattr(generator, "clock", virtual.time)
        monkeypatch.setattr(streaming, "clock", virtual.time)

        async def go() -> Block:
            if late is not None:
                virtual.call_later(late[0], virtual.jump, late[1])
            return await loop(KnownHttp(), wishes(VIRTUAL, wanted), *rest)

        found: Block = run_in(virtual, go())
        return found

    return run
