"""Bytes of the key-value cache, keys and values apart. One token leaves, in each layer and for keys and values each,

- a 16-bit cache: ``kv_heads * head_dim * 2`` bytes;
- a block type of llama.cpp: ``kv_heads * head_dim / block * size``; a block of 32 numbers takes 34 bytes in ``q8_0``,
  18 in ``q4_0`` and so on (``CACHE_BLOCKS``);
- ``int8-token``: ``kv_heads * (head_dim + 2)``, the codes and a float16 scale;
- ``int4-token``: ``kv_heads * (head_dim / 2 + 4)``, the codes, a scale and a minimum;
- ``int8-channel``, ``int4-channel``: values as per token; keys ``kv_heads * head_dim * (1 + 2 / 32)`` and
  ``kv_heads * head_dim * (1 / 2 + 4 / 32)``, because 32 tokens share what a channel needs; but the newest 32 to 63
  tokens stay in 16 bit.

How many tokens a runtime keeps is its own affair: ``llamacpp.cache``, ``transformers_memory``, ``vllm``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantwise.core.cache_scheme import TRANSFORMERS_CACHES, IntegerCache, keys_and_values
from quantwise.core.errors import InputError

# Numbers and bytes of one block of each cache type (ggml/src/ggml-common.h).
CACHE_BLOCKS: Mapping[str, tuple[int, int]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What a token leaves in each of ``layers``: K of ``kv_heads * key_dim`` numbers, V of ``kv_heads * value_dim``."""

    layers: int
    kv_heads: int
    key_dim: int
    value_dim: int


def row_bytes(cache: str, heads: int, width: int) -> int:
    """Bytes of ``heads`` heads of ``width`` numbers of a cache type.

    Raises InputError for an unknown type, or where a head does not split into its blocks, which llama.cpp refuses.
    """
    if cache not in CACHE_BLOCKS:
        raise InputError(f"unknown cache scheme {cache!r}; allowed: {', '.join(CACHE_BLOCKS)}")
    numbers, size = CACHE_BLOCKS[cache]
    if width % numbers:
        raise InputError(
            f"cache scheme {cache} needs heads of a multiple of {numbers}, this model has {width}; use f16"
        )
    return heads * width // numbers * size


def held_bytes(shape: CacheShape, tokens: int, cache: str = "f16") -> tuple[int, int]:
    """Bytes of keys and of values that ``tokens`` tokens of one text leave in all layers.

    ``cache`` is a scheme of either runtime, ``K/V`` included. Raises InputError as ``row_bytes`` does.
    """
    scheme = TRANSFORMERS_CACHES.get(cache)
    layers, heads = shape.layers, shape.kv_heads
    if scheme is None:
        names = keys_and_values(cache)
        keys, values = (row_bytes(n, heads, w) for n, w in zip(names, (shape.key_dim, shape.value_dim), strict=True))
        return layers * tokens * keys, layers * tokens * values
    old = scheme.rounded(tokens)
    shared = old // scheme.group * shape.key_dim if scheme.keys == "channel" else old
    keys = _code_bytes(scheme, old, shape.key_dim) + shared * scheme.scale_bytes
    values = _code_bytes(scheme, old, shape.value_dim) + old * scheme.scale_bytes
    fresh = 2 * (tokens - old)
    return layers * heads * (keys + fresh * shape.key_dim), layers * heads * (values + fresh * shape.value_dim)


def token_bytes(shape: CacheShape, cache: str = "f16") -> tuple[float, float]:
    """Bytes of keys and of values that one more token adds to a long text, in all layers."""
    far, more = 4096, 256
    less, longer = held_bytes(shape, far, cache), held_bytes(shape, far + more, cache)
    return (longer[0] - less[0]) / more, (longer[1] - less[1]) / more


def _code_bytes(scheme: IntegerCache, tokens: int, width: int) -> int:
    if width * scheme.bits % 8:
        raise InputError(f"cache scheme {scheme.name} needs heads of even width, this model has {width}; use f16")
    return tokens * width * scheme.bits // 8
