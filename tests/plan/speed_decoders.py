"""Decoders of Llama's kind, written by hand: shapes only; and loads of them."""

from __future__ import annotations

import math

from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.plan.speed import ServedDecoder
from quantwise.plan.work import scaled, work_of


def llama(
    layers: int = 32,
    hidden: int = 4096,
    heads: int = 32,
    kv_heads: int = 8,
    wide: int = 14336,
    vocab: int = 128256,
    *,
    tied: bool = False,
) -> Decoder:
    """Llama 3.1 8B unless said otherwise."""
    width = hidden // heads
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not tied:
        tensors["lm_head.weight"] = (vocab, hidden)
    for i in range(layers):
        at = f"model.layers.{i}"
        tensors |= {
            f"{at}.self_attn.q_proj.weight": (hidden, hidden),
            f"{at}.self_attn.k_proj.weight": (kv_heads * width, hidden),
            f"{at}.self_attn.v_proj.weight": (kv_heads * width, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.mlp.gate_proj.weight": (wide, hidden),
            f"{at}.mlp.up_proj.weight": (wide, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, wide),
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.post_attention_layernorm.weight": (hidden,),
        }
    attention = Attention(heads, kv_heads, width, width)
    return Decoder(
        "llama", "LlamaForCausalLM", hidden, vocab, 131072, tied, (Layer(attention, wide),) * layers, tensors, {}
    )


def mixture(experts: int = 8, used: int = 2) -> Decoder:
    """A small mixture of experts: 2 layers of hidden 64, experts 128 wide."""
    dense = llama(2, 64, 4, 2, 128, 1000)
    tensors = {name: shape for name, shape in dense.tensors.items() if ".mlp." not in name}
    for i in range(2):
        tensors[f"model.layers.{i}.mlp.gate.weight"] = (experts, 64)
        for e in range(experts):
            at = f"model.layers.{i}.mlp.experts.{e}"
            tensors |= {f"{at}.{n}_proj.weight": (128, 64) for n in ("gate", "up")}
            tensors[f"{at}.down_proj.weight"] = (64, 128)
    layer = Layer(Attention(4, 2, 16, 16), 128, experts=experts, experts_used=used)
    return Decoder("mixture", "MixtralForCausalLM", 64, 1000, 4096, False, (layer,) * 2, tensors, {})


def in_bits(decoder: Decoder, bits: float) -> dict[str, int]:
    """Bytes of each tensor where every number takes ``bits``."""
    return {name: int(math.prod(shape) * bits / 8) for name, shape in decoder.tensors.items()}


def served_of(
    decoder: Decoder, weights_bytes: int, multiplied: str, context: int, cache_bytes: float = 2.0
) -> ServedDecoder:
    """A served decoder of which only the sum of its bytes is known."""
    work = work_of(decoder)
    return ServedDecoder(decoder, work, scaled(work, weights_bytes), multiplied, context, cache_bytes)
