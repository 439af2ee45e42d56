"""The tensors of a decoder under the names of a GGUF file, on which the choice of types depends.

Where ``formats.gguf.architectures`` knows the class its table is used. Latent attention and experts that lie in one
tensor are rearranged as llama.cpp's converter does (conversion/*.py, 2026); other names stay as they are, and then take
the main type of a mix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from quantwise.core.errors import InputError
from quantwise.formats.gguf.architectures import USUAL, architecture_of_class
from quantwise.formats.gguf.layout import targets
from quantwise.models.decoder import Attention, Decoder
from quantwise.models.tensor_table import Alike, TensorTable, first_expert

_BLOCK = re.compile(r"model\.layers\.(\d+)\.(.+)")
# Within a block: what stays one tensor under another name.
_RENAMED: Mapping[str, str] = {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "mlp.router": "ffn_gate_inp",
    "router.proj": "ffn_gate_inp",
    "block_sparse_moe.router.layer": "ffn_gate_inp",
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
# Experts that lie in one tensor as (experts, out, in).
_OUT_FIRST = {"experts.gate_up_proj": "gate_up_proj", "experts.down_proj": "down_proj",
              "block_sparse_moe.input_linear.weight": "gate_up_proj",
              "block_sparse_moe.output_linear.weight": "down_proj"}  # fmt: skip
_ARCHITECTURES = {"GptOssForCausalLM": "gpt-oss", "DeepseekV2ForCausalLM": "deepseek2",
                  "DeepseekV3ForCausalLM": "deepseek2", "Llama4ForConditionalGeneration": "llama4"}  # fmt: skip

# The language model within a model of several modalities; llama.cpp keeps the rest in a file of its own (mmproj).
_TEXT_OF = {
    "Gemma3ForConditionalGeneration": "Gemma3ForCausalLM",
    "Mistral3ForConditionalGeneration": "MistralForCausalLM",
}
_TEXT_PREFIXES = ("language_model.", "model.language_model.")
# Graphs of llama.cpp beside those of ``formats.gguf.architectures`` that look back no further than a window.
_SLIDING = ("Cohere2ForCausalLM", "Exaone4ForCausalLM", "Gemma4ForCausalLM", "Gemma4ForConditionalGeneration",
            "GptOssForCausalLM", "Llama4ForCausalLM", "Llama4ForConditionalGeneration", "Olmo3ForCausalLM")  # fmt: skip

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class GgufTable:
    """``architecture`` is llama.cpp's name, ``shapes`` as GGUF counts them, slowest first."""

    architecture: str
    shapes: Shapes


_MADE: list[tuple[Decoder, GgufTable]] = []
"""The last decoders asked for, which are compared by identity: a plan asks for the same one again and again."""
_KEPT = 16


def gguf_table(decoder: Decoder) -> GgufTable:
    """The tensors of the GGUF file that would be made of a decoder; of one that was read from a file, the file's."""
    known = next((table for one, table in _MADE if one is decoder), None)
    if known is None:
        known = _made(decoder)
        _MADE.append((decoder, known))
        del _MADE[:-_KEPT]
    return known


def _made(decoder: Decoder) -> GgufTable:
    if "token_embd.weight" in decoder.tensors:
        return GgufTable(decoder.architecture, decoder.tensors)
    decoder = language_part(decoder)
    known = architecture_of_class(decoder.architecture)
    layout = known or USUAL
    one, counts = _one_expert(decoder.tensors)
    shapes = one if known else dict(_rearranged(replace(decoder, tensors=one)))
    placed = {name: shape for name, shape in shapes.items() if name.startswith("blk.")}
    tied = decoder.tied or layout.output == "tied"
    others = {name: shape for name, shape in shapes.items() if name not in placed}
    made = {}
    for target in targets(others, layout, tied=tied, strict=False):
        count, inner = counts.get(target.sources[0]), target.shape[1:] if target.stacked else target.shape
        made[target.name] = target.shape if count is None else (count, *inner)
    made |= placed
    return GgufTable(known.name if known else _ARCHITECTURES.get(decoder.architecture, "other"), made)


def _one_expert(tensors: Shapes) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """The tensors with the first expert alone of each kind, and how many experts there are by its name: a file holds
    them in one tensor. Raises InputError where they are not complete.
    """
    kept: dict[str, tuple[int, ...]] = {}
    counts: dict[str, int] = {}
    for row in TensorTable.of(tensors).rows:
        first = first_expert(row.name)
        if first is None:
            kept[row.name] = row.shape
            continue
        kept.setdefault(first, row.shape)
        counts[first] = counts.get(first, 0) + row.count
        if kept[first] != row.shape:
            before = row.name.partition(".experts.")[0]
            raise InputError(f"the experts of {before} are not of one shape; download the missing shards")
    if len(set(counts.values())) > 1:
        raise InputError("some experts are missing; download the missing shards")
    return kept, counts


def language_part(decoder: Decoder) -> Decoder:
    """The decoder without a vision or audio part beside it, under the names of a model that never had one."""
    inner = []
    for row in TensorTable.of(decoder.tensors).rows:
        prefix = next((prefix for prefix in _TEXT_PREFIXES if row.name.startswith(prefix)), None)
        if prefix is not None:
            plain = row.name.removeprefix(prefix)
            inner.append(Alike(f"model.{plain}" if prefix.startswith("model.") else plain, row.shape, row.count))
    if inner and "lm_head.weight" in decoder.tensors:
        inner.append(Alike("lm_head.weight", decoder.tensors["lm_head.weight"]))
    tensors = TensorTable(inner) if inner else decoder.tensors
    return replace(decoder, architecture=language_class(decoder), tensors=tensors, stored={})


def language_class(decoder: Decoder) -> str:
    """The class in Transformers of the language model in a decoder."""
    return _TEXT_OF.get(decoder.architecture, decoder.architecture)


def as_llamacpp_attends(decoder: Decoder) -> Decoder:
    """The decoder with the windows that llama.cpp's graph has, which looks at everything in some models that were
    trained with a window (Mistral 7B v0.1, Phi 3, StarCoder 2).
    """
    known = architecture_of_class(language_class(decoder))
    slides = known.sliding if known is not None else decoder.architecture in _SLIDING
    if slides or "token_embd.weight" in decoder.tensors:
        return decoder
    layers = tuple(
        replace(layer, attention=replace(layer.attention, window=None)) if layer.attention is not None else layer
        for layer in decoder.layers
    )
    return replace(decoder, layers=layers)


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
        elif path in _OUT_FIRST:
            yield from _split_experts(before, _OUT_FIRST[path], (shape[0], shape[2], shape[1]))
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
