"""What a server's own counters say of a run: the difference of two readings of its ``/metrics``, and cache blocks.

Names: https://docs.vllm.ai/en/stable/design/metrics/ and, for ``llama-server --metrics``, llama.cpp's
tools/server/README.md.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType

import httpx

from quantwise.core.runtime import CacheUse
from quantwise.runtimes.server_address import http_client
from quantwise.runtimes.streaming import Server
from quantwise.runtimes.whole_answer import asked

# What we call it, and who counts it by which name. The text format puts _total behind a counter, old servers did not.
COUNTERS: Mapping[str, tuple[str, ...]] = {
    "prefix_cache_queries": ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
    "prefix_cache_hits": ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
    "preemptions": ("vllm:num_preemptions",),
    "prompt_tokens": ("vllm:prompt_tokens", "llamacpp:prompt_tokens", "sglang:prompt_tokens"),
    "generation_tokens": ("vllm:generation_tokens", "llamacpp:tokens_predicted", "sglang:generation_tokens"),
}
# Shares of blocks in use now, by servers that page their cache; what these are shares of stands among labels.
_USED = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
_CONFIG = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{.*\})?\s+(\S+)", re.MULTILINE)
_PATIENCE_S = 5.0
_FIRST_LOOK_S, _LOOK_S = 0.2, 1.0

Counts = Mapping[str, float]


def read_metrics(server: Server) -> tuple[Counts, Blocks | None]:
    """The counters that the server shows now, by our names, empty where it shows none; and its cache's blocks."""
    with http_client(server.root, _PATIENCE_S, 1) as http:
        text = metrics_text(http)
    return counts(text), blocks(text)


def metrics_text(http: httpx.Client) -> str:
    """All that a server shows of itself now; empty where it shows nothing."""
    try:
        response = asked(http, "GET", "/metrics", limit_s=_PATIENCE_S)
    except (httpx.HTTPError, ValueError):
        return ""
    return response.text if response.is_success else ""


def counts(text: str) -> Counts:
    """The counters in a text in Prometheus' format, by our names; those of several engines are added up."""
    totals = {name: sum(values) for name, values in _samples(text).items()}
    found: dict[str, float] = {}
    for ours, theirs in COUNTERS.items():
        told = next((totals[name] for name in theirs if name in totals), None)
        if told is not None:
            found[ours] = told
    return found


def _samples(text: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, value in _SAMPLE.findall(text):
        try:
            number = float(value)
        except ValueError:
            continue
        found.setdefault(name.removesuffix("_total"), []).append(number)
    return found


@dataclass(frozen=True, slots=True)
class Blocks:
    """A paged cache, all engines together: ``total`` blocks for requests to have, of ``tokens`` tokens, ``used`` now.

    ``prefixes``: whether blocks are kept for requests that begin alike.
    """

    total: int
    tokens: int
    used: int
    prefixes: bool | None


def blocks(text: str) -> Blocks | None:
    """The blocks that vLLM tells of in a text in Prometheus' format; None where any of it is missing.

    It keeps one block of each engine to itself, and its share is of the others.
    """
    engines = [dict(_LABEL.findall(labels)) for labels in _CONFIG.findall(text)]
    samples = _samples(text)
    shares = next((samples[name] for name in _USED if name in samples), [])
    try:
        totals = [int(engine["num_gpu_blocks"]) - 1 for engine in engines]
        tokens = int(engines[0]["block_size"])
    except (IndexError, KeyError, ValueError):
        return None
    if not shares or min(totals) < 1:
        return None
    kept = {"True": True, "False": False}.get(engines[0].get("enable_prefix_caching", ""))
    return Blocks(sum(totals), tokens, round(sum(shares) / len(shares) * sum(totals)), kept)


class BlockWatch:
    """Looks at a server's blocks from a thread while a ``with`` lasts: the first time soon, then every second.

    What is used up and given back between two looks is not seen. A server without such blocks is looked at once.
    ``client`` opens what is asked with.
    """

    def __init__(self, client: Callable[[], AbstractContextManager[httpx.Client]]) -> None:
        self._client = client
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.seen: Blocks | None = None
        self.most = 0

    def __enter__(self) -> BlockWatch:
        self._over.clear()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        with self._client() as http:
            wait = _FIRST_LOOK_S
            while not self._over.wait(wait):
                found, wait = blocks(metrics_text(http)), _LOOK_S
                if found is None:
                    return
                self.seen, self.most = found, max(self.most, found.used)


class CacheWatch(BlockWatch):
    """A server's cache since this was made: its counters, and its blocks while a ``with`` lasts."""

    def __init__(self, http: httpx.Client) -> None:
        super().__init__(lambda: nullcontext(http))
        self._http = http
        self._before = counts(text := metrics_text(http))
        self.tells = counts_cache(text)

    def use(self) -> CacheUse:
        """What the server says now, less what it said before."""
        text = metrics_text(self._http)
        return cache_use(difference(self._before, counts(text)), self, blocks(text))


def counts_cache(text: str) -> bool:
    """Whether a text in Prometheus' format tells of hits in a cache of prefixes, of preemptions or of blocks."""
    return not {"prefix_cache_hits", "preemptions"}.isdisjoint(counts(text)) or blocks(text) is not None


def cache_use(counted: Mapping[str, float | None], watch: BlockWatch, now: Blocks | None) -> CacheUse:
    """What counters, looks in between, and the last reading say together."""
    seen = now or watch.seen
    preempted = counted["preemptions"]
    return CacheUse(
        blocks=seen.total if seen else None,
        block_tokens=seen.tokens if seen else None,
        most_blocks_seen=max(watch.most, now.used if now else 0) if watch.seen else None,
        prefix_caching=seen.prefixes if seen else None,
        prefix_cache_hit_rate=counted["prefix_cache_hit_rate"],
        preemptions=None if preempted is None else int(preempted),
    )


def difference(before: Counts, after: Counts) -> dict[str, float | None]:
    """What was counted between, and the share of hits; None where it is not shown, or the server began anew."""
    found: dict[str, float | None] = {}
    for name in COUNTERS:
        gone_by = after[name] - before[name] if name in before and name in after else None
        found[name] = gone_by if gone_by is not None and gone_by >= 0 else None
    asked, hit = found["prefix_cache_queries"], found["prefix_cache_hits"]
    found["prefix_cache_hit_rate"] = hit / asked if asked and hit is not None else None
    return found
