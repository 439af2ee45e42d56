"""What a reader must know before believing the figures of a trial, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantwise.load.latency import spoilt
from quantwise.stats.percentile import P95_FLOOR, P99_FLOOR

_CACHED = 0.05
_OTHERS = 1.1


def notes(figures: Mapping[str, Any], counted: Mapping[str, float | None], repeated: bool) -> list[str]:
    """Sentences on one server's figures and its own counters; ``repeated``: prompts were asked more than once."""
    return [*_failures(figures), *_floors(figures), *spoilt(figures), *_server(figures, counted, repeated)]


def _failures(figures: Mapping[str, Any]) -> Iterator[str]:
    if figures["failed"]:
        kinds = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in figures["failures"].items())
        total = figures["completed"] + figures["failed"]
        yield (
            f"{figures['failed']} of {total} requests failed ({kinds}): percentiles count them as slower than every "
            "answer, means are of the answers alone"
        )


def _floors(figures: Mapping[str, Any]) -> Iterator[str]:
    total = figures["completed"] + figures["failed"]
    if not total:
        yield "no request was due in that time: give more --seconds, or a higher --rate"
        return
    for name, floor in (("p95", P95_FLOOR), ("p99", P99_FLOOR)):
        if total < floor:
            yield f"{name} is unknown: it takes {floor} requests, there were {total}"


def _server(figures: Mapping[str, Any], counted: Mapping[str, float | None], repeated: bool) -> Iterator[str]:
    if repeated:
        yield "prompts were asked more than once: a cache of prefixes helps more than it may in use"
    total, cached = figures["total_input_tokens"], figures["cached_input_tokens"]
    share = cached / total if total and cached is not None else counted["prefix_cache_hit_rate"]
    if share is not None and share > _CACHED:
        yield f"{share:.0%} of the input tokens came from a cache of prefixes"
    if counted["preemptions"]:
        yield f"the server preempted {counted['preemptions']:.0f} requests for lack of cache; they were computed again"
    written, ours = counted["generation_tokens"], figures["total_output_tokens"]
    if written is not None and ours and not figures["failed"] and written > _OTHERS * ours:
        yield f"the server wrote {written:.0f} tokens meanwhile, {ours} of them for us: others used it too"
