"""A server of requests, one token at a time, every block by its number: the slow obvious version of the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quantwise.plan.request_trace import TracedRequest
from quantwise.plan.server_pace import ServerPace
from quantwise.plan.serving_queue import Outcome, Pool


@dataclass
class Served:
    request: TracedRequest
    number: int
    enqueued: int
    generated: int = 0
    cached: int = 0
    blocks: list[int] = field(default_factory=list)
    waited: int = 0
    end: int = 0


@dataclass
class Prefix:
    blocks: list[int]
    users: set[int] = field(default_factory=set)
    left: int = 0


def serve(requests: Sequence[TracedRequest], pool: Pool, pace: ServerPace) -> Outcome:  # noqa: C901 (one story, told as it goes)
    everyone = [Served(r, i, r.arrival) for i, r in enumerate(requests)]
    coming, queue, running = list(everyone), [], []
    free = list(range(pool.blocks))
    prefixes: dict[int, Prefix] = {}
    longest: dict[int, int] = {}
    for r in requests:
        if pool.shares:
            longest[r.group] = max(longest.get(r.group, 0), r.prefix // pool.block)
    now = used_time = given_time = preemptions = prefilled = releases = 0

    def shared(who: Served) -> int:
        whole = longest.get(who.request.group, 0)
        return whole if who.request.prefix // pool.block >= whole else 0

    def idle() -> list[int]:
        return sorted((g for g, p in prefixes.items() if not p.users), key=lambda g: prefixes[g].left)

    def take() -> int:
        if not free:
            free.extend(prefixes.pop(idle()[0]).blocks)
        return free.pop()

    def available() -> int:
        return len(free) + sum(len(prefixes[g].blocks) for g in idle())

    def check() -> None:
        held = [b for who in running for b in who.blocks] + [b for p in prefixes.values() for b in p.blocks]
        assert sorted(held + free) == list(range(pool.blocks)), "a block is lost, or has two owners"

    def pass_time(time: int) -> None:
        nonlocal now, used_time, given_time
        given = sum(len(who.blocks) for who in running) + sum(len(p.blocks) for p in prefixes.values() if p.users)
        tokens = sum(who.cached - shared(who) * pool.block for who in running)
        tokens += sum(len(p.blocks) for p in prefixes.values() if p.users) * pool.block
        used_time, given_time, now = used_time + time * tokens, given_time + time * given, now + time

    def leave(who: Served) -> None:
        nonlocal releases
        releases += 1
        free.extend(who.blocks)
        who.blocks = []
        if shared(who):
            prefixes[who.request.group].users.discard(who.number)
            prefixes[who.request.group].left = releases
        running.remove(who)

    while coming or queue or running:
        while True:
            while coming and coming[0].request.arrival <= now:
                queue.append(coming.pop(0))
            if not queue or (pool.slots is not None and len(running) >= pool.slots):
                break
            who = queue[0]
            length, group = who.request.prompt + who.generated, who.request.group
            there = shared(who) if group in prefixes else 0
            room = available() - (len(prefixes[group].blocks) if there and not prefixes[group].users else 0)
            need = -(-length // pool.block) - there
            if room - need < (pool.watermark * pool.blocks if running else 0):
                break
            queue.pop(0)
            who.waited += now - who.enqueued
            if shared(who):
                if group not in prefixes:
                    prefixes[group] = Prefix([], {who.number})
                    while len(prefixes[group].blocks) < shared(who):
                        prefixes[group].blocks.append(take())
                prefixes[group].users.add(who.number)
            while len(who.blocks) + shared(who) < -(-length // pool.block):
                who.blocks.append(take())
            who.cached = length
            running.append(who)
            computed = max(1, length - there * pool.block)
            prefilled += computed
            check()
            pass_time(pace.prefill(computed))
        if not running:
            now = max(now, coming[0].request.arrival)
            continue
        while sum(who.cached % pool.block == 0 for who in running) > available():
            last = running[-1]
            leave(last)
            preemptions += 1
            last.enqueued = now
            queue.insert(0, last)
        for who in running:
            if who.cached % pool.block == 0:
                who.blocks.append(take())
            who.cached += 1
            who.generated += 1
        check()
        pass_time(pace.step(len(running)))
        for who in [w for w in running if w.generated == w.request.output]:
            leave(who)
            who.end = now
    size = pool.blocks * pool.block
    return Outcome(
        waits=tuple(who.waited for who in everyone),
        durations=tuple(who.end - who.request.arrival for who in everyone),
        preemptions=preemptions,
        prefill_tokens=prefilled,
        utilization=used_time / (size * now) if now else 0.0,
        waste=1 - used_time / (given_time * pool.block) if given_time else 0.0,
        end=now,
    )
