"""What blocks of answers say: vLLM's figures by vLLM's names, with sample floors and with failures in view.

A percentile is known only from so many *requests* (59 for p95, 299 for p99; gaps between tokens of one answer are no
independent samples), and a request without an answer counts as slower than every answer: where the percentile falls on
one, it is unknown. Means and deviations are those of the answers. Unknown is None.

Source of names and definitions: https://github.com/vllm-project/vllm/blob/main/vllm/benchmarks/serve.py
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantwise.load.generator import Answer, Block
from quantwise.runtimes.streaming import OUTCOMES
from quantwise.stats.percentile import P95_FLOOR, P99_FLOOR, percentile

# A generator that is late by more than this share of what it measures spoils the figure.
SPOILT = 0.05


@dataclass(frozen=True, slots=True)
class ServiceLevels:
    """What a request must keep to be a good one, in milliseconds; None asks nothing."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None

    @property
    def asked(self) -> bool:
        """Whether there is any level."""
        return any(level is not None for level in (self.ttft_ms, self.tpot_ms, self.e2e_ms))

    def kept(self, answer: Answer) -> bool:
        """Whether it met every level. An answer without text has its end for a first token; one of at most one token
        takes no time per further token, as in vLLM; unknown tokens meet no level of them.
        """
        if not answer.ok or answer.e2e is None:
            return False
        ttft = answer.ttft if answer.ttft is not None else answer.e2e
        tokens = answer.streamed.output_tokens
        tpot = answer.tpot if answer.tpot is not None else 0.0 if tokens is not None and tokens < 2 else math.inf
        pairs = ((ttft, self.ttft_ms), (tpot, self.tpot_ms), (answer.e2e, self.e2e_ms))
        return all(level is None or value * 1000 <= level for value, level in pairs)


def summary(blocks: Sequence[Block], levels: ServiceLevels) -> dict[str, Any]:
    """The figures of one server; times in milliseconds, duration in seconds, rates per second."""
    answers = [a for block in blocks for a in block.answers]
    done = [a for a in answers if a.ok]
    duration = sum(block.seconds for block in blocks)
    total_in, total_out = (_total(getattr(a.streamed, f"{kind}_tokens") for a in done) for kind in ("prompt", "output"))
    both = None if total_in is None or total_out is None else total_in + total_out
    good = sum(levels.kept(a) for a in done)
    return {
        "duration": duration,
        "completed": len(done),
        "failed": len(answers) - len(done),
        "failures": {o: n for o in OUTCOMES if o != "ok" and (n := sum(a.streamed.outcome == o for a in answers))},
        "total_input_tokens": total_in,
        "total_output_tokens": total_out,
        "cached_input_tokens": _total(a.streamed.cached_tokens for a in done),
        "request_throughput": _per(len(done), duration),
        "request_goodput": _per(good, duration) if levels.asked else None,
        "good_share": _per(good, len(answers)) if levels.asked else None,
        "output_throughput": _per(total_out, duration),
        "total_token_throughput": _per(both, duration),
        "max_concurrent_requests": max((block.most_in_flight for block in blocks), default=0),
        **latencies(answers),
        **_phases(done),
        "generator_lag": generator_lag(blocks),
    }


def latencies(answers: Sequence[Answer]) -> dict[str, float | None]:
    """``mean_``, ``median_``, ``std_``, ``p95_``, ``p99_`` of ttft, tpot, itl and e2el in ms; p99 over p50 of two."""
    done = [a for a in answers if a.ok]
    lost = len(answers) - len(done)
    found: dict[str, float | None] = {}
    for name, values in (
        ("ttft", [a.ttft for a in done]),
        ("tpot", [a.tpot for a in done]),
        ("e2el", [a.e2e for a in done]),
    ):
        found |= _figures(name, [1000 * v for v in values if v is not None], lost)
    found |= _gap_figures(done)
    for name in ("ttft", "e2el"):
        top, middle = found[f"p99_{name}_ms"], found[f"median_{name}_ms"]
        found[f"p99_over_p50_{name}"] = None if top is None or not middle else top / middle
    return found


