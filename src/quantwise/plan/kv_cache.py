"""Bytes of the key-value cache, keys and values apart. One token leaves, in each layer and for keys and values each,

- a 16-bit cache: ``kv_heads * head_dim * 2`` bytes;
- a block type of llama.cpp: ``kv_heads * head_dim / block * size``; a block of 32 numbers takes 34 bytes in ``q8_0``,
  18 in ``q4_0`` and so on (``CACHE_BLOCKS``);
- ``int8-token``: ``kv_heads * (head_dim + 2)``, the codes and a float16 scale;
- ``int4-token``: ``kv_heads * (head_dim / 2 + 4)``, the codes, a scale and a minimum;
- ``int8-channel``, ``int4-channel``: values as per token; keys ``kv_heads * head_dim * (1 + 2 / 32)`` and
  ``kv_heads * head_dim * (1 / 2 + 4 / 32)``, because 32 tokens share what a channel needs; but the newest 32 to 63
  tokens stay in 16 bit.

llama.cpp reserves its cache at start: every slot's context padded to 256 cells (src/llama-kv-cache.cpp,
src/llama-context.cpp). Transformers grows it with the text: exact at full context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantwise.core.cache_scheme import TRANSFORMERS_CACHES, IntegerCache, keys_and_values
from quantwise.core.errors import InputError
from quantwise.formats.gguf.header import GgufHeader
from quantwise.models.config import ModelShape

PADDING = 256
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


def cache_shape(shape: ModelShape) -> CacheShape:
    """The cache of a model whose every layer caches alike."""
    return CacheShape(shape.layers, shape.kv_heads, shape.head_dim, shape.head_dim)


def cache_shape_of_gguf(header: GgufHeader) -> CacheShape | None:
    """The cache of a GGUF model; None where its header does not say, or its layers cache differently."""
    layers, heads = gguf_number(header, "block_count"), gguf_number(header, "attention.head_count")
    hidden, kv_heads = gguf_number(header, "embedding_length"), gguf_number(header, "attention.head_count_kv")
    if f"{header.architecture}.attention.head_count_kv" not in header.keys:
        kv_heads = heads
    # Sliding windows and latent attention cache less than this formula says.
    special = any(gguf_number(header, f"attention.{name}") for name in ("sliding_window", "kv_lora_rank"))
    if special or not layers or not heads or not kv_heads or not hidden:
        return None
    key, value = (gguf_number(header, f"attention.{name}") for name in ("key_length", "value_length"))
    return CacheShape(layers, kv_heads, key or hidden // heads, value or hidden // heads)


def gguf_number(header: GgufHeader, name: str) -> int | None:
    """A whole number from the header, by its name behind the architecture's; None where it is absent or a list."""
    value = header.keys.get(f"{header.architecture}.{name}")
    return value if isinstance(value, int) else None


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


def llamacpp_cache_bytes(shape: CacheShape, context: int, concurrency: int, cache: str = "f16") -> int:
    """Bytes that llama.cpp reserves for ``concurrency`` slots of ``context`` tokens each."""
    total = _padded(context * concurrency)
    return concurrency * sum(held_bytes(shape, _padded(total // concurrency), cache))


def cache_bytes(shape: CacheShape, context: int, concurrency: int, cache: str = "f16") -> int:
    """Bytes of ``concurrency`` full contexts where the cache grows token by token."""
    return concurrency * sum(held_bytes(shape, context, cache))


def _padded(tokens: int) -> int:
    return -(-tokens // PADDING) * PADDING


def _code_bytes(scheme: IntegerCache, tokens: int, width: int) -> int:
    if width * scheme.bits % 8:
        raise InputError(f"cache scheme {scheme.name} needs heads of even width, this model has {width}; use f16")
    return tokens * width * scheme.bits // 8
