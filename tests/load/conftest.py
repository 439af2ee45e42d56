"""A server with known delays, and a way to put load on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from known_server import known_server
from quantwise.core.runtime import Ask
from quantwise.load.generator import Block
from quantwise.runtimes.lean_http import LeanHttp
from quantwise.runtimes.streaming import Server, StreamRequest, find_server, stream_request, streaming_client


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