def _figures(name: str, values: Sequence[float], lost: int) -> dict[str, float | None]:
    """Figures of one time per request; ``lost`` requests have none and count as slower than all."""
    ranked = [*values, *([math.inf] * lost)] if values else []
    return {
        f"mean_{name}_ms": statistics.fmean(values) if values else None,
        f"median_{name}_ms": _finite(statistics.median(ranked)) if ranked else None,
        f"std_{name}_ms": statistics.pstdev(values) if values else None,
        f"p95_{name}_ms": _finite(percentile(ranked, 0.95)),
        f"p99_{name}_ms": _finite(percentile(ranked, 0.99)),
    }


def _gap_figures(done: Sequence[Answer]) -> dict[str, float | None]:
    per_answer = [gaps for a in done if (gaps := a.gaps)]
    found = _figures("itl", [1000 * gap for gaps in per_answer for gap in gaps], 0)
    for name, floor in (("p95", P95_FLOOR), ("p99", P99_FLOOR)):
        if len(per_answer) < floor:
            found[f"{name}_itl_ms"] = None
    return found


def _phases(done: Sequence[Answer]) -> dict[str, float | None]:
    """Prefill and decode apart, in tokens per second of one request.

    From outside: prompt tokens, less those that the server says it had in a cache of prefixes, over the time from
    sending to the first token (waiting in the server is in it), and tokens after the first over the time from the first
    to the last. From inside: what a llama-server tells.
    """
    read = [
        (a.streamed.prompt_tokens - (a.streamed.cached_tokens or 0), a.ttft - a.lag)
        for a in done
        if a.streamed.prompt_tokens is not None and a.ttft is not None and a.lag is not None
    ]
    written = [
        (a.streamed.output_tokens - 1, a.tpot * (a.streamed.output_tokens - 1))
        for a in done
        if a.streamed.output_tokens and a.tpot is not None
    ]
    told = [(s.server_tokens, s.server_seconds) for a in done if (s := a.streamed).server_tokens and s.server_seconds]
    return {
        "prefill_tokens_per_s": _rate(read),
        "decode_tokens_per_s": _rate(written),
        "server_prefill_tokens_per_s": _rate([(n[0], s[0]) for n, s in told]),
        "server_decode_tokens_per_s": _rate([(n[1], s[1]) for n, s in told]),
    }


def generator_lag(blocks: Sequence[Block]) -> dict[str, float | None]:
    """How late requests were sent (``send_``) and how late a sleeping task was woken (``wake_``), in milliseconds."""
    sent = [1000 * lag for block in blocks for a in block.answers if (lag := a.lag) is not None]
    woken = [1000 * late for block in blocks for late in block.beats]
    found: dict[str, float | None] = {}
    for name, values in (("send", sent), ("wake", woken)):
        found[f"mean_{name}_ms"] = statistics.fmean(values) if values else None
        found[f"p95_{name}_ms"] = percentile(values, 0.95)
        found[f"p99_{name}_ms"] = percentile(values, 0.99)
        found[f"max_{name}_ms"] = max(values, default=None)
    return found


def spoilt(figures: Mapping[str, Any]) -> list[str]:
    """Sentences on what the generator's own lateness spoils in these figures; none where it kept up.

    Lateness is p99 where that is known, else the largest; it may be SPOILT of the median TTFT, or of the mean ITL.
    """
    lag = figures["generator_lag"]
    found = []
    # Pieces that come together have gaps of nothing, often more than half of all: the mean says more than the median.
    for kind, word, middling, name in (("send", "sent", "median", "ttft"), ("wake", "read", "mean", "itl")):
        late = lag[f"p99_{kind}_ms"] if lag[f"p99_{kind}_ms"] is not None else lag[f"max_{kind}_ms"]
        middle = figures[f"{middling}_{name}_ms"]
        if late is not None and middle and late > SPOILT * middle:
            found.append(
                f"the generator {word} up to {late:.1f} ms late, more than {SPOILT:.0%} of the {middling} "
                f"{name.upper()} ({middle:.1f} ms): its figures are too high by up to that; run it on another machine, "
                "or ask for less"
            )
    return found


def _rate(pairs: Sequence[tuple[int, float]]) -> float | None:
    return _per(sum(n for n, _ in pairs), sum(s for _, s in pairs)) if pairs else None


def _per(amount: float | None, whole: float) -> float | None:
    return None if amount is None or whole <= 0 else amount / whole


def _total(values: Any) -> int | None:
    """The sum, or None where any of them is unknown or there is none."""
    found = list(values)
    return sum(found) if found and None not in found else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
