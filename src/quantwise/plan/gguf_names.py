"""The tensors of a decoder under the names of a GGUF file, on which the choice of types depends.

Where ``formats.gguf.architectures`` knows the class its table is used. Latent attention and experts that lie in one
tensor are rearranged as llama.cpp's converter does (conversion/*.py, 2026); other names stay as they are, and then take
the main type of a mix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quantwise.formats.gguf.architectures import USUAL, architecture_of_class
from quantwise.formats.gguf.layout import targets
from quantwise.models.decoder import Attention, Decoder

_BLOCK = re.compile(r"model\.layers\.(\d+)\.(.+)")
# Within a block: what stays one tensor under another name.
_RENAMED: Mapping[str, str] = {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "mlp.router": "ffn_gate_inp",
    "feed_forward.router": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "feed_forward.shared_expert.gate_proj": "ffn_gate_shexp",
    "feed_forward.shared_expert.up_proj": "ffn_up_shexp",
    "feed_forward.shared_expert.down_proj": "ffn_down_shexp",
    "feed_forward.gate_proj": "ffn_gate",
    "feed_forward.up_proj": "ffn_up",
    "feed_forward.down_proj": "ffn_down",
}
_ARCHITECTURES = {"GptOssForCausalLM": "gpt-oss", "DeepseekV2ForCausalLM": "deepseek2",
                  "DeepseekV3ForCausalLM": "deepseek2", "Llama4ForConditionalGeneration": "llama4"}  # fmt: skip

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class GgufTable:
    """``architecture`` is llama.cpp's name, ``shapes`` as GGUF counts them, slowest first."""

    architecture: str
    shapes: Shapes


def gguf_table(decoder: Decoder) -> GgufTable:
    """The tensors of the GGUF file that would be made of a decoder; of one that was read from a file, the file's."""
    if "token_embd.weight" in decoder.tensors:
        return GgufTable(decoder.architecture, decoder.tensors)
    known = architecture_of_class(decoder.architecture)
    layout = known or USUAL
    shapes = dict(decoder.tensors) if known else dict(_rearranged(decoder))
    placed = {name: shape for name, shape in shapes.items() if name.startswith("blk.")}
    tied = decoder.tied or layout.output == "tied"
    others = {name: shape for name, shape in shapes.items() if name not in placed}
    made = {t.name: t.shape for t in targets(others, layout, tied=tied, strict=False)} | placed
    return GgufTable(known.name if known else _ARCHITECTURES.get(decoder.architecture, "other"), made)


def _rearranged(decoder: Decoder) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, shape in decoder.tensors.items():
        inside = _BLOCK.fullmatch(name)
        if inside is None:
            yield name, shape
            continue
        number, path = int(inside[1]), inside[2]
        module, _, suffix = path.rpartition(".")
        before = f"blk.{number}."
        attention = decoder.layers[number].attention if number < len(decoder.layers) else None
        if module == "self_attn.kv_b_proj" and attention is not None and attention.latent:
            yield from _split_latent(before, shape, attention)
        elif path.startswith(("mlp.experts.", "feed_forward.experts.")) and suffix != "weight":
            yield from _split_experts(before, suffix, shape)
        elif module in _RENAMED:
            yield f"{before}{_RENAMED[module]}.{suffix}", shape
        elif path == "self_attn.sinks":
            yield f"{before}attn_sinks.weight", shape
        elif path == "mlp.gate.e_score_correction_bias":
            yield f"{before}exp_probs_b.bias", shape
        else:
            yield name, shape


def _split_latent(before: str, shape: tuple[int, ...], attention: Attention) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(heads * (key + value), rank) becomes keys (heads, rank, key), transposed, and values (heads, value, rank)."""
    heads, rank = attention.heads, shape[1]
    value = attention.value_dim
    yield f"{before}attn_k_b.weight", (heads, rank, shape[0] // heads - value)
    yield f"{before}attn_v_b.weight", (heads, value, rank)


def _split_experts(before: str, part: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Experts of (experts, in, out), gate and up beside each other, become (experts, out, in) each."""
    biased = part.endswith("_bias")
    suffix = "bias" if biased else "weight"
    turned = shape if biased else (shape[0], shape[2], shape[1])
    if part.startswith("gate_up_proj"):
        half = (turned[0], turned[1] // 2, *turned[2:])
        yield f"{before}ffn_gate_exps.{suffix}", half
        yield f"{before}ffn_up_exps.{suffix}", half
    else:
        yield f"{before}ffn_down_exps.{suffix}", turned
