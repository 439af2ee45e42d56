"""What one token costs a decoder: weights that are read and multiplied, and what attention adds. Counts, no times.

A matrix of ``rows x columns`` multiplies one token in ``2 * rows * columns`` operations (Kaplan et al.,
arXiv 2001.08361, section 2.1). Attention adds, a layer and query head, ``2 * (key_dim + value_dim)`` for each token
that it sees. The embedding is looked up, not multiplied, except where it is the output matrix too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from quantwise.models.decoder import Attention, Decoder
from quantwise.models.tensor_table import TensorTable

_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|token_embd)\.weight$")
_POSITIONS = re.compile(r"(^|\.)(embed_positions|wpe)\.weight$|^position_embd\.weight$")
# One expert of several; shared experts (`shared_expert`, `_shexp`), which every token passes through, are not.
_EXPERT = re.compile(r"\.experts?(\.|_)|_exps\.|block_sparse_moe\.experts\.")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|blk)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Work:
    """Weights by what a token does with them, as counts of numbers.

    ``dense`` are multiplied by every token; ``expert`` are all weights of all experts, of which a token passes
    through the share ``used``; ``looked_up`` are read a row at a time.
    """

    dense: int
    expert: int
    used: float
    looked_up: int

    @property
    def total(self) -> int:
        """All weights."""
        return self.dense + self.expert + self.looked_up

    @property
    def active(self) -> int:
        """Weights that one token is multiplied by."""
        return self.dense + round(self.used * self.expert)

    def touched(self, batch: int) -> float:
        """Share of the experts that a batch of tokens reads, if each token chose evenly and by itself."""
        return float(1 - (1 - self.used) ** batch)


def work_of(decoder: Decoder) -> Work:
    """The weights of a decoder, from its tensor table."""
    return _sorted(decoder, {row.name: row.numbers for row in TensorTable.of(decoder.tensors).rows})


def bytes_of(decoder: Decoder, stored: Mapping[str, int]) -> Work:
    """The same in bytes; ``stored`` gives the bytes of each tensor, by the decoder's names, or of all experts by the
    first one's.
    """
    return _sorted(decoder, stored)


def scaled(work: Work, weights_bytes: int) -> Work:
    """Bytes where only their sum is known: every weight is taken to have the same size."""
    share = weights_bytes / max(1, work.total)
    dense, expert = round(work.dense * share), round(work.expert * share)
    return Work(dense, expert, work.used, weights_bytes - dense - expert)


def attention_operations(decoder: Decoder, context: int, *, absorbed: bool = True) -> int:
    """Operations of one token's attention over the ``context`` tokens before it, all layers.

    Sliding layers see their window. Latent attention that decodes from the latent itself (``absorbed``, DeepSeek-V2,
    arXiv 2405.04434) multiplies it twice a head; in a prompt it is expanded to keys and values first.
    """
    total = 0
    for layer in decoder.layers:
        if (kind := layer.attention) is not None:
            width = 2 * kind.latent if kind.latent and absorbed else kind.key_dim + kind.value_dim
            total += 2 * kind.heads * width * _seen(kind, context)
    return total


def head_tokens(decoder: Decoder, context: int) -> int:
    """Query heads times the tokens that each sees, all layers."""
    kinds = [layer.attention for layer in decoder.layers if layer.attention is not None]
    return sum(kind.heads * _seen(kind, context) for kind in kinds)


def cache_numbers(decoder: Decoder, context: int) -> int:
    """Numbers of the cache that one token reads after ``context`` tokens, all layers.

    Layers that share the cache of another read it too. What a recurrent layer keeps is counted once.
    """
    total = 0
    for layer in decoder.layers:
        total += layer.state
        if (kind := layer.attention) is not None:
            width = kind.latent or kind.kv_heads * (kind.key_dim + kind.value_dim)
            total += width * _seen(kind, context)
    return total


def _seen(kind: Attention, context: int) -> int:
    return context if kind.window is None else min(context, kind.window)


def share_read(decoder: Decoder, name: str) -> float:
    """The share of a tensor that one token reads: 0 where it is looked up, less than 1 where experts share it."""
    if _POSITIONS.search(name) or (_EMBEDDING.search(name) and (_has_output(decoder) or not decoder.tied)):
        return 0.0
    share = _expert_share(decoder, name) if _EXPERT.search(name) else None
    return 1.0 if share is None else share


def _sorted(decoder: Decoder, amounts: Mapping[str, int]) -> Work:
    dense = expert = looked_up = 0
    used_amount = 0.0
    for name, amount in amounts.items():
        share = share_read(decoder, name)
        if share == 0:
            looked_up += amount
        elif share < 1:
            expert += amount
            used_amount += share * amount
        else:
            dense += amount
    return Work(dense, expert, used_amount / expert if expert else 0.0, looked_up)


def _has_output(decoder: Decoder) -> bool:
    return any(name in decoder.tensors for name in ("lm_head.weight", "output.weight", "embed_out.weight"))


def _expert_share(decoder: Decoder, name: str) -> float | None:
    """The share of its layer's experts that a token passes through; None where the layer has none."""
    found = _LAYER.search(name)
    if found is None or int(found.group(1)) >= len(decoder.layers):
        return None
    layer = decoder.layers[int(found.group(1))]
    return layer.experts_used / layer.experts if layer.experts else None
