"""Which tensors of a Hugging Face folder become which tensors of a GGUF file, in which ggml type and order of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quantwise.core.artifact import Degradation
from quantwise.core.errors import InputError
from quantwise.formats.gguf.architectures import gguf_architecture
from quantwise.formats.gguf.layout import Target, expert_count, targets
from quantwise.formats.gguf.mixes import GGML_BLOCKS, MixedModel, ggml_types
from quantwise.formats.gguf.parameters import gguf_parameters, kv_heads, number
from quantwise.formats.safetensors_header import TensorEntry

Rows = npt.NDArray[Any]
# Columns that split into every block.
FITS_ALL = 256


def require_gguf(entries: Mapping[str, TensorEntry], config: Mapping[str, Any]) -> None:
    """Raise InputError where a graph of llama.cpp does not compute as this model does."""
    gguf_parameters(config, expert_count(layout(entries, config)))


def layout(entries: Mapping[str, TensorEntry], config: Mapping[str, Any]) -> list[Target]:
    """The tensors that the file will hold. Raises InputError where one has no place, or one that is due is missing."""
    architecture = gguf_architecture(config)
    tied = architecture.output == "tied" or bool(config.get("tie_word_embeddings"))
    made = targets({name: entry.shape for name, entry in entries.items()}, architecture, tied=tied)
    if architecture.needs_biases:
        names = {target.name for target in made}
        for target in made:
            bias = f"{target.name.rpartition('.')[0]}.bias"
            if target.part in architecture.biases and bias not in names:
                raise InputError(
                    f"llama.cpp's {architecture.name} wants {bias}, which this model lacks; use transformers"
                )
    return made


def placed(entries: Mapping[str, TensorEntry], config: Mapping[str, Any]) -> dict[str, str]:
    """The GGUF name of every tensor that the file will hold, by its name in the folder; experts share one."""
    return {source: target.name for target in layout(entries, config) for source in target.sources}


def types_in(
    entries: Mapping[str, TensorEntry], config: Mapping[str, Any], mix: str, *, importance: bool = False
) -> dict[str, str]:
    """The ggml type that llama-quantize gives every tensor of a folder, by its name in the folder."""
    made = layout(entries, config)
    types = ggml_types({t.name: t.shape for t in made}, mix, _mixed_model(config, made), importance=importance)
    return {source: types[target.name] for target in made for source in target.sources}


def retreats(
    entries: Mapping[str, TensorEntry], config: Mapping[str, Any], mix: str, types: Mapping[str, str]
) -> tuple[Degradation, ...]:
    """Matrices that took another of ``types`` than the mix wants, because their rows do not split into its blocks."""
    made = layout(entries, config)
    wide = {target.name: (*target.shape[:-1], FITS_ALL) for target in made if len(target.shape) > 1}
    wanted = ggml_types(wide, mix, _mixed_model(config, made))
    found = []
    for target in made:
        block = GGML_BLOCKS[wanted.get(target.name, "f32")][0]
        columns, kind = target.shape[-1], types[target.sources[0]]
        if columns % block and kind != wanted[target.name]:
            what = f"rows of {columns} are no multiple of {block}: {kind} in place of {wanted[target.name]}"
            found.append(Degradation(target.name, what))
    return tuple(found)


def _mixed_model(config: Mapping[str, Any], made: Sequence[Target]) -> MixedModel:
    per_kv = number(config, "num_attention_heads") // kv_heads(config)
    return MixedModel(number(config, "num_hidden_layers"), per_kv, expert_count(made), gguf_architecture(config).name)


def arrange(target: Target, values: Rows, config: Mapping[str, Any]) -> Rows:
    """Rows, (rows, anything), as llama.cpp wants them: values, or the bytes that rows were encoded to.

    Hugging Face rotates dimension i of a head with i + head_dim / 2, some graphs of llama.cpp rotate neighbours: there
    the rows of q and k, (heads, 2, head_dim / 2), become (heads, head_dim / 2, 2). GPT-NeoX keeps a head's query, key
    and value together, (heads, 3, head_dim), where llama.cpp wants (3, heads, head_dim).
    """
    architecture = gguf_architecture(config)
    if target.part.endswith("_norm") and architecture.norm_offset:
        return values + np.float32(architecture.norm_offset)
    heads = number(config, "num_attention_heads")
    if architecture.fused_by_head and target.part == "attn_qkv":
        return _exchanged(values, (heads, 3), 0)
    if architecture.rope == "neighbours" and target.part in ("attn_q", "attn_k"):
        return _exchanged(values, (heads if target.part == "attn_q" else kv_heads(config), 2), 1)
    return values.reshape(target.shape) if len(target.shape) == 1 else values


def restored(target: Target, values: npt.NDArray[np.float32], config: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Decoded values of one matrix or norm in the folder's order: what ``arrange`` made of them is undone."""
    architecture = gguf_architecture(config)
    if target.part.endswith("_norm") and architecture.norm_offset:
        return values - np.float32(architecture.norm_offset)
    heads = number(config, "num_attention_heads")
    if architecture.fused_by_head and target.part == "attn_qkv":
        return _exchanged(values, (3, heads), 0)
    if architecture.rope == "neighbours" and target.part in ("attn_q", "attn_k"):
        count = heads if target.part == "attn_q" else kv_heads(config)
        return _exchanged(values, (count, values.shape[0] // count // 2), 1)
    return values


def _exchanged(values: Rows, outer: tuple[int, int], axis: int) -> Rows:
    """Rows split to (*outer, rest), and ``axis`` exchanged with the next."""
    split = values.reshape(*outer, values.shape[0] // outer[0] // outer[1], *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(axis, axis + 1).reshape(values.shape))
