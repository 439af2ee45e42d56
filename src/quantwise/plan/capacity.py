"""How many requests at a time: what the memory holds in theory, and what to promise.

In theory it is the room left by weights and scratch over the cache of one request at full context. But requests come at
random: where 12 are held and 12 are there on average, there is often a thirteenth, which waits. The promise is the
largest average number at a time (Little's law: arrivals per second times duration) at which a newcomer waits, in 95 of
100 cases, no longer than a stated share of a request's duration, and at which few are preempted, over several seeds of
a simulation (``serving_queue``) in which every request fills its context.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from quantwise.core.errors import InputError
from quantwise.plan.request_trace import SECOND, Lengths, TracedRequest, poisson_trace
from quantwise.plan.server_pace import ServerPace
from quantwise.plan.serving_queue import Pool, simulate

Layout = Literal["contiguous", "paged", "paged + shared prefixes"]
LAYOUTS: tuple[Layout, ...] = ("contiguous", "paged", "paged + shared prefixes")
# Tokens of a block (vLLM's default).
BLOCK = 16
_SEEDS = (1, 2, 3)
_REQUESTS = 500
# The first fifth of a trace finds an emptier server than the rest.
_WARM = 5
# Above this many the room to spare grows with the square root of their number (Halfin and Whitt, Operations Research
# 29, 1981, keep the chance of waiting at that; the waits themselves then fall), so that no longer traces are needed.
_SIMULATED = 16
# Where nobody knows the speed: waits are told as shares of a duration, and those do not depend on it.
_ANY_PACE = ServerPace(step_s=0.02)


@dataclass(frozen=True, slots=True)
class Levels:
    """What a promise keeps: the 95th percentile of waits, as a share of a request's mean duration without waiting, and
    preemptions for each request.
    """

    wait: float = 0.5
    preemptions: float = 0.05


@dataclass(frozen=True, slots=True)
class Served:
    """What a server did at one load and layout, over all seeds. ``wait_share`` is the 95th percentile of waits over a
    request's duration without waiting; seconds are None where the speed is unknown.
    """

    layout: Layout
    concurrency: float
    wait_share: float
    wait_p50_s: float | None
    wait_p95_s: float | None
    preemptions: float
    utilization: float
    waste: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """Requests at a time. ``at_promise`` is what the simulation found at the promised number, ``above`` at one more;
    beyond 16 in theory they are what it found where 16 have room. ``at_promise`` is None where no random arrivals keep
    the levels: the 1 that is promised then is for somebody who waits for each answer before asking again.
    """

    theoretical: int
    promised: int
    levels: Levels
    at_promise: Served | None
    above: Served | None


def theoretical_requests(limit_bytes: int, weights_bytes: int, scratch_bytes: int, request_bytes: int) -> int:
    """Requests whose cache has room beside weights and scratch. Raises InputError where a request takes no bytes."""
    if request_bytes < 1:
        raise InputError("a request must take at least one byte of cache; without a cache any number has room")
    return max(0, (limit_bytes - weights_bytes - scratch_bytes) // request_bytes)


def promise(
    theoretical: int,
    context: int,
    pace: ServerPace | None = None,
    output: int | None = None,
    layout: Layout = "contiguous",
    levels: Levels | None = None,
) -> Capacity:
    """How many requests of ``context`` tokens each to promise where memory holds ``theoretical`` of them.

    ``output`` is the mean length of an answer (None: a quarter of the context). Deterministic. Raises InputError for a
    context below 2 tokens.
    """
    levels = levels or Levels()
    if context < 2:
        raise InputError(f"a context must have at least 2 tokens, not {context}")
    if theoretical < 1:
        return Capacity(0, 0, levels, None, None)
    output = min(output or max(1, context // 4), context - 1)
    lengths = Lengths(context - output, output, context, fills=True)
    held = min(theoretical, _SIMULATED)
    tried: dict[int, Served] = {}

    def kept(number: int) -> bool:
        tried[number] = found = serve_at(number, held * context, lengths, pace, layout)
        return found.wait_share <= levels.wait and found.preemptions <= levels.preemptions

    least, most = 0, held + 1
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if kept(middle) else (least, middle)
    spare = math.ceil((held - least) * math.sqrt(theoretical / held))
    promised = max(1, theoretical - spare)
    return Capacity(theoretical, promised, levels, tried.get(least), tried.get(least + 1))


def serve_at(
    concurrency: float, pool_tokens: int, lengths: Lengths, pace: ServerPace | None, layout: Layout = "contiguous"
) -> Served:
    """Serve Poisson arrivals of which ``concurrency`` are there on average, out of a cache of ``pool_tokens``."""
    speed = pace or _ANY_PACE
    prompt = lengths.longest - lengths.output if lengths.fills else lengths.prompt
    duration = speed.duration(prompt, lengths.output, max(1, round(concurrency)))
    traces = [poisson_trace(lengths, concurrency / duration, _REQUESTS, seed) for seed in _SEEDS]
    return _served(traces, pool_of(layout, pool_tokens, lengths.longest), speed, layout, concurrency, pace is not None)


def compare_layouts(
    requests: Sequence[TracedRequest], pool_tokens: int, longest: int, pace: ServerPace, slots: int | None = None
) -> tuple[Served, ...]:
    """The same trace out of the same memory: reserved contiguously, in blocks, in blocks with common prefixes shared.

    ``longest`` is what a contiguous reservation holds. Raises InputError where a request is longer, or has no room.
    """
    if any(request.tokens > longest for request in requests):
        raise InputError(f"a request has more than {longest} tokens, what is reserved for each; give a longer context")
    span = max(1, requests[-1].arrival - requests[0].arrival) / SECOND
    mean = sum(pace.duration(r.prompt, r.output, 1) for r in requests) / span
    return tuple(
        _served([requests], replace(pool_of(layout, pool_tokens, longest), slots=slots), pace, layout, mean, True)
        for layout in LAYOUTS
    )


def pool_of(layout: Layout, tokens: int, longest: int) -> Pool:
    """The pool that ``tokens`` of cache make in a layout; a contiguous one has a block of ``longest`` a request."""
    if layout == "contiguous":
        return Pool(tokens // longest, longest, watermark=0.0)
    return Pool(tokens // BLOCK, BLOCK, shares=layout != "paged")


def nearest_rank(sorted_values: Sequence[int], share: float) -> int:
    """The smallest value that at least ``share`` of all do not exceed (nearest rank)."""
    return sorted_values[max(0, math.ceil(share * len(sorted_values)) - 1)]


def _served(
    traces: Sequence[Sequence[TracedRequest]],
    pool: Pool,
    pace: ServerPace,
    layout: Layout,
    concurrency: float,
    known: bool,
) -> Served:
    outcomes = [simulate(trace, pool, pace) for trace in traces]
    waits: list[int] = sorted(w for o in outcomes for w in o.waits[len(o.waits) // _WARM :])
    alone = [(duration - wait) / SECOND for o in outcomes for duration, wait in zip(o.durations, o.waits, strict=True)]
    p50, p95 = nearest_rank(waits, 0.5) / SECOND, nearest_rank(waits, 0.95) / SECOND
    count = sum(map(len, traces))
    return Served(
        layout,
        concurrency,
        wait_share=p95 * len(alone) / sum(alone),
        wait_p50_s=p50 if known else None,
        wait_p95_s=p95 if known else None,
        preemptions=sum(o.preemptions for o in outcomes) / count,
        utilization=sum(o.utilization for o in outcomes) / len(outcomes),
        waste=sum(o.waste for o in outcomes) / len(outcomes),
    )
