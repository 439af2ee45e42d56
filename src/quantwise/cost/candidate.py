"""What a candidate costs, from rows and records. Bytes and seconds for now."""

from __future__ import annotations

from collections.abc import Sequence

from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.evidence import Measurement
from quantwise.core.runtime import Footprint
from quantwise.core.verdict import Cost

# One-sided 95 % sample floors of an order statistic: below them a percentile is not printed.
P95_FLOOR = 59
P99_FLOOR = 299


def percentile(values: Sequence[float], q: float) -> float | None:
    """The q-quantile as an order statistic, or None below its sample floor (59 for p95, 299 for p99)."""
    floor = P99_FLOOR if q >= 0.99 else P95_FLOOR if q >= 0.95 else 1
    if len(values) < floor:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _mean_over_tasks(rows: Sequence[Measurement]) -> float | None:
    """Mean of each task, then over tasks: arms settle at different numbers of items, and tasks differ in length."""
    by_task: dict[str, list[float]] = {}
    for row in rows:
        if row.seconds is not None:
            by_task.setdefault(row.task, []).append(row.seconds)
    means = [sum(times) / len(times) for times in by_task.values()]
    return sum(means) / len(means) if means else None


def cost(candidate: Candidate, artifact: Artifact, footprint: Footprint | None, rows: Sequence[Measurement]) -> Cost:
    """Bytes and seconds of one candidate; time and memory are unknown where its weights are expanded to be computed."""
    real = candidate.computes_as_stored and (footprint is None or footprint.executes != "dequantized")
    answered = [r for r in rows if r.seconds is not None and r.finish in ("stop", "length")] if real else []
    seconds = [r.seconds for r in answered if r.seconds is not None]
    tokens = [r.output_tokens for r in answered if r.output_tokens is not None]
    p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
    return Cost(
        candidate=candidate.name,
        artifact_bytes=artifact.bytes,
        memory_bytes=footprint.peak_process_bytes if real and footprint else None,
        seconds_per_item=_mean_over_tasks(answered),
        p99_over_p50=p99 / p50 if p50 and p99 is not None else None,
        tokens_per_s=sum(tokens) / sum(seconds) if tokens and sum(seconds) > 0 else None,
    )
