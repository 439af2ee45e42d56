"""The two loops that put load on a server.

Open loop: requests arrive at times drawn beforehand, and latency counts from that time, so a server that stalls is
charged for everybody who would have come meanwhile (no coordinated omission). Closed loop: N users, each asks again
when its answer is there; it shows capacity, and hides queueing by construction.

One thread runs all; what it is late is measured: for every request, and by a heartbeat that says how late times of
arriving text may have been read.

Source: G. Tene, "How NOT to Measure Latency" (2013), for coordinated omission.
"""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import pairwise

from quantwise.runtimes.lean_http import LeanHttp
from quantwise.runtimes.streaming import Streamed, StreamRequest, clock, stream
from quantwise.stats.differences import FloatArray

MOST_IN_FLIGHT = 1000
_BEAT_S = 0.01
_ROUNDING_S = 0.001
_LEAD_S = 0.02
_SPARE_FILES = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and when it was due, in seconds of the clock that ``streamed`` uses."""

    due: float
    streamed: Streamed

    @property
    def ok(self) -> bool:
        """Whether the whole answer came."""
        return self.streamed.outcome == "ok"

    @property
    def lag(self) -> float | None:
        """Seconds by which it was sent too late, or None if it was not sent."""
        return None if self.streamed.outcome == "not_sent" else max(self.streamed.sent - self.due, 0.0)

    @property
    def ttft(self) -> float | None:
        """Seconds from its due time to its first text; None where no text came."""
        return self.streamed.pieces[0] - self.due if self.streamed.pieces else None

    @property
    def e2e(self) -> float | None:
        """Seconds from its due time to its finish reason; None where that did not come."""
        return None if self.streamed.finished is None else self.streamed.finished - self.due

    @property
    def tpot(self) -> float | None:
        """Seconds per output token after the first, as vLLM has it; None for fewer than two or unknown tokens."""
        tokens = self.streamed.output_tokens
        if not tokens or tokens < 2 or self.e2e is None or self.ttft is None:
            return None
        return (self.e2e - self.ttft) / (tokens - 1)

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces of text that followed each other."""
        pieces = self.streamed.pieces
        return [after - before for before, after in pairwise(pieces)]


Heard = Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class Block:
    """Requests that one server was given in one go. ``beats`` are seconds by which the heartbeat was late."""

    answers: tuple[Answer, ...]
    seconds: float
    beats: tuple[float, ...]

    @property
    def most_in_flight(self) -> int:
        """Largest number of requests under way at one time."""
        sent = [a.streamed for a in self.answers if a.streamed.outcome != "not_sent"]
        steps = sorted([(s.sent, 1) for s in sent] + [(s.ended, -1) for s in sent])
        most = now = 0
        for _, step in steps:
            now += step
            most = max(most, now)
        return most


def room_in_flight() -> int:
    """Requests that may be under way at once: MOST_IN_FLIGHT, or fewer where the system allows fewer open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MOST_IN_FLIGHT if soft == resource.RLIM_INFINITY else soft - _SPARE_FILES
    return max(1, min(MOST_IN_FLIGHT, files))


def _unheard(answer: Answer) -> None:
    """Nobody watches."""


async def open_loop(
    http: LeanHttp, requests: Sequence[StreamRequest], offsets: FloatArray, limit_s: float, heard: Heard = _unheard
) -> Block:
    """Send request i at ``offsets[i]`` seconds, whatever the server does; wait for all, each ``limit_s`` at most.

    A request that finds no room (`room_in_flight`) is recorded as not sent; it is never sent late for that. ``heard``
    is given each answer at once, and must not take time.
    """
    room, tasks, skipped = room_in_flight(), list[asyncio.Task[Answer]](), list[Answer]()
    under_way: set[asyncio.Task[Answer]] = set()
    async with _heartbeat() as beats:
        start = clock() + _LEAD_S
        for request, offset in zip(requests, offsets, strict=False):
            due = start + float(offset)
            await _until(due)
            if len(under_way) >= room:
                skipped.append(Answer(due, Streamed("not_sent", due, due, f"{room} requests were under way already")))
                heard(skipped[-1])
                continue
            task = asyncio.create_task(_one(http, request, due, limit_s, heard))
            tasks.append(task)
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        answers = await asyncio.gather(*tasks)
    return _block([*answers, *skipped], start, beats)


async def closed_loop(
    http: LeanHttp,
    requests: Sequence[StreamRequest],
    users: int,
    seconds: float,
    limit_s: float,
    heard: Heard = _unheard,
) -> Block:
    """``users`` ask one request after the other until all are asked or ``seconds`` are over; what runs is awaited.
    ``heard`` is as in `open_loop`."""
    waiting = iter(requests)
    answers: list[Answer] = []

    async def user(until: float) -> None:
        while (due := clock()) < until and (request := next(waiting, None)) is not None:
            answers.append(await _one(http, request, due, limit_s, heard))

    async with _heartbeat() as beats:
        start = clock()
        await asyncio.gather(*(user(start + seconds) for _ in range(min(users, len(requests)))))
    return _block(answers, start, beats)


async def _until(due: float) -> None:
    """Sleep, and turn in the loop for the last bit: timers are rounded up to whole milliseconds."""
    if (early := due - clock() - _ROUNDING_S) > 0:
        await asyncio.sleep(early)
    while clock() < due:
        await asyncio.sleep(0)


async def _one(http: LeanHttp, request: StreamRequest, due: float, limit_s: float, heard: Heard) -> Answer:
    answer = Answer(due, await stream(http, request, limit_s))
    heard(answer)
    return answer


def _block(answers: Sequence[Answer], start: float, beats: Sequence[float]) -> Block:
    end = max((a.streamed.ended for a in answers), default=start)
    return Block(tuple(sorted(answers, key=lambda a: a.due)), end - start, tuple(beats))


@asynccontextmanager
async def _heartbeat() -> AsyncIterator[list[float]]:
    """Seconds by which a task that sleeps was woken too late, while the body runs."""
    late: list[float] = []

    async def beat() -> None:
        while True:
            due = clock() + _BEAT_S + _ROUNDING_S
            await asyncio.sleep(_BEAT_S)
            late.append(max(clock() - due, 0.0))

    with _no_collection():
        task = asyncio.create_task(beat())
        try:
            yield late
        finally:
            task.cancel()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's collector would stop all requests at once, for as long as it takes."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
