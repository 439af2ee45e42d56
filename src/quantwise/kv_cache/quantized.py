"""A quantized KV cache for Transformers: packed codes are what is kept, and every read decodes them.

Per token (``int8-token``, ``int4-token``): a token's keys and values are rounded as they come, and read back rounded at
once, also by the call that brought them, as llama.cpp does it. So it does not matter how a text is cut into calls.

Per channel (``int8-channel``, ``int4-channel``): KIVI (Liu et al. 2024, arXiv 2402.02750). A key channel is rounded
over a group of neighbouring tokens, because outliers of keys sit in few channels; values are rounded per token. The
newest tokens wait in 16 bit until a whole group lies behind the window. A call reads what it brings as it came and
rounds afterwards; calls of at most one group, cut at multiples of it (``piece``), read the same as one token at a time.

Padding on the left must not set the scale of a group that real tokens share: given its width for each row, the keys
and values of padding, which attention never reads, are overwritten with those of the first real token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from quantwise.core.cache_scheme import IntegerCache
from quantwise.core.errors import InputError
from quantwise.kv_cache.codes import Codes, cut, decode, encode, joined, rows


class QuantizedLayer(CacheLayerMixin):  # type: ignore[misc]  # Transformers is untyped
    """One layer: the old tokens as codes, the rest as it came. Keys and values are [batch, heads, tokens, width]."""

    is_sliding = False

    def __init__(self, scheme: IntegerCache, padding: Tensor | None = None) -> None:
        super().__init__()
        self.scheme = scheme
        self.is_croppable = scheme.keys == "token"  # what is cropped out of a group was rounded with it
        self._padding = padding if scheme.keys == "channel" else None
        self.old_keys: Codes | None = None
        self.old_values: Codes | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Empty tensors of the dtype that comes. Raises ValueError where 4-bit codes would not fill whole bytes."""
        widths = (key_states.shape[-1], value_states.shape[-1])
        if self.scheme.bits == 4 and any(width % 2 for width in widths):
            raise ValueError(f"cache scheme {self.scheme.name} needs heads of even width, this model has {widths}")
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep what comes, and return all keys and values so far as attention reads them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        # Both before either is kept: where padding ends is told by what is kept.
        new_keys, new_values = self._unpadded(key_states), self._unpadded(value_states)
        self.keys, self.values = torch.cat([self.keys, new_keys], dim=-2), torch.cat([self.values, new_values], dim=-2)
        if self.scheme.keys == "token":
            self._round()
            return self.read()
        seen = self.read()
        self._round()
        return seen

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens, decoded."""
        if self.old_keys is None or self.old_values is None:
            return self.keys, self.values
        keys, values = decode(self.old_keys, self.dtype), decode(self.old_values, self.dtype)
        return torch.cat([keys, self.keys], dim=-2), torch.cat([values, self.values], dim=-2)

    def bytes(self) -> int:
        """Bytes of the tensors that are kept."""
        kept = [t for codes in (self.old_keys, self.old_values) if codes is not None for t in codes.tensors]
        kept += [self.keys, self.values] if self.is_initialized else []
        return sum(t.numel() * t.element_size() for t in kept)

    def _round(self) -> None:
        """Turn the oldest 16-bit tokens into codes, as many as the scheme says."""
        old = 0 if self.old_keys is None else len(self.old_keys)
        count = self.scheme.rounded(self.get_seq_length()) - old
        if count <= 0:
            return
        group = self.scheme.group if self.scheme.keys == "channel" else None
        self.old_keys = joined(self.old_keys, encode(self.keys[..., :count, :], self.scheme.bits, group))
        self.old_values = joined(self.old_values, encode(self.values[..., :count, :], self.scheme.bits))
        # Cloned, because a view would keep the whole tensor alive.
        self.keys, self.values = self.keys[..., count:, :].clone(), self.values[..., count:, :].clone()

    def _unpadded(self, states: Tensor) -> Tensor:
        """The states that come, those of padding overwritten with the first real token's (or any, where none came)."""
        if self._padding is None:
            return states
        start = (self._padding.to(states.device) - self.get_seq_length()).clamp(min=0)
        if not bool(start.any()):
            return states
        columns = torch.arange(states.shape[-2], device=states.device)
        first = states[torch.arange(len(start)), :, start.clamp(max=len(columns) - 1)]
        return torch.where((columns < start[:, None])[:, None, :, None], first[:, :, None], states)

    def get_seq_length(self) -> int:
        """Tokens kept."""
        if not self.is_initialized:
            return 0
        return int(self.keys.shape[-2]) + (0 if self.old_keys is None else len(self.old_keys))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Tokens that the next call will attend to, and the first of them."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    def reset(self) -> None:
        """Forget everything."""
        self.keys, self.values = torch.empty(0), torch.empty(0)
        self.old_keys = self.old_values = None
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens; as everywhere in Transformers their count is given below zero.

        A group that is cut goes back to 16 bit as it was read. Raises ValueError on a count above zero.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes how many tokens to remove as a number below zero, not {tokens_to_remove}")
        if tokens_to_remove == 0 or not self.is_initialized:
            return
        left = max(0, self.get_seq_length() + tokens_to_remove)
        keys, values = self.read()
        old = min(left, 0 if self.old_keys is None else len(self.old_keys))
        old -= old % (self.scheme.group if self.scheme.keys == "channel" else 1)
        self.keys, self.values = keys[..., old:left, :].clone(), values[..., old:left, :].clone()
        if self.old_keys is not None and self.old_values is not None:
            self.old_keys, self.old_values = (
                (cut(self.old_keys, old), cut(self.old_values, old)) if old else (None, None)
            )

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch, in this order."""
        if not self.is_initialized:
            return
        self.keys, self.values = (t.index_select(0, indices.to(t.device)) for t in (self.keys, self.values))
        if self._padding is not None:
            self._padding = self._padding[indices.to(self._padding.device)]
        if self.old_keys is not None and self.old_values is not None:
            self.old_keys, self.old_values = rows(self.old_keys, indices), rows(self.old_values, indices)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """The rows of the batch in the order of the beams."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row ``repeats`` times."""
        if self.is_initialized:
            self.batch_select_indices(torch.arange(self.keys.shape[0]).repeat_interleave(repeats))


