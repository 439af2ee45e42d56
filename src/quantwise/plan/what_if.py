"""What the cache would take if one thing were otherwise: context, requests at a time, cache type, key-value heads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder, Layer
from quantwise.plan.constants import VLLM_0_32, VllmVersion
from quantwise.plan.llamacpp.cache import llamacpp_cache
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.transformers_memory import transformers_cache
from quantwise.plan.vllm import VllmSettings, vllm_pages

CACHES = {
    "llamacpp": ("f16", "q8_0", "q5_1", "q4_0"),
    "transformers": ("f16", "int8-token", "int8-channel", "int4-channel", "int4-token"),
    "vllm": ("f16", "fp8", "int8-token-head"),
}


@dataclass(frozen=True, slots=True)
class Demand:
    """``context`` tokens for each of ``concurrency`` requests, with a cache type of the runtime."""

    context: int
    concurrency: int = 1
    cache: str = "f16"


@dataclass(frozen=True, slots=True)
class WhatIf:
    """One change, the cache's ``bytes`` after it, and ``times`` what they are now."""

    change: str
    bytes: int
    times: float


def cache_of(runtime: str, decoder: Decoder, demand: Demand, version: VllmVersion = VLLM_0_32) -> int:
    """Bytes of the cache in a runtime at full context, in vLLM of this version.

    Raises InputError for a runtime that is not planned here.
    """
    formulas: dict[str, Callable[[], int]] = {
        "llamacpp": lambda: (
            llamacpp_cache(decoder, LlamacppSettings(demand.context, demand.concurrency, cache=demand.cache)).total
        ),
        "transformers": lambda: transformers_cache(decoder, demand.context, demand.concurrency, demand.cache),
        "vllm": lambda: (
            demand.concurrency * vllm_pages(decoder, VllmSettings(demand.context, demand.cache), version).request_bytes
        ),
    }
    if runtime not in formulas:
        raise InputError(f"the cache of {runtime!r} is not planned here; known: {', '.join(formulas)}")
    return formulas[runtime]()


def what_if(runtime: str, decoder: Decoder, demand: Demand, version: VllmVersion = VLLM_0_32) -> tuple[WhatIf, ...]:
    """The usual changes, one at a time, of a whole model or of what one device has of it (``device_cache``).

    Left out are cache types that do not suit the model, more requests than the runtime takes, and fewer key-value heads
    where that changes nothing: latent attention keeps none, and a single one is on every device.
    """
    now = cache_of(runtime, decoder, demand, version)
    found: list[WhatIf] = []

    def add(change: str, model: Decoder, then: Demand) -> None:
        taken = cache_of(runtime, model, then, version)
        found.append(WhatIf(change, taken, taken / now if now else 1.0))

    add("the context doubles", decoder, replace(demand, context=2 * demand.context))
    with contextlib.suppress(InputError):
        add("the requests at a time double", decoder, replace(demand, concurrency=2 * demand.concurrency))
    for cache in CACHES[runtime]:
        if cache != demand.cache:
            with contextlib.suppress(InputError):
                add(f"the cache is {cache}", decoder, replace(demand, cache=cache))
    least = now
    for change, half in (("half as many key-value heads", True), ("a single key-value head", False)):
        fewer = _with_heads(decoder, half=half)
        if (taken := cache_of(runtime, fewer, demand, version)) < least:
            add(change, fewer, demand)
            least = taken
    return tuple(found)


def _with_heads(decoder: Decoder, *, half: bool) -> Decoder:
    return replace(decoder, layers=tuple(_fewer(layer, half) for layer in decoder.layers))


def _fewer(layer: Layer, half: bool) -> Layer:
    if layer.attention is None:
        return layer
    heads = max(1, layer.attention.kv_heads // 2) if half else 1
    return replace(layer, attention=replace(layer.attention, kv_heads=heads))
