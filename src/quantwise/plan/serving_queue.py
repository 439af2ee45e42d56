"""A seeded discrete-event simulation of a server that answers requests out of one pool of cache memory.

Decoding goes in steps: each gives every running request one token (iteration-level scheduling, Yu et al., Orca, OSDI
2022). Requests are admitted in order of arrival when their prompt has room; prompts are computed between steps. Memory
is given in blocks (Kwon et al., PagedAttention, arXiv 2309.06180): a request takes one more block when its last is
full, and where none is left the request admitted last is put back to the head of the queue and computes all its tokens
again. A contiguous reservation is the same with one block for each request, as long as the longest request may get.

A prefix that several requests share is kept once, in whole blocks; when nobody uses it, it stays until its blocks are
needed. Between two events nothing changes but the count of tokens, so the clock jumps; time is in whole nanoseconds,
and a test steps through the same trace one token at a time and must find the same.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from quantwise.core.errors import InputError
from quantwise.plan.request_trace import TracedRequest
from quantwise.plan.server_pace import ServerPace

# Share of the blocks that an admission must leave free, so that running requests can grow (vLLM's watermark).
WATERMARK = 0.01


@dataclass(frozen=True, slots=True)
class Pool:
    """``blocks`` of ``block`` tokens each; at most ``slots`` requests at a time (None: as many as have room).

    ``shares`` keeps common prefixes once; ``watermark`` is the share of blocks that an admission leaves free.
    """

    blocks: int
    block: int = 16
    slots: int | None = None
    shares: bool = False
    watermark: float = WATERMARK


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trace took. ``waits`` are the nanoseconds each request was queued, in order of arrival, time after a
    preemption included; ``durations`` from arrival to the last token. ``utilization`` is the share of the pool that
    held tokens, over the whole time; ``waste`` the share of what was given to requests that held none.
    """

    waits: tuple[int, ...]
    durations: tuple[int, ...]
    preemptions: int
    prefill_tokens: int
    utilization: float
    waste: float
    end: int


@dataclass(slots=True)
class _Running:
    """``length`` tokens are cached when it is admitted, before decoding step ``since``; it ends with step ``until``."""

    number: int
    length: int
    since: int
    until: int
    shared: int
    admission: int


