"""The graph that llama.cpp computes of one decoder, as far as memory depends on it: shapes and the order of nodes.

After src/llama-graph.cpp and src/models/*.cpp (2026). The parts of a layer are told by the tensors that it has;
``KNOWN`` names the architectures whose graphs were compared with what llama.cpp reserves. Others get the graph that
their tensors suggest, which may differ from their own.
"""

from __future__ import annotations

from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.plan.constants import XLLAMACPP_2026_10, LlamacppBuild
from quantwise.plan.llamacpp.experts import experts
from quantwise.plan.llamacpp.latent import latent_attention
from quantwise.plan.llamacpp.model import Block, Blocks, as_llamacpp
from quantwise.plan.llamacpp.nodes import Sketch
from quantwise.plan.llamacpp.replay import Graph, Node
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.terms import Device

_LAYER_NORM = frozenset(
    {"starcoder2", "gptneox", "phi2", "olmo", "falcon", "gpt2", "mpt", "stablelm", "bloom", "command-r", "cohere2"}
)
_OUTPUTS_LAST = frozenset({"gpt-oss"})


def graph_of(
    decoder: Decoder,
    settings: LlamacppSettings,
    build: LlamacppBuild = XLLAMACPP_2026_10,
    *,
    device: Device = "cpu",
    blocks: Blocks | None = None,
) -> Graph:
    """The graph of the longest prompt that is computed at once; a GPU is given the embedding's rows.

    ``blocks`` are the decoder's, where they are known.
    """
    decoder = as_llamacpp(decoder)
    return _Walk(decoder, blocks or Blocks(decoder), Sketch(decoder, settings, build), device).graph


def host_graph(decoder: Decoder, settings: LlamacppSettings, build: LlamacppBuild = XLLAMACPP_2026_10) -> Graph:
    """What the processor keeps where a GPU computes all layers: the embedding's rows, and inputs to be copied."""
    sketch = Sketch(as_llamacpp(decoder), settings, build)
    sketch.embedding()
    for layer in decoder.layers:
        if layer.attention is not None:
            for node in sketch.cache_inputs(layer.attention):
                sketch.graph.expand(node)
    return sketch.graph


