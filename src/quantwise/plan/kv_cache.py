"""Bytes of the key-value cache.

llama.cpp reserves it at start: every slot's context padded to 256 cells, each cell a row of ``head_dim * kv_heads``
numbers per layer for K and again for V (src/llama-kv-cache.cpp, src/llama-context.cpp). Others grow it with the text:
tokens times the same row, exact at full context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


def llamacpp_cache_bytes(shape: CacheShape, context: int, concurrency: int, cache: str = "f16") -> int:
    """Bytes that llama.cpp reserves for ``concurrency`` slots of ``context`` tokens each."""
    total = _padded(context * concurrency)
    cells = concurrency * _padded(total // concurrency)
    return cells * _token_bytes(shape, cache)


def cache_bytes(shape: CacheShape, context: int, concurrency: int, cache: str = "f16") -> int:
    """Bytes of ``concurrency`` full contexts where the cache grows token by token."""
    return context * concurrency * _token_bytes(shape, cache)


def _padded(tokens: int) -> int:
    return -(-tokens // PADDING) * PADDING


def _token_bytes(shape: CacheShape, cache: str) -> int:
    keys = row_bytes(cache, shape.kv_heads, shape.key_dim)
    values = row_bytes(cache, shape.kv_heads, shape.value_dim)
    return shape.layers * (keys + values)
