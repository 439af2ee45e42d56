"""How far a load has come, told while it lasts.

Twice a second, whether answers come or not, and from a thread of its own: neither a terminal that is being drawn nor a
pipe that nobody reads may hold up the loop that takes the times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quantwise.core.progress import Progress
from quantwise.load.generator import Answer
from quantwise.runtimes.streaming import clock

_EVERY_S = 0.5


class Watched:
    """Requests of all blocks that ended, and those of them that failed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._ended = self._told = self._failed = 0

    def heard(self, answer: Answer) -> None:
        """One request has ended."""
        self._ended += 1
        self._failed += not answer.ok

    @asynccontextmanager
    async def during(self, block: str, at_most_s: float | None) -> AsyncIterator[None]:
        """Tell of a block, named ``block``, while the body runs; ``at_most_s`` from now on all load is over."""
        over = asyncio.Event()
        until = None if at_most_s is None else clock() + at_most_s
        teller = asyncio.create_task(self._tell(block, until, over))
        try:
            yield
        finally:
            over.set()
            await teller

    async def _tell(self, block: str, until: float | None, over: asyncio.Event) -> None:
        last = False
        while not last:
            last = over.is_set()
            fresh, self._told = self._ended - self._told, self._ended
            note = ", ".join(part for part in (f"{self._failed} failed", block) if part)
            left = None if until is None else max(until - clock(), 0.0)
            await asyncio.to_thread(self._progress.advance, fresh, note, left)
            if not last:
                await _first_of(over, _EVERY_S)


async def _first_of(over: asyncio.Event, seconds: float) -> None:
    """Wait for the event, or so long."""
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        return
