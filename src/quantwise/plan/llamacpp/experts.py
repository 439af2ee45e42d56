"""The nodes of a mixture of experts in llama.cpp's graph (``build_moe_ffn`` of src/llama-graph.cpp, 2026)."""

from __future__ import annotations

from quantwise.models.decoder import Layer
from quantwise.plan.llamacpp.model import Block
from quantwise.plan.llamacpp.nodes import Sketch
from quantwise.plan.llamacpp.replay import Node

# Shares of the chosen experts are not brought to a sum of one.
_UNNORMED = frozenset({"qwen2moe", "olmoe", "gpt-oss", "deepseek2"})


def experts(sketch: Sketch, hidden: Node, layer: Layer, block: Block, name: str) -> Node:
    """What the chosen experts say, summed, (hidden, tokens)."""
    tokens, count, used = hidden.shape[1], layer.experts, layer.experts_used
    scores = sketch.matmul(count, hidden)
    if block.biased("ffn_gate_inp"):
        scores = sketch.over("add", scores, sketch.weight(count))
    late = name == "gpt-oss"
    shares = scores if late else sketch.over("soft_max", scores)
    ranked_by = shares
    if block.biased("exp_probs_b"):
        ranked_by = sketch.over("add", shares, sketch.weight(count))
    order = sketch.fresh("argsort", ranked_by.shape, ranked_by)
    chosen = sketch.view(order, (used, tokens, 1, 1), order.strides)
    weights = sketch.fresh("get_rows", (1, used, tokens, 1), sketch.reshape(shares, (1, count, tokens, 1)), chosen)
    if late:
        weights = sketch.over("soft_max", sketch.reshape(weights, (used, tokens, 1, 1)))
        weights = sketch.reshape(weights, (1, used, tokens, 1))
    if name not in _UNNORMED:
        flat = sketch.reshape(weights, (used, tokens, 1, 1))
        total = sketch.over("clamp", sketch.fresh("sum_rows", (1, tokens, 1, 1), flat))
        weights = sketch.reshape(sketch.over("div", flat, total), (1, used, tokens, 1))
    sketch.graph.expand(weights)
    return _summed(sketch, _each(sketch, hidden, chosen, block, used), weights, used)


def _each(sketch: Sketch, hidden: Node, chosen: Node, block: Block, used: int) -> Node:
    """Outputs of every chosen expert, (hidden, used, tokens)."""
    tokens = hidden.shape[1]
    given = sketch.reshape(hidden, (hidden.shape[0], 1, tokens, 1))

    def apply(part: str, to: Node) -> Node:
        weight = sketch.weight(*reversed(block.shape(part)))
        made = sketch.fresh("mul_mat_id", (block.rows(part), used, tokens, 1), weight, to, chosen)
        return sketch.over("add_id", made, sketch.weight(1), chosen) if block.biased(part) else made

    if "ffn_gate_up_exps" in block:
        both = apply("ffn_gate_up_exps", given)
        half = (both.shape[0] // 2, *both.shape[1:])
        gate, up = (sketch.view(both, half, both.strides) for _ in range(2))
    else:
        up = apply("ffn_up_exps", given)
        gate = apply("ffn_gate_exps", given)
    return apply("ffn_down_exps", sketch.fresh("glu", gate.shape, gate, up))


def _summed(sketch: Sketch, outputs: Node, weights: Node, used: int) -> Node:
    outputs = sketch.over("mul", outputs, weights)
    sketch.graph.expand(outputs)
    wide, _, tokens, _ = outputs.shape
    stride = outputs.strides[2]
    parts = [
        sketch.view(outputs, (wide, tokens, 1, 1), (4, stride, stride * tokens, stride * tokens)) for _ in range(used)
    ]
    for part in parts:
        sketch.graph.expand(part)
    total = parts[0]
    for part in parts[1:]:
        total = sketch.over("add", total, part)
        sketch.graph.expand(total)
    return sketch.fresh("cont", total.shape, total) if used == 1 else total
