"""Bytes of weights: of a scheme before it is built, and of a file that is there.

Sums over the tensor table, never parameters times nominal bits: files are mixes, and embeddings weigh a lot in small
models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from quantwise.core.errors import InputError
from quantwise.core.layerwise import Assignment
from quantwise.core.recipe import Recipe, parse_recipe
from quantwise.core.scheme import Scheme
from quantwise.formats.gguf.architectures import USUAL, architecture_of_class
from quantwise.formats.gguf.header import GgufHeader
from quantwise.formats.gguf.layout import Target, expert_count, targets
from quantwise.formats.gguf.mixes import MixedModel, fitting, ggml_types, tensor_bytes
from quantwise.formats.safetensors_header import TensorEntry, read_folder
from quantwise.models.config import ModelShape, read_config
from quantwise.plan.layer_bytes import stored_layer_bytes
from quantwise.plan.weight_table import budget_bytes, quantized_matrices

_FLOATS = ("F64", "F32", "F16", "BF16")


def scheme_bytes(
    entries: Mapping[str, TensorEntry], scheme: Scheme, shape: ModelShape, *, importance: bool = False
) -> int:
    """Bytes of tensor data that ``scheme`` will store of a model's tensors (``safetensors_header.read_folder``).

    Integer schemes fill the matrices of the decoder's layers; what does not split into their groups, embeddings, norms
    and routers stay in 16 bit. ggml schemes fill every matrix as llama-quantize does (``formats.gguf.mixes``;
    ``importance`` as there) and keep vectors in 32 bit; a tied output matrix is stored once.
    """
    if scheme.format == "gguf":
        return _gguf_bytes(entries, scheme.name, shape, importance)
    if scheme.kind == "float":
        return sixteen_bit_bytes(entries)
    return _folder_bytes(entries, scheme)


def recipe_bytes(entries: Mapping[str, TensorEntry], recipe: Recipe, shape: ModelShape) -> int:
    """Bytes of tensor data that ``recipe`` will store; of ``auto`` the most that its budget allows.

    A budget is spent but for a remainder below the step from one type of one matrix to the next; a budget in bytes
    holds the whole file, header and tokenizer too. Raises InputError where it is below the smallest mix.
    """
    if recipe.budget is None:
        return scheme_bytes(entries, recipe.scheme, shape, importance=recipe.reads_data)
    stored, _ = _in_gguf(entries, shape)
    least, most = (_all_bytes(stored, kind) for kind in ("q2_k", "q8_0"))
    weights = sum(math.prod(target.shape) for target in stored)
    return budget_bytes(recipe, weights, least, most)


def artifact_bytes(recipe: str, model: Path) -> int:
    """Bytes of tensor data that a recipe will put on disk for the folder ``model``. Raises InputError if it cannot."""
    shape, entries = read_config(model), read_folder(model)
    return recipe_bytes(entries, parse_recipe(recipe), shape)


def sixteen_bit_bytes(entries: Mapping[str, TensorEntry]) -> int:
    """Bytes of the tensors with every floating-point number in 16 bit."""
    return sum(_sixteen(entry) for entry in entries.values())


def gguf_data_bytes(header: GgufHeader) -> int:
    """Bytes of tensor data in a GGUF file, from its header."""
    return sum(tensor.bytes for tensor in header.tensors)


def check_shapes(shapes: Mapping[str, tuple[int, ...]], shape: ModelShape, folder: Path) -> None:
    """Raise InputError where the weights are not those that config.json describes, as far as a count can tell."""
    expected, found = shape.parameters, sum(map(math.prod, shapes.values()))
    # Extra tensors (biases, a copy of a tied output matrix) are no fault; missing ones are.
    if expected is not None and not shape.quantized and found < expected:
        raise InputError(
            f"{folder} holds {found:,} weights, its config.json describes {expected:,}; download the missing shards"
        )


def _sixteen(entry: TensorEntry) -> int:
    return 2 * math.prod(entry.shape) if entry.dtype in _FLOATS else entry.bytes


def _folder_bytes(entries: Mapping[str, TensorEntry], scheme: Scheme) -> int:
    assigned = Assignment.of(entries)
    return sum(_integer_bytes(entry, assigned.scheme_of(name, scheme)) for name, entry in entries.items())


def _integer_bytes(entry: TensorEntry, scheme: Scheme) -> int:
    matrices = quantized_matrices(entry.name, entry.shape)
    found = None if matrices is None else stored_layer_bytes(*matrices[1:], scheme)
    return _sixteen(entry) if matrices is None or found is None else matrices[0] * found


def _gguf_bytes(entries: Mapping[str, TensorEntry], mix: str, shape: ModelShape, importance: bool) -> int:
    stored, model = _in_gguf(entries, shape)
    types = ggml_types({target.name: target.shape for target in stored}, mix, model, importance=importance)
    return 4 * shape.rope_factors + sum(tensor_bytes(target.shape, types[target.name]) for target in stored)


def _in_gguf(entries: Mapping[str, TensorEntry], shape: ModelShape) -> tuple[Sequence[Target], MixedModel]:
    """What a GGUF file holds, and what an assignment of types depends on."""
    known = architecture_of_class(shape.architecture) or USUAL
    tied = shape.tied or known.output == "tied"
    made = targets({name: entry.shape for name, entry in entries.items()}, known, tied=tied, strict=False)
    return made, MixedModel(shape.layers, shape.heads // shape.kv_heads, expert_count(made), known.name)


def _all_bytes(stored: Sequence[Target], kind: str) -> int:
    """Bytes where every matrix takes one type, or what fits instead."""
    return sum(
        tensor_bytes(target.shape, fitting(kind, target.shape[-1]) if len(target.shape) > 1 else "f32")
        for target in stored
    )
