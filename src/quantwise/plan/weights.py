"""Bytes of weights: of a scheme before it is built, of a file that is there, and of a folder once it is expanded.

Sums over the tensor table, never parameters times nominal bits: files are mixes, and embeddings weigh a lot in small
models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from quantwise.core.errors import InputError
from quantwise.core.recipe import Recipe
from quantwise.core.scheme import Scheme
from quantwise.formats.gguf.header import GgufHeader
from quantwise.formats.gguf.mixes import MixedModel, fitting, ggml_types, tensor_bytes
from quantwise.formats.safetensors_header import TensorEntry
from quantwise.models.config import ModelShape

# A layer's matrices as GGUF calls them (the gguf package's table, for the names that Llama and its like use).
_GGUF_PARTS = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate",
    "up_proj": "ffn_up", "down_proj": "ffn_down", "w1": "ffn_gate", "w2": "ffn_down", "w3": "ffn_up",
    "qkv_proj": "attn_qkv", "query_key_value": "attn_qkv", "gate": "ffn_gate_inp",
}  # fmt: skip
_IN_LAYER = re.compile(r"(?:.*\.)?layers\.(\d+)\.(?:.*?experts\.(\d+)\.)?.*?([^.]+)\.weight")
_LAYER_MATRIX = re.compile(r"(^|\.)layers\.\d+\..*\.weight")
_FLOATS = ("F64", "F32", "F16", "BF16")
# An int64 pair that compressed-tensors keeps beside every packed matrix.
_SHAPE_BYTES = 16


def scheme_bytes(
    entries: Mapping[str, TensorEntry], scheme: Scheme, shape: ModelShape, *, importance: bool = False
) -> int:
    """Bytes of tensor data that ``scheme`` will store of a model's tensors (``safetensors_header.read_folder``).

    Integer schemes fill the matrices of the decoder's layers; what does not split into their groups, embeddings and
    norms stay in 16 bit. ggml schemes fill every matrix as llama-quantize does (``formats.gguf.mixes``; ``importance``
    as there) and keep vectors in 32 bit; a tied output matrix is stored once.
    """
    if scheme.format == "gguf":
        return _gguf_bytes(entries, scheme.name, shape, importance)
    if scheme.kind == "float":
        return sixteen_bit_bytes(entries)
    return sum(_integer_bytes(entry, scheme) for entry in entries.values())


def recipe_bytes(entries: Mapping[str, TensorEntry], recipe: Recipe, shape: ModelShape) -> int:
    """Bytes of tensor data that ``recipe`` will store; of ``auto`` the most that its budget allows.

    A budget is spent but for a remainder below the step from one type of one matrix to the next; a budget in bytes
    holds the whole file, header and tokenizer too. Raises InputError where it is below the smallest mix.
    """
    if recipe.budget is None:
        return scheme_bytes(entries, recipe.scheme, shape, importance=recipe.quantizer == "imatrix")
    stored = _in_gguf(entries, shape)
    least, most = (_all_bytes(stored, kind) for kind in ("q2_k", "q8_0"))
    weights = sum(map(math.prod, stored.values()))
    allowed = recipe.budget.bytes or int((recipe.budget.bits_per_weight or 0.0) * weights / 8)
    if allowed < least:
        need = f"{least} bytes" if recipe.budget.bytes else f"{8 * least / weights:.3f} bits per weight"
        raise InputError(f"{recipe.name} is too small a budget; the smallest mix of this model takes {need}")
    return min(allowed, most)


def sixteen_bit_bytes(entries: Mapping[str, TensorEntry]) -> int:
    """Bytes of the tensors with every floating-point number in 16 bit."""
    return sum(_sixteen(entry) for entry in entries.values())


def stored_bytes(header: GgufHeader) -> int:
    """Bytes of tensor data in a GGUF file, from its header."""
    return sum(tensor.bytes for tensor in header.tensors)


def expanded_bytes(entries: Mapping[str, TensorEntry], shape: ModelShape) -> int | None:
    """Bytes of a folder once Transformers has expanded it to 16 bit; None where the count of weights is unknown."""
    if not shape.quantized:
        return sixteen_bit_bytes(entries)
    return None if shape.parameters is None else 2 * shape.parameters


def check_shapes(entries: Mapping[str, TensorEntry], shape: ModelShape, folder: Path) -> None:
    """Raise InputError where the weights are not those that config.json describes, as far as a count can tell."""
    expected, found = shape.parameters, sum(math.prod(e.shape) for e in entries.values())
    # Extra tensors (biases, a copy of a tied output matrix) are no fault; missing ones are.
    if expected is not None and not shape.quantized and found < expected:
        raise InputError(
            f"{folder} holds {found:,} weights, its config.json describes {expected:,}; download the missing shards"
        )


def _sixteen(entry: TensorEntry) -> int:
    return 2 * math.prod(entry.shape) if entry.dtype in _FLOATS else entry.bytes


def _integer_bytes(entry: TensorEntry, scheme: Scheme) -> int:
    is_layer = len(entry.shape) == 2 and _LAYER_MATRIX.search(entry.name) is not None
    if not is_layer or not scheme.divides(entry.shape[1]):
        return _sixteen(entry)
    rows, columns = entry.shape
    groups = {"tensor": (1, 1), "channel": (rows, 1), "group": (rows, columns // (scheme.group or columns))}
    scale_rows, scale_columns = groups[scheme.granularity]
    packed = 4 * rows * -(-columns * scheme.bits // 32)
    zeros = 0 if scheme.symmetric else 4 * -(-scale_rows * scheme.bits // 32) * scale_columns
    return packed + 2 * scale_rows * scale_columns + zeros + _SHAPE_BYTES


def _in_gguf(entries: Mapping[str, TensorEntry], shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Shapes of what a GGUF file holds, by the names there."""
    return {
        _gguf_name(name): entry.shape
        for name, entry in entries.items()
        if not (shape.tied and name == "lm_head.weight") and not name.endswith("rotary_emb.inv_freq")
    }


def _all_bytes(stored: Mapping[str, tuple[int, ...]], kind: str) -> int:
    """Bytes where every matrix takes one type, or what fits instead."""
    return sum(tensor_bytes(shape, fitting(kind, shape[-1]) if len(shape) > 1 else "f32") for shape in stored.values())


def _gguf_bytes(entries: Mapping[str, TensorEntry], mix: str, shape: ModelShape, importance: bool) -> int:
    stored = _in_gguf(entries, shape)
    experts = 1 + max(
        (int(found[2]) for name in entries if (found := _IN_LAYER.fullmatch(name)) and found[2]), default=-1
    )
    model = MixedModel(shape.layers, shape.heads // shape.kv_heads, experts)
    types = ggml_types(stored, mix, model, importance=importance)
    return sum(tensor_bytes(stored[name], types[name]) for name in stored)


def _gguf_name(name: str) -> str:
    """The name by which the assignment of types knows a tensor; its own where the assignment treats it as any other."""
    if name.endswith("embed_tokens.weight"):
        return "token_embd.weight"
    if name == "lm_head.weight":
        return "output.weight"
    found = _IN_LAYER.fullmatch(name)
    if found is None or found[3] not in _GGUF_PARTS:
        return name
    return f"blk.{found[1]}.{_GGUF_PARTS[found[3]]}{f'_exps{found[2]}' if found[2] else ''}.weight"