class QuantizedCache(Cache):  # type: ignore[misc]  # Transformers is untyped
    """The cache of a whole model, for one batch. ``padding``: for each row the width of its padding on the left."""

    def __init__(self, scheme: IntegerCache, padding: Sequence[int] | Tensor | None = None) -> None:
        starts = None if padding is None else torch.as_tensor(padding, dtype=torch.long)
        super().__init__(layer_class_to_replicate=lambda: QuantizedLayer(scheme, starts))
        self.scheme = scheme

    @property
    def piece(self) -> int | None:
        """At multiples of how many tokens a long text is to be cut into calls; None where it does not matter."""
        return self.scheme.group if self.scheme.keys == "channel" else None

    def bytes(self) -> int:
        """Bytes of the tensors that are kept, padding included."""
        return sum(layer.bytes() for layer in self.layers)


def check_model(config: Any, scheme: IntegerCache) -> None:
    """Refuse a model whose cache is more than keys and values of every token. ``config`` is a Transformers config.

    Raises InputError for other kinds of layers, and for heads whose 4-bit codes would not fill whole bytes. Sliding
    windows are kept in full: attention masks what lies outside, so only memory is lost.
    """
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    kinds = {type(layer).__name__ for layer in DynamicCache(config=config).layers if type(layer) not in plain}
    if kinds:
        raise InputError(
            f"cache scheme {scheme.name} keeps keys and values, and this model has {', '.join(sorted(kinds))}; use f16"
        )
    text = config.get_text_config(decoder=True)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if scheme.bits == 4 and width % 2:
        raise InputError(f"cache scheme {scheme.name} needs heads of even width, this model has {width}; use f16")
