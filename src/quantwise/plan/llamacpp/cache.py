"""Bytes of the cache that llama.cpp reserves when it starts, from a decoder's layers.

A layer of attention keeps ``kv_heads * key_dim`` numbers of a key and ``kv_heads * value_dim`` of a value for each
cell; latent attention keeps its compressed numbers once and no values; a sliding layer has fewer cells; a layer that
reads another's cache has none; a recurrent layer keeps float32 numbers of each slot, however long the text. After
src/llama-kv-cache.cpp, llama-kv-cache-iswa.cpp and llama-memory-recurrent.cpp (2026).
"""

from __future__ import annotations

from dataclasses import dataclass

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.plan.kv_cache import row_bytes
from quantwise.plan.llamacpp.model import as_llamacpp
from quantwise.plan.llamacpp.settings import LlamacppSettings


@dataclass(frozen=True, slots=True)
class LlamacppCache:
    """Bytes of ``keys`` and ``values`` of layers that see all tokens, of those that slide, and of recurrent ``state``.

    ``cells`` and ``window_cells`` are tokens that each kind of layer holds of one stream.
    """

    keys: int
    values: int
    window_keys: int
    window_values: int
    state: int
    cells: int
    window_cells: int
    source: str = "llama.cpp src/llama-kv-cache*.cpp, 2026"

    @property
    def total(self) -> int:
        """All of it."""
        return self.keys + self.values + self.window_keys + self.window_values + self.state


def llamacpp_cache(decoder: Decoder, settings: LlamacppSettings) -> LlamacppCache:
    """The cache of a server. Raises InputError where a head does not split into the blocks of the cache type."""
    decoder = as_llamacpp(decoder)
    each = layer_caches(decoder, settings)
    slides = [layer.attention is not None and layer.attention.window is not None for layer in decoder.layers]
    window = next((w for w in _windows(decoder)), None)
    return LlamacppCache(
        keys=sum(keys for (keys, _, _), slid in zip(each, slides, strict=True) if not slid),
        values=sum(values for (_, values, _), slid in zip(each, slides, strict=True) if not slid),
        window_keys=sum(keys for (keys, _, _), slid in zip(each, slides, strict=True) if slid),
        window_values=sum(values for (_, values, _), slid in zip(each, slides, strict=True) if slid),
        state=sum(4 * layer.state for layer in decoder.layers) * settings.slots,
        cells=settings.cells,
        window_cells=settings.window_cells(window) if window else 0,
    )


def layer_cache(decoder: Decoder, settings: LlamacppSettings, layer: int) -> tuple[int, int, int]:
    """Bytes of keys, of values and of recurrent state that one layer keeps, of a decoder ``as_llamacpp``."""
    state = 4 * decoder.layers[layer].state * settings.slots
    attention = decoder.layers[layer].attention
    if attention is None or attention.shared:
        return 0, 0, state
    cells = settings.cells if attention.window is None else settings.window_cells(attention.window)
    keys, values = cell_bytes(decoder, attention, settings)
    return keys * cells * settings.streams, values * cells * settings.streams, state


def layer_caches(decoder: Decoder, settings: LlamacppSettings) -> list[tuple[int, int, int]]:
    """``layer_cache`` of every layer; those that are alike are counted once."""
    known: dict[Layer, tuple[int, int, int]] = {}
    for number, layer in enumerate(decoder.layers):
        if layer not in known:
            known[layer] = layer_cache(decoder, settings, number)
    return [known[layer] for layer in decoder.layers]


def cell_bytes(decoder: Decoder, attention: Attention, settings: LlamacppSettings) -> tuple[int, int]:
    """Bytes of keys and of values of one token in a layer of this attention."""
    key_type, value_type = settings.types
    if attention.latent:
        if key_type != value_type:
            raise InputError(f"latent attention keeps one cache, of one type, not {settings.cache}; name one type")
        return row_bytes(key_type, 1, attention.latent), 0
    keys = row_bytes(key_type, attention.kv_heads, attention.key_dim)
    if settings.flash_attention:
        return keys, row_bytes(value_type, attention.kv_heads, attention.value_dim)
    # Without flash attention values lie transposed, all layers as wide as the widest.
    kept = (layer.attention for layer in decoder.layers)
    widest = max(a.kv_heads * a.value_dim for a in kept if a is not None)
    return keys, row_bytes(value_type, 1, widest)


def _windows(decoder: Decoder) -> list[int]:
    return [layer.attention.window for layer in decoder.layers if layer.attention and layer.attention.window]