def simulate(requests: Sequence[TracedRequest], pool: Pool, pace: ServerPace) -> Outcome:
    """Serve ``requests`` (sorted by arrival) to the last. Raises InputError where one can never have room."""
    for number, request in enumerate(requests):
        if -(-request.tokens // pool.block) > pool.blocks:
            raise InputError(
                f"request {number} of {request.tokens} tokens does not fit a cache of {pool.blocks * pool.block}; "
                "shorten it or give the cache more memory"
            )
    server = _Server(requests, pool, pace)
    while server.left:
        server.admit()
        if server.running:
            server.decode()
        else:
            server.sleep()
    return server.outcome()


class _Server:
    """State of the simulation; ``steps`` counts decoding steps since the start."""

    def __init__(self, requests: Sequence[TracedRequest], pool: Pool, pace: ServerPace) -> None:
        self.requests, self.pool, self.pace = requests, pool, pace
        self.left, self.arrived, self.now, self.steps = len(requests), 0, 0, 0
        self.queue: deque[int] = deque()
        self.queued = [request.arrival for request in requests]
        self.waits, self.ends = [0] * len(requests), [0] * len(requests)
        self.done = [0] * len(requests)
        self.running: dict[int, _Running] = {}
        self.finishing: list[tuple[int, int, int]] = []
        # How many running requests need a block in the steps that leave this remainder.
        self.phases: dict[int, int] = {}
        self.free, self.idle = pool.blocks, 0
        self.common = _common(requests, pool)
        self.grows = any(-(-r.prompt // pool.block) < -(-r.tokens // pool.block) for r in requests)
        self.users: dict[int, int] = {}
        self.prefixes: dict[int, int] = {}
        self.used = self.preemptions = self.prefilled = self.admissions = 0
        self.used_time = self.given_time = 0

    def admit(self) -> None:
        """Let requests in, in order, while the next has room; each computes its prompt."""
        self._arrive()
        while self.queue:
            number = self.queue[0]
            request = self.requests[number]
            length = request.prompt + self.done[number]
            shared = self._shared(request)
            known = shared if request.group in self.prefixes else 0
            own_idle = known if known and not self.users[request.group] else 0
            need = -(-length // self.pool.block) - known
            spare = self.free + self.idle - own_idle - need
            if spare < (self.pool.watermark * self.pool.blocks if self.running else 0):
                return
            if self.pool.slots is not None and len(self.running) >= self.pool.slots:
                return
            self.queue.popleft()
            self._start(number, length, shared, known, own_idle, need)
            self._arrive()

    def _start(self, number: int, length: int, shared: int, known: int, own_idle: int, need: int) -> None:
        request = self.requests[number]
        self.waits[number] += self.now - self.queued[number]
        self.idle -= own_idle
        if shared:
            self.users[request.group] = self.users.get(request.group, 0) + 1
            self.prefixes[request.group] = shared
        self._take(need)
        # A prefix is counted once, when it comes into use.
        alone = length - shared * self.pool.block
        self.used += alone + (shared * self.pool.block if not known or own_idle else 0)
        self.admissions += 1
        until = self.steps + request.output - self.done[number]
        self.running[number] = _Running(number, length, self.steps, until, shared, self.admissions)
        heapq.heappush(self.finishing, (until, self.admissions, number))
        phase = (self.steps - length) % self.pool.block
        self.phases[phase] = self.phases.get(phase, 0) + 1
        tokens = max(1, length - known * self.pool.block)
        self.prefilled += tokens
        self._spend(self.pace.prefill(tokens))

    def decode(self) -> None:
        """As many steps as pass before a request ends, one arrives that could be let in, or memory runs out."""
        before = self.preemptions
        while (steps := self._until_full()) == 0:
            self._preempt()
        # Who was put back may find room again after one step.
        steps = 1 if self.preemptions > before else min(steps, self._until_end())
        pace, count = self.pace.step(len(self.running)), len(self.running)
        if not self.queue and self.arrived < len(self.requests):
            away = self.requests[self.arrived].arrival - self.now
            steps = min(steps, max(1, -(-away // pace)))
        given = self.pool.blocks - self.free - self.idle
        crossings, over_time = self._crossings(steps)
        self.used_time += pace * (steps * self.used + count * steps * (steps + 1) // 2)
        self.given_time += pace * (steps * given + over_time)
        self._take(crossings)
        self.used += count * steps
        self.steps += steps
        self.now += steps * pace
        while self.finishing and self.finishing[0][0] <= self.steps:
            _, admission, number = heapq.heappop(self.finishing)
            if number in self.running and self.running[number].admission == admission:
                self._release(self.running.pop(number))
                self.ends[number], self.left = self.now, self.left - 1

    def sleep(self) -> None:
        """Nobody is there: go to the next arrival."""
        if self.left:
            self.now = max(self.now, self.requests[self.arrived].arrival)

    def outcome(self) -> Outcome:
        size, given = self.pool.blocks * self.pool.block, self.given_time * self.pool.block
        return Outcome(
            waits=tuple(self.waits),
            durations=tuple(end - r.arrival for end, r in zip(self.ends, self.requests, strict=True)),
            preemptions=self.preemptions,
            prefill_tokens=self.prefilled,
            utilization=self.used_time / (size * self.now) if self.now else 0.0,
            waste=1 - self.used_time / given if given else 0.0,
            end=self.now,
        )

    def _arrive(self) -> None:
        while self.arrived < len(self.requests) and self.requests[self.arrived].arrival <= self.now:
            self.queue.append(self.arrived)
            self.arrived += 1

    def _shared(self, request: TracedRequest) -> int:
        """Whole blocks of the prompt that are its group's; none where its own prefix is shorter."""
        common = self.common.get(request.group, 0)
        return common if request.prefix // self.pool.block >= common else 0

    def _spend(self, time: int) -> None:
        self.used_time += time * self.used
        self.given_time += time * (self.pool.blocks - self.free - self.idle)
        self.now += time

    def _until_end(self) -> int:
        while True:
            until, admission, number = self.finishing[0]
            if number in self.running and self.running[number].admission == admission:
                return until - self.steps
            heapq.heappop(self.finishing)

    def _until_full(self) -> int:
        """Steps that all running requests can take with the blocks that are free or idle."""
        if not self.grows:
            return self._until_end()
        rounds, rest = divmod(self.free + self.idle, len(self.running))
        block = self.pool.block
        for wait, count in sorted(((phase - self.steps) % block, n) for phase, n in self.phases.items()):
            rest -= count
            if rest < 0:
                return rounds * block + wait
        raise AssertionError("every running request needs one block in each round")

    def _crossings(self, steps: int) -> tuple[int, int]:
        """Blocks that the next steps need, and how many steps they will have been held in, summed."""
        block, total, held = self.pool.block, 0, 0
        if not self.grows:
            return 0, 0
        for phase, count in self.phases.items():
            left = steps - (phase - self.steps) % block
            if left > 0:
                rounds, rest = divmod(left - 1, block)
                total += count * (rounds + 1)
                held += count * (block * rounds * (rounds + 1) // 2 + (rest + 1) * (rounds + 1))
        return total, held

    def _take(self, blocks: int) -> None:
        """Take blocks, those of the longest idle prefixes when no others are free."""
        self.free -= blocks
        for group in [group for group, users in self.users.items() if not users]:
            if self.free >= 0:
                return
            size = self.prefixes.pop(group)
            del self.users[group]
            self.idle -= size
            self.free += size

    def _preempt(self) -> None:
        number, last = self.running.popitem()
        self.done[number] += self.steps - last.since
        self._release(last)
        self.preemptions += 1
        self.queue.appendleft(number)
        self.queued[number] = self.now

    def _release(self, gone: _Running) -> None:
        """Give back the blocks of a request that ended or was preempted; its prefix stays for the next."""
        block, length = self.pool.block, gone.length + self.steps - gone.since
        phase = (gone.since - gone.length) % block
        self.phases[phase] -= 1
        if not self.phases[phase]:
            del self.phases[phase]
        self.free += -(-length // block) - gone.shared
        self.used -= length - gone.shared * block
        if gone.shared:
            group = self.requests[gone.number].group
            users = self.users.pop(group) - 1
            self.users[group] = users  # Moved to the end: the idle are in the order in which they were left.
            if not users:
                self.idle += gone.shared
                self.used -= gone.shared * block


def _common(requests: Sequence[TracedRequest], pool: Pool) -> dict[int, int]:
    """Whole blocks of the longest prefix of each group, where prefixes are shared."""
    common: dict[int, int] = {}
    for request in requests if pool.shares else ():
        common[request.group] = max(common.get(request.group, 0), request.prefix // pool.block)
    return common
