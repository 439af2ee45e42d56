"""The nodes of multi-head latent attention in llama.cpp's graph (src/models/deepseek2.cpp, 2026)."""

from __future__ import annotations

from collections.abc import Callable

from quantwise.models.decoder import Attention
from quantwise.plan.llamacpp.model import Block
from quantwise.plan.llamacpp.nodes import Sketch
from quantwise.plan.llamacpp.replay import Node

Norm = Callable[[Node, bool], Node]


def latent_attention(sketch: Sketch, normed: Node, attention: Attention, block: Block, norm: Norm) -> Node:
    """Attention over compressed keys, which are their own values, (hidden, tokens)."""
    tokens, heads = normed.shape[1], attention.heads
    rank = block.shape("attn_kv_a_norm")[-1]
    turned = attention.latent - rank
    plain = block.shape("attn_k_b")[-1]
    if "attn_q_a" in block:
        asked = norm(sketch.matmul(block.rows("attn_q_a"), normed), True)
        query = sketch.matmul(block.rows("attn_q_b"), asked)
    else:
        query = sketch.matmul(block.rows("attn_q"), normed)
    each = plain + turned
    query = sketch.reshape(query, (each, heads, tokens, 1))
    both = sketch.matmul(rank + turned, normed)
    row = both.strides[1]
    key_turned = sketch.rope(sketch.view(both, (turned, 1, tokens, 1), (4, row, row, row * tokens)))
    squeezed = norm(sketch.view(both, (rank, tokens, 1, 1), (4, row, row * tokens, row * tokens)), True)
    query_turned = sketch.rope(sketch.view(query, (turned, heads, tokens, 1), query.strides))
    query_plain = sketch.permuted(sketch.view(query, (plain, heads, tokens, 1), query.strides))
    absorbed = sketch.permuted(sketch.matmul(rank, query_plain))
    asking = sketch.fresh("concat", (attention.latent, heads, tokens, 1), absorbed, query_turned)
    value = sketch.reshape(squeezed, (rank, 1, tokens, 1))
    key = sketch.fresh("concat", (attention.latent, 1, tokens, 1), value, key_turned)
    for node in (asking, value, key):
        sketch.graph.expand(node)
    sketch.store(key, None, attention)
    cells, streams = sketch.cells(attention), sketch.settings.streams
    keys = sketch.weight(attention.latent, 1, cells, streams)
    values = sketch.weight(rank, 1, cells, streams)
    if not sketch.settings.flash_attention:
        # Values are a view of the keys, turned over by a copy.
        values = sketch.fresh("cont", (cells, rank, 1, streams), values, width=2)
        values = sketch.view(values, (rank, cells, 1, streams))
    out = sketch.over_cache(asking, keys, values, attention, wide=block.rows("attn_v_b"))
    sketch.graph.expand(out)
    return sketch.matmul(sketch.decoder.hidden, out)
