"""One trace of requests out of the memory that a plan leaves for the cache, by the layouts that a server may give it.

Contiguous reservation, paged blocks, and paged blocks with shared prefixes (``capacity.compare_layouts``). A trace is a
file's, or drawn: as many requests on average as have room at full context, half of which a prompt fills on average and
a quarter an answer; a quarter of the mean prompt is the same in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantwise.core.errors import InputError
from quantwise.plan.capacity import compare_layouts
from quantwise.plan.deployment import Constants
from quantwise.plan.deployment_memory import held, weights_of
from quantwise.plan.deployment_plan import Plan, cache_room, request_bytes
from quantwise.plan.deployment_speed import deployment_speed
from quantwise.plan.request_trace import SECOND, Lengths, TracedRequest, poisson_trace, read_trace
from quantwise.plan.server_pace import ServerPace
from quantwise.plan.speed import Interval

DRAWN = "drawn"
"""What stands for a trace that is drawn, in place of a file."""
_SEED = 1
# Enough for the pool to fill several times over, and no more than a few seconds of simulation.
_FEWEST, _MOST, _FILLS = 300, 3000, 8


def layouts(found: Plan, trace: str, constants: Constants) -> dict[str, Any]:
    """What each layout does with the trace in the file ``trace``, or one that is ``drawn``.

    Raises InputError where the trace is bad, memory or speed are unknown, or a request has no room.
    """
    asked = found.asked
    room, each = cache_room(found, constants), request_bytes(found, constants)
    if room is None or each < 1:
        raise InputError("a trace needs a memory limit and a model that keeps a cache; give --site or --memory")
    pool = room * asked.context // each
    pace = _pace(found, max(2, room // each), constants)
    requests = _drawn(asked.context, room // each, pace) if trace == DRAWN else read_trace(Path(trace))
    span = (requests[-1].arrival - requests[0].arrival) / SECOND
    return {
        "trace": trace,
        "requests": len(requests),
        "seconds": span,
        "mean_prompt": sum(request.prompt for request in requests) / len(requests),
        "mean_output": sum(request.output for request in requests) / len(requests),
        "pool_tokens": pool,
        "step_seconds": pace.step_s,
        "request_seconds": pace.request_s,
        "prefill_seconds_per_token": pace.prefill_s,
        "rows": [
            {
                "layout": row.layout,
                "utilization": row.utilization,
                "waste": row.waste,
                "preemptions_per_request": row.preemptions,
                "wait_p50_s": row.wait_p50_s,
                "wait_p95_s": row.wait_p95_s,
            }
            for row in compare_layouts(requests, pool, asked.context, pace)
        ],
    }


def _drawn(context: int, requests: int, pace: ServerPace) -> Sequence[TracedRequest]:
    if requests < 1 or context < 8:
        raise InputError("no request of this context has room, so none is drawn; see the fixes of the plan")
    prompt, output = context // 2, context // 4
    lengths = Lengths(prompt, output, longest=context, prefix=prompt // 4)
    count = min(_MOST, max(_FEWEST, _FILLS * requests))
    return poisson_trace(lengths, requests / pace.duration(prompt, output, requests), count, _SEED)


def _pace(found: Plan, many: int, constants: Constants) -> ServerPace:
    """A step's seconds and what each further request adds, from the rooflines of one request and of ``many``."""
    one, full = (
        deployment_speed(asked, weights_of(asked), held(asked, weights_of(asked), constants))[0]
        for asked in (replace(found.asked, concurrency=count) for count in (1, many))
    )
    if one.decode_seconds is None or full.decode_seconds is None or one.prefill is None:
        raise InputError("a trace needs the speed of steps and prompts, which this site does not tell; see --site, "
                         "--host and --measure-machine")  # fmt: skip
    first, last = _middle(one.decode_seconds), _middle(full.decode_seconds)
    more = max(0.0, (last - first) / (many - 1))
    return ServerPace(max(0.0, first - more), more, 1 / _middle(one.prefill))


def _middle(given: Interval) -> float:
    """Of what is uncertain by a factor, the geometric mean."""
    return math.sqrt(given[0] * given[1])
