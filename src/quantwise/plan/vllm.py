"""What vLLM keeps: pages of cache, how many fit, and what its profile run leaves for them. One GPU's share of each.

After vllm/v1/kv_cache_interface.py, v1/core/kv_cache_utils.py and v1/worker/gpu_worker.py, 0.18 to 0.19 and 0.32. The
pages of 0.32 were held against vLLM itself: docs/plan.md. Figures that only a run can tell are intervals.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder
from quantwise.plan.constants import VLLM_0_32, ByteInterval, VllmVersion

# Bytes of a number, and of a scale beside each token and head.
VLLM_CACHES = {
    "f16": (2.0, 0),
    "bf16": (2.0, 0),
    "fp8": (1.0, 0),
    "int8-token-head": (1.0, 4),
    "fp8-token-head": (1.0, 4),
}


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """One server. ``context`` is its max_model_len; ``parallel`` GPUs share every layer.

    None for ``block``, ``batched_tokens`` and ``sequences`` takes the version's own.
    """

    context: int
    cache: str = "f16"
    parallel: int = 1
    block: int | None = None
    batched_tokens: int | None = None
    sequences: int | None = None
    utilization: float | None = None

    def __post_init__(self) -> None:
        if self.context < 1 or self.parallel < 1:
            raise InputError("context and parallel must be whole numbers of at least 1")
        if self.cache not in VLLM_CACHES:
            raise InputError(f"unknown cache scheme {self.cache!r} of vLLM; allowed: {', '.join(VLLM_CACHES)}")


@dataclass(frozen=True, slots=True)
class VllmPages:
    """``bytes_of_block``: what one block of the pool takes; ``groups`` of layers take blocks of that pool, and
    ``by_request`` blocks are taken by a request of full ``context`` in all groups. ``block`` tokens lie in one of a
    layer that has the largest page. ``tokens_by`` is how the version counts what its log calls the cache's tokens.
    """

    bytes_of_block: int
    groups: int
    by_request: int
    block: int
    context: int
    tokens_by: Literal["groups", "requests"]
    source: str

    def blocks(self, available: int) -> int:
        """Blocks in so many bytes."""
        return max(available, 0) // self.bytes_of_block

    def tokens(self, available: int) -> int:
        """What a start-up log calls GPU (or CPU) KV cache size."""
        if self.tokens_by == "requests":
            return int(self.requests(available) * self.context)
        return self.blocks(available) // self.groups * self.block

    def requests(self, available: int) -> float:
        """Requests of full context at a time: what a start-up log calls maximum concurrency."""
        return self.blocks(available) / self.by_request

    @property
    def request_bytes(self) -> int:
        """What one request of full context takes."""
        return self.by_request * self.bytes_of_block


def vllm_pages(decoder: Decoder, settings: VllmSettings, version: VllmVersion = VLLM_0_32) -> VllmPages:
    """How the cache is cut into pages.

    Layers that see equally far are one group, whatever their heads. Layers that do not are put into groups of equal
    number, which take blocks of one pool: pages that divide the largest hold more tokens instead, others are padded
    to it, in versions that do. Raises InputError for recurrent layers, whose pages are not counted here, and for
    pages of different sizes that the version cannot bring together.
    """
    if any(layer.state for layer in decoder.layers):
        raise InputError("pages of recurrent layers are not counted yet for vLLM; plan this model for llamacpp")
    kept = [layer.attention for layer in decoder.layers if layer.attention and not layer.attention.shared]
    if not kept:
        raise InputError(f"{decoder.name} has no layer of attention that keeps a cache")
    counts = Counter(_kind(attention, settings.parallel) for attention in kept)
    block = settings.block or version.block
    pages = {kind: _page(kind, settings.cache, block) for kind in counts}
    if len({kind.window for kind in counts}) == 1:
        whole = sum(count * pages[kind] for kind, count in counts.items())
        groups = dict.fromkeys(list(counts)[:1], 1)
        held = dict.fromkeys(groups, block)
    else:
        largest = max(pages.values())
        held = {kind: block * _stretch(kind, page, largest, version) for kind, page in pages.items()}
        fewest, most = min(counts.values()), max(counts.values())
        size = most if most < version.near * fewest else fewest
        whole = size * largest
        groups = {kind: math.ceil(count / size) for kind, count in counts.items()}
    flight = version.batches * (settings.batched_tokens or version.batched_tokens)
    chunked = decoder.architecture.casefold().startswith("llama4")
    each = {kind: _blocks(settings.context, kind.window, flight, held[kind], chunked=chunked) for kind in groups}
    return VllmPages(
        bytes_of_block=whole,
        groups=sum(groups.values()),
        by_request=sum(number * each[kind] for kind, number in groups.items()),
        block=block,
        context=settings.context,
        tokens_by=version.tokens_by,
        source=version.source,
    )


def _kind(attention: Attention, parallel: int) -> Attention:
    """What tells one layer's pages from another's, on one of ``parallel`` GPUs."""
    if attention.latent:
        return Attention(0, 1, attention.latent, 0, attention.window, attention.latent)
    return replace(attention, heads=0, kv_heads=max(1, attention.kv_heads // parallel))


def _page(kind: Attention, cache: str, block: int) -> int:
    width, scale = VLLM_CACHES[cache]
    if kind.latent:
        return int(block * kind.latent * width)
    return int(block * kind.kv_heads * ((kind.key_dim + kind.value_dim) * width + 2 * scale))


def _stretch(kind: Attention, page: int, largest: int, version: VllmVersion) -> int:
    """How many times as many tokens a page holds, where pages of several sizes become one."""
    if largest % page == 0:
        return largest // page
    if version.pads and not kind.latent:
        return 1
    raise InputError(
        f"{version.name} takes no pages of {page:,} beside pages of {largest:,} bytes; plan this model for llamacpp"
    )


def _blocks(context: int, window: int | None, flight: int, block: int, *, chunked: bool) -> int:
    """Blocks of a layer for one request: behind a window no more than it sees while ``flight`` tokens are computed.

    A window may begin inside a block, which costs one more; a chunk does not.
    """
    if window is None:
        return math.ceil(context / block)
    if chunked:
        return math.ceil(min(window + flight, context) / block)
    return math.ceil(min(window - 1 + flight, context) / block) + 1


def vllm_profile(decoder: Decoder, settings: VllmSettings, version: VllmVersion = VLLM_0_32) -> ByteInterval:
    """Bytes that its profile run finds beside the weights: what ``vllm_activations`` says, and libraries."""
    found, outside = vllm_activations(decoder, settings, version), vllm_libraries(settings, version)
    return ByteInterval(found.low + outside.low, found.high + outside.high, f"{found.source}; {outside.source}")


def vllm_activations(decoder: Decoder, settings: VllmSettings, version: VllmVersion = VLLM_0_32) -> ByteInterval:
    """Bytes of the largest batch and of the logits of all sequences."""
    tokens = settings.batched_tokens or version.batched_tokens
    logits = 4 * decoder.vocab * (settings.sequences or version.sequences)
    low, high = (int(share * tokens * decoder.hidden) for share in version.activation)
    return ByteInterval(low, max(high, 2 * logits), version.source)


def vllm_libraries(settings: VllmSettings, version: VllmVersion = VLLM_0_32) -> ByteInterval:
    """Bytes of libraries outside torch on each device; on a processor those of its processes."""
    return version.outside if settings.parallel == 1 else version.outside_parallel


def vllm_available(
    decoder: Decoder, weights: int, device: int, settings: VllmSettings, version: VllmVersion = VLLM_0_32
) -> ByteInterval:
    """Bytes left for the cache on each of ``parallel`` GPUs of ``device`` bytes, with ``weights`` bytes in all."""
    share = settings.utilization or version.utilization
    profile = vllm_profile(decoder, settings, version)
    room = int(device * share) - weights // settings.parallel
    return ByteInterval(
        max(0, room - profile.high - version.context.high),
        max(0, room - profile.low - version.context.low),
        profile.source,
    )
