"""What Transformers keeps beside the weights: a cache that grows with the text, and the activations of a prompt."""

from __future__ import annotations

from typing import Literal

from quantwise.models.decoder import Attention, Decoder
from quantwise.plan.constants import ByteInterval
from quantwise.plan.kv_cache import CacheShape, held_bytes


def transformers_cache(decoder: Decoder, context: int, concurrency: int = 1, cache: str = "f16") -> int:
    """Bytes of ``concurrency`` texts of ``context`` tokens.

    A sliding layer keeps its window, in 16 bit whatever the scheme, and right after a prompt for a moment all of it;
    latent attention is kept expanded, as keys and values of every head (transformers 5, cache_utils.py and its
    DeepSeek models). Raises InputError for a scheme that Transformers does not have, or that does not suit the width
    of a head.
    """
    each = 0
    for layer in decoder.layers:
        each += 4 * layer.state
        attention = layer.attention
        if attention is None or attention.shared:
            continue
        shape = CacheShape(1, _kept_heads(attention), attention.key_dim, attention.value_dim)
        if attention.window is None:
            each += sum(held_bytes(shape, context, cache))
        else:
            each += sum(held_bytes(shape, min(context, attention.window)))
    return concurrency * each


def _kept_heads(attention: Attention) -> int:
    return attention.heads if attention.latent else attention.kv_heads


def transformers_compute(
    decoder: Decoder,
    context: int,
    concurrency: int = 1,
    *,
    attention: Literal["sdpa", "eager"] = "sdpa",
    bytes_of_number: int = 2,
) -> ByteInterval:
    """Bytes while a prompt of ``context`` tokens is computed for ``concurrency`` texts at once.

    Live at the peak of a layer are four to nine hidden states and three to six feed-forward states. ``eager``
    attention has the scores of all heads besides, in the model's type and in the 32 bit of their softmax: 8 to 13 bytes
    each. Logits are those of the last token. Ten settings measured on a CPU (transformers 5.23, torch 2.13, float32
    and bfloat16) lie inside.
    """
    tokens = context * concurrency
    wide = max((layer.feed_forward * max(layer.experts_used, 1) for layer in decoder.layers), default=0)
    low = bytes_of_number * tokens * (4 * decoder.hidden + 3 * wide)
    high = bytes_of_number * tokens * (9 * decoder.hidden + 6 * wide)
    if attention == "eager":
        heads = max((layer.attention.heads for layer in decoder.layers if layer.attention), default=0)
        scores = concurrency * heads * context * context
        low, high = max(low, 8 * scores), high + 13 * scores
    logits = 4 * concurrency * decoder.vocab
    return ByteInterval(low + logits, high + 3 * logits, "measured peaks of transformers 5.23 on a CPU, ten settings")
