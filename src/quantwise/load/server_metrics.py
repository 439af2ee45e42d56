"""What a server's own counters say of a run: the difference of two readings of its ``/metrics``.

Names: https://docs.vllm.ai/en/stable/design/metrics/ and, for ``llama-server --metrics``, llama.cpp's
tools/server/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx

from quantwise.runtimes.openai import http_client
from quantwise.runtimes.streaming import Server

# What we call it, and who counts it by which name. The text format puts _total behind a counter, old servers did not.
COUNTERS: Mapping[str, tuple[str, ...]] = {
    "prefix_cache_queries": ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
    "prefix_cache_hits": ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
    "preemptions": ("vllm:num_preemptions",),
    "prompt_tokens": ("vllm:prompt_tokens", "llamacpp:prompt_tokens", "sglang:prompt_tokens"),
    "generation_tokens": ("vllm:generation_tokens", "llamacpp:tokens_predicted", "sglang:generation_tokens"),
}
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{.*\})?\s+(\S+)", re.MULTILINE)
_PATIENCE_S = 5.0

Counts = Mapping[str, float]


def read_counts(server: Server) -> Counts:
    """The counters that the server shows now, by our names; empty where it shows none."""
    try:
        with http_client(server.root, _PATIENCE_S, 1) as http:
            response = http.get("/metrics")
    except httpx.HTTPError:
        return {}
    return counts(response.text) if response.is_success else {}


def counts(text: str) -> Counts:
    """The counters in a text in Prometheus' format, by our names; those of several engines are added up."""
    totals: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        try:
            totals[name.removesuffix("_total")] = totals.get(name.removesuffix("_total"), 0.0) + float(value)
        except ValueError:
            continue
    found: dict[str, float] = {}
    for ours, theirs in COUNTERS.items():
        told = next((totals[name] for name in theirs if name in totals), None)
        if told is not None:
            found[ours] = told
    return found


def difference(before: Counts, after: Counts) -> dict[str, float | None]:
    """What was counted between, and the share of hits; None where it is not shown, or the server began anew."""
    found: dict[str, float | None] = {}
    for name in COUNTERS:
        gone_by = after[name] - before[name] if name in before and name in after else None
        found[name] = gone_by if gone_by is not None and gone_by >= 0 else None
    asked, hit = found["prefix_cache_queries"], found["prefix_cache_hits"]
    found["prefix_cache_hit_rate"] = hit / asked if asked and hit is not None else None
    return found
