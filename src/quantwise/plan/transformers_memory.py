"""What Transformers keeps beside the weights: a cache that grows with the text, and the activations of a prompt."""

from __future__ import annotations

from typing import Literal

from quantwise.models.decoder import Attention, Decoder
from quantwise.plan.constants import TRANSFORMERS_PROCESS, Interval
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
) -> Interval:
    """Bytes while a prompt of ``context`` tokens is computed for ``concurrency`` texts at once.

    Live at the peak of a layer are three to eight hidden states and two to three feed-forward states, and, if
    ``eager``, the scores of all heads with their softmax in 32 bit. Logits are those of the last token. Nobody has
    fitted this interval to measurements yet.
    """
    tokens = context * concurrency
    wide = max((layer.feed_forward * max(layer.experts_used, 1) for layer in decoder.layers), default=0)
    scores = 0
    if attention == "eager":
        heads = max((layer.attention.heads for layer in decoder.layers if layer.attention), default=0)
        scores = concurrency * heads * context * context
    logits = 4 * concurrency * decoder.vocab
    low = bytes_of_number * tokens * (3 * decoder.hidden + 2 * wide) + bytes_of_number * scores + logits
    high = bytes_of_number * tokens * (8 * decoder.hidden + 3 * wide) + (4 + 2 * bytes_of_number) * scores + 3 * logits
    return Interval(low, high, "tensors alive in a decoder layer of transformers 5; not measured")


def transformers_process() -> Interval:
    """The process before a model is loaded."""
    return TRANSFORMERS_PROCESS
