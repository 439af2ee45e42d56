"""An event loop whose clock moves only when nobody has anything to do, and a server with known delays inside it.

What the generator does with time is then seen to the microsecond, on a machine as busy as it likes.
"""

from __future__ import annotations

import asyncio
import json
import math
import selectors
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from quantwise.runtimes.lean_http import Response

TURN_S = 20e-6
"""What one turn of the loop takes."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Timers are due in whole milliseconds, rounded up, as epoll has them."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Clockwork(self))

    def time(self) -> float:
        return self.now

    def jump(self, seconds: float) -> None:
        """As if a callback had computed for so long."""
        self.now += seconds


class _Clockwork(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for somebody else"
        self._loop.now += max(math.ceil(timeout * 1000) / 1000, TURN_S)
        return super().select(0)  # type: ignore[no-any-return]


class KnownHttp:
    """In place of the client: answers each prompt's wish (``ttft``, ``tpot``, ``tokens``, ``stall``), in seconds.

    While it stalls nobody is served, and what came meanwhile is begun afterwards.
    """

    def __init__(self) -> None:
        self._free_at = 0.0

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[Response]:
        loop = asyncio.get_running_loop()
        wish = {"ttft": 0.0, "tpot": 0.0, "tokens": 1, "stall": 0.0} | json.loads(json.loads(body)["prompt"])
        begin = max(loop.time(), self._free_at)
        if wish["stall"]:
            begin = self._free_at = begin + wish["stall"]
        reader = asyncio.StreamReader()
        answering = asyncio.create_task(_answer(reader, wish, begin))
        try:
            yield Response(200, {"content-type": "text/event-stream"}, reader)
        finally:
            answering.cancel()


async def _answer(reader: asyncio.StreamReader, wish: Mapping[str, Any], begin: float) -> None:
    for i in range(wish["tokens"]):
        await _until(begin + wish["ttft"] + i * wish["tpot"])
        last = "length" if i == wish["tokens"] - 1 else None
        reader.feed_data(_event({"choices": [{"text": f"w{i} ", "finish_reason": last}]}))
    reader.feed_data(_event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": wish["tokens"]}}))
    reader.feed_data(b"data: [DONE]\n\n")
    reader.feed_eof()


async def _until(due: float) -> None:
    loop = asyncio.get_running_loop()
    if (early := due - loop.time()) > 0:
        await asyncio.sleep(early)


def _event(chunk: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


def run_in(loop: VirtualLoop, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of ``work``; the loop is closed."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(work)
