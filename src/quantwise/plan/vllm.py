"""What vLLM keeps: pages of cache, how many fit, and what its profile run leaves for them. One GPU's share of each.

After vllm/v1/kv_cache_interface.py, v1/core/kv_cache_utils.py and v1/worker/gpu_worker.py (0.18 to 0.19). Figures that
only a run can tell are intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder
from quantwise.plan.constants import VLLM_0_19, Interval, VllmVersion

# Bytes of a number, and of a scale beside each token and head.
VLLM_CACHES = {
    "f16": (2.0, 0),
    "bf16": (2.0, 0),
    "fp8": (1.0, 0),
    "int8-token-head": (1.0, 4),
    "fp8-token-head": (1.0, 4),
}
# A layer type may be padded to a group's size where types differ by less than this.
_NEAR = 1.25


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
    """``page`` bytes of one layer's block; ``layers`` in each of ``groups`` that share blocks; ``by_request`` blocks
    that a request of full context takes in all groups; ``block`` tokens.
    """

    page: int
    layers: int
    groups: int
    by_request: int
    block: int
    source: str

    def blocks(self, available: int) -> int:
        """Blocks in so many bytes."""
        return max(available, 0) // self.page // self.layers

    def tokens(self, available: int) -> int:
        """What a start-up log of 0.19 calls GPU KV cache size."""
        return self.blocks(available) // self.groups * self.block

    def requests(self, available: int) -> float:
        """Requests of full context at a time."""
        return self.blocks(available) / self.by_request

    @property
    def request_bytes(self) -> int:
        """What one request of full context takes."""
        return self.by_request * self.page * self.layers


def vllm_pages(decoder: Decoder, settings: VllmSettings, version: VllmVersion = VLLM_0_19) -> VllmPages:
    """How the cache is cut into pages.

    Layers of different kinds are put into groups of equal size, which take blocks of one pool. Raises InputError for
    recurrent layers, whose pages are not counted here, and where layers of one model need pages of different sizes.
    """
    if any(layer.state for layer in decoder.layers):
        raise InputError("pages of recurrent layers are not counted yet for vLLM; plan this model for llamacpp")
    kept = [layer.attention for layer in decoder.layers if layer.attention and not layer.attention.shared]
    if not kept:
        raise InputError(f"{decoder.name} has no layer of attention that keeps a cache")
    block = settings.block or version.block
    pages = {_page(attention, settings, block) for attention in kept}
    if len(pages) > 1:
        raise InputError("layers of this model keep pages of different sizes, which are not counted for vLLM")
    counts: dict[int | None, int] = {}
    for attention in kept:
        counts[attention.window] = counts.get(attention.window, 0) + 1
    fewest, most = min(counts.values()), max(counts.values())
    size = most if most < _NEAR * fewest else fewest
    groups = {window: math.ceil(count / size) for window, count in counts.items()}
    batched = settings.batched_tokens or version.batched_tokens
    each = {window: _blocks(settings.context, window, batched, block) for window in counts}
    return VllmPages(
        page=pages.pop(),
        layers=size,
        groups=sum(groups.values()),
        by_request=sum(groups[window] * each[window] for window in counts),
        block=block,
        source=version.source,
    )


def _page(attention: Attention, settings: VllmSettings, block: int) -> int:
    width, scale = VLLM_CACHES[settings.cache]
    if attention.latent:
        return int(block * attention.latent * width)
    heads = max(1, attention.kv_heads // settings.parallel)
    return int(block * heads * ((attention.key_dim + attention.value_dim) * width + 2 * scale))


def _blocks(context: int, window: int | None, batched: int, block: int) -> int:
    """Blocks of a layer for one request: behind a window no more than it sees while a batch is computed."""
    if window is None:
        return math.ceil(context / block)
    return math.ceil(min(window - 1 + batched, context) / block) + 1


def vllm_profile(decoder: Decoder, settings: VllmSettings, version: VllmVersion = VLLM_0_19) -> Interval:
    """Bytes that its profile run finds beside the weights: activations, logits of all sequences, libraries."""
    tokens = settings.batched_tokens or version.batched_tokens
    logits = 4 * decoder.vocab * (settings.sequences or version.sequences)
    low, high = (int(share * tokens * decoder.hidden) for share in version.activation)
    outside = version.outside if settings.parallel == 1 else version.outside_parallel
    return Interval(low + outside.low, max(high, 2 * logits) + outside.high, f"{version.source}; {outside.source}")


def vllm_available(
    decoder: Decoder, weights: int, device: int, settings: VllmSettings, version: VllmVersion = VLLM_0_19
) -> Interval:
    """Bytes left for the cache on each of ``parallel`` GPUs of ``device`` bytes, with ``weights`` bytes in all."""
    share = settings.utilization or version.utilization
    profile = vllm_profile(decoder, settings, version)
    room = int(device * share) - weights // settings.parallel
    return Interval(
        max(0, room - profile.high - version.context.high),
        max(0, room - profile.low - version.context.low),
        profile.source,
    )