class _Walk:
    def __init__(self, decoder: Decoder, blocks: Blocks, sketch: Sketch, device: Device) -> None:
        self.decoder, self.blocks, self.sketch = decoder, blocks, sketch
        self.shapes, self.name = decoder.tensors, decoder.architecture
        self.graph = sketch.graph
        hidden = self.sketch.embedding() if device == "cpu" else self.sketch.copied_embedding()
        for layer in blocks.replayed:
            hidden = self._layer(hidden, layer, last=layer == blocks.replayed[-1])
        if self.name in _OUTPUTS_LAST:
            hidden = self.sketch.rows(hidden)
        hidden = self._norm(hidden, "output_norm.weight" in self.shapes, "output_norm.bias" in self.shapes)
        logits = self.sketch.matmul(decoder.vocab, hidden)
        if "output.bias" in self.shapes:
            logits = self.sketch.over("add", logits, self.sketch.weight(decoder.vocab))
        self.graph.expand(logits)

    def _norm(self, hidden: Node, weight: bool, bias: bool = False) -> Node:
        """Normalized; only what squares alone can be written over its input."""
        made = self.sketch.over("norm" if self.name in _LAYER_NORM else "rms_norm", hidden)
        if weight:
            made = self.sketch.over("mul", made, self.sketch.weight(hidden.shape[0]))
        return self.sketch.over("add", made, self.sketch.weight(hidden.shape[0])) if bias else made

    def _part_norm(self, hidden: Node, block: Block, part: str) -> Node:
        return self._norm(hidden, part in block, block.biased(part))

    def _layer(self, hidden: Node, layer: int, *, last: bool) -> Node:
        block, shape = self.blocks[layer], self.decoder.layers[layer]
        before = hidden
        normed = self._part_norm(hidden, block, "attn_norm") if self._norms_first(block) else hidden
        out = hidden
        if shape.attention is not None:
            out = self._attention(normed, shape.attention, block, layer)
        if last and self.name not in _OUTPUTS_LAST:
            out, before = self.sketch.rows(out), self.sketch.rows(before)
            if self._one_norm(block):
                normed = self.sketch.rows(normed)
        if self._one_norm(block) or self.name == "gptneox":
            read = normed if self._one_norm(block) else self._part_norm(before, block, "ffn_norm")
            fed = self._feed_forward(read, block, layer)
            if self.name == "phi2":
                return self._sum(self._sum(out, fed), before)
            return self._sum(self._sum(fed, before), out)
        around = "post_attention_norm" in block and ("ffn_norm" in block or "post_ffw_norm" in block)
        if around:
            out = self._part_norm(out, block, "post_attention_norm")
        middle = self._sum(out, before)
        fed = middle
        if "ffn_norm" in block or self.name == "olmo":
            fed = self._part_norm(middle, block, "ffn_norm")
        elif not around:
            fed = self._part_norm(middle, block, "post_attention_norm")
        fed = self._feed_forward(fed, block, layer)
        if "post_ffw_norm" in block:
            fed = self._part_norm(fed, block, "post_ffw_norm")
        # Which one is written over is the first.
        return self._sum(middle, fed) if self.name == "phi3" else self._sum(fed, middle)

    def _norms_first(self, block: Block) -> bool:
        return "attn_norm" in block or self.name == "olmo"

    def _one_norm(self, block: Block) -> bool:
        """Attention and feed-forward read the same normalized state."""
        return self.name != "olmo" and "ffn_norm" not in block and "post_attention_norm" not in block

    def _sum(self, one: Node, other: Node) -> Node:
        return self.sketch.over("add", one, other)

    def _attention(self, normed: Node, attention: Attention, block: Block, layer: int) -> Node:
        sketch = self.sketch
        if attention.latent:
            return latent_attention(sketch, normed, attention, block, self._norm)
        query, key, value = self._projected(normed, attention, block)
        query, key = sketch.rope(query), sketch.rope(key)
        out = sketch.attend(query, key, value, attention, softcap=self.name == "gemma2")
        out = sketch.matmul(self.decoder.hidden, out)
        if block.biased("attn_output"):
            out = sketch.over("add", out, sketch.weight(self.decoder.hidden))
        return out

    def _projected(self, normed: Node, attention: Attention, block: Block) -> tuple[Node, Node, Node]:
        """Queries, keys and values, (dim, heads, tokens, 1)."""
        sketch, heads, kv = self.sketch, attention.heads, attention.kv_heads
        widths = [(attention.key_dim, heads), (attention.key_dim, kv), (attention.value_dim, kv)]
        if "attn_qkv" in block:
            joined = sketch.matmul(block.rows("attn_qkv"), normed)
            if block.biased("attn_qkv"):
                joined = sketch.over("add", joined, sketch.weight(joined.shape[0]))
            query, key, value = (sketch.slice(joined, dim, n) for dim, n in widths)
            return query, key, value
        made = []
        for part, (dim, n) in zip(("attn_q", "attn_k", "attn_v"), widths, strict=True):
            one = sketch.matmul(dim * n, normed)
            if block.biased(part):
                one = sketch.over("add", one, sketch.weight(dim * n))
            norm = f"{part}_norm"
            if norm in block and block.shape(norm)[-1] == dim * n and n > 1:
                one = self._norm(one, weight=True)
            one = sketch.reshape(one, (dim, n, normed.shape[1], 1))
            if norm in block and (block.shape(norm)[-1] != dim * n or n == 1):
                one = self._norm(one, weight=True)
            made.append(one)
        return made[0], made[1], made[2]

    def _feed_forward(self, hidden: Node, block: Block, layer: int) -> Node:
        shape = self.decoder.layers[layer]
        if "ffn_gate_inp" not in block or not any(part in block for part in ("ffn_up_exps", "ffn_gate_up_exps")):
            return self._dense(hidden, block, "") if "ffn_up" in block else self._unnamed(hidden, shape)
        out = experts(self.sketch, hidden, shape, block, self.name)
        if "ffn_up_shexp" not in block:
            return out
        gate = None
        if "ffn_gate_inp_shexp" in block:
            asked = self.sketch.matmul(1, hidden)
            gate = self.sketch.over("div", self.sketch.over("unary", asked), asked)
        shared = self._dense(hidden, block, "_shexp")
        return self._sum(out, self.sketch.over("mul", shared, gate) if gate else shared)

    def _unnamed(self, hidden: Node, shape: Layer) -> Node:
        """A gated feed-forward layer of the width that is known, where the tensors have names of their own."""
        width = shape.feed_forward * max(shape.experts_used, 1)
        if not width:
            return hidden
        gate, up = self.sketch.matmul(width, hidden), self.sketch.matmul(width, hidden)
        return self.sketch.matmul(self.decoder.hidden, self.sketch.fresh("glu", gate.shape, gate, up))

    def _dense(self, hidden: Node, block: Block, suffix: str) -> Node:
        sketch = self.sketch
        width = block.rows(f"ffn_up{suffix}")
        up = self._biased(sketch.matmul(width, hidden), block, f"ffn_up{suffix}")
        if f"ffn_gate{suffix}" in block:
            gate = self._biased(sketch.matmul(width, hidden), block, f"ffn_gate{suffix}")
            inner = sketch.fresh("glu", gate.shape, gate, up)
        elif width == 2 * block.shape(f"ffn_down{suffix}")[-1]:
            inner = sketch.fresh("glu", (width // 2, *up.shape[1:]), up)
        else:
            inner = sketch.over("unary", up)
        return self._biased(sketch.matmul(block.rows(f"ffn_down{suffix}"), inner), block, f"ffn_down{suffix}")

    def _biased(self, made: Node, block: Block, part: str) -> Node:
        return self.sketch.over("add", made, self.sketch.weight(made.shape[0])) if block.biased(part) else made
