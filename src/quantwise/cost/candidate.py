"""Bytes, seconds and joules of one candidate, from its rows and from what its session told."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.evidence import ANSWERED, LOST, Measurement
from quantwise.core.runtime import Footprint
from quantwise.core.verdict import Cost
from quantwise.cost.block_energy import BlockJoules
from quantwise.stats.percentile import percentile


def request_seconds(rows: Sequence[Measurement]) -> list[float]:
    """Seconds of each request, for percentiles; left out are answers whose time is unknown, and refused requests, which
    nothing was computed for.

    A request that was lost is infinite, so that it is slower than every answer. So is one that was answered after a
    further try (``error`` says what went before): its ``seconds`` are those of the last try alone.
    """
    asked = [row for row in rows if row.finish in (*ANSWERED, *LOST)]
    failed = [row.finish in LOST or bool(row.error) for row in asked]
    known = zip(asked, failed, strict=True)
    return [math.inf if lost else row.seconds or 0.0 for row, lost in known if lost or row.seconds is not None]


def first_token_seconds(rows: Sequence[Measurement]) -> list[float]:
    """As `request_seconds`, but to the first token, of the tasks in which any answer tells it: choices have none."""
    telling = {row.task for row in rows if row.first_token_seconds is not None}
    return request_seconds([replace(row, seconds=row.first_token_seconds) for row in rows if row.task in telling])


def p95_seconds(rows: Sequence[Measurement]) -> float | None:
    """p95 of a request, for a service level; None for too few requests, infinite where it falls on one that failed."""
    return percentile(request_seconds(rows), 0.95)


def tokens_per_second(rows: Sequence[Measurement]) -> float | None:
    """Output tokens over seconds, of the rows that tell both (a choice has no output); None where none does."""
    both = [(row.output_tokens, row.seconds) for row in rows if row.output_tokens is not None and row.seconds]
    return sum(tokens for tokens, _ in both) / sum(seconds for _, seconds in both) if both else None


def cost(
    candidate: Candidate,
    artifact: Artifact,
    footprint: Footprint | None,
    rows: Sequence[Measurement],
    joules: BlockJoules = MappingProxyType({}),
) -> Cost:
    """Bytes, seconds and joules of one candidate; time, energy and memory are unknown where its weights are expanded to
    be computed.

    Mean seconds are of the answers alone; what failed is counted by the tail, and shown beside (`losses.faults`).
    """
    real = candidate.computes_as_stored and (footprint is None or footprint.executes != "dequantized")
    timed = rows if real else []
    answered = [row for row in timed if row.seconds is not None and row.finish in ANSWERED]
    requests, first_tokens = request_seconds(timed), first_token_seconds(timed)
    return Cost(
        candidate=candidate.name,
        artifact_bytes=artifact.bytes,
        memory_bytes=footprint.peak_process_bytes if real and footprint else None,
        seconds_per_item=_mean_over_tasks(answered),
        p99_over_p50=_tail(requests),
        tokens_per_s=tokens_per_second(answered),
        joules_per_item=_joules_per_request(timed, joules),
        p50_seconds=percentile(requests, 0.5),
        p95_seconds=percentile(requests, 0.95),
        p99_seconds=percentile(requests, 0.99),
        p50_first_token_seconds=percentile(first_tokens, 0.5),
        p95_first_token_seconds=percentile(first_tokens, 0.95),
    )


def _mean_over_tasks(rows: Sequence[Measurement]) -> float | None:
    """Mean of each task, then over tasks: arms settle at different numbers of items, and tasks differ in length."""
    by_task: dict[str, list[float]] = {}
    for row in rows:
        if row.seconds is not None:
            by_task.setdefault(row.task, []).append(row.seconds)
    means = [sum(times) / len(times) for times in by_task.values()]
    return sum(means) / len(means) if means else None


def _joules_per_request(rows: Sequence[Measurement], joules: BlockJoules) -> float | None:
    """As seconds, mean of each task, then over tasks, but of all requests; None where a block was not metered."""
    asked = Counter(row.task for row in rows)
    by_task: dict[str, float] = defaultdict(float)
    for block, task in sorted({(row.block, row.task) for row in rows}):
        if (block, task) not in joules:
            return None
        by_task[task] += joules[block, task]
    return sum(by_task[task] / n for task, n in asked.items()) / len(asked) if asked else None


def _tail(seconds: Sequence[float]) -> float | None:
    """Infinite where p99 falls on a request that failed and p50 does not."""
    p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
    return p99 / p50 if p50 and math.isfinite(p50) and p99 is not None else None
