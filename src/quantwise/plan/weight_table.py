"""Each tensor of a decoder as a scheme stores it: its type and its bytes, scales, zero points and padding included."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quantwise.core.errors import InputError
from quantwise.core.layerwise import Assignment
from quantwise.core.recipe import Recipe
from quantwise.core.scheme import Scheme
from quantwise.formats.gguf.architectures import architecture_of_class
from quantwise.formats.gguf.mixes import GGML_BLOCKS, MixedModel, fitting, ggml_types, tensor_bytes
from quantwise.formats.gguf.small_mixes import small_mix_types
from quantwise.models.decoder import Decoder
from quantwise.models.tensor_table import Alike, TensorTable
from quantwise.plan.gguf_names import GgufTable, gguf_table, language_class
from quantwise.plan.layer_bytes import LayerBytes, stored_layer_bytes
from quantwise.plan.weight_scheme import WeightScheme, parse_weight_scheme

# Linear layers of a decoder's blocks, which integer, float8 and NF4 schemes fill. Routers are small and stay in 16 bit.
_IN_BLOCK = re.compile(r"(^|\.)(layers|h)\.\d+\..*\.weight")
_ROUTER = re.compile(r"\.(gate|router|shared_expert_gate|router\.layer|router\.proj)\.weight$")
# Experts that lie in one tensor, (experts, in, out); where the name ends in weight, (experts, out, in).
_STACKED = re.compile(r"\.(mlp|feed_forward)\.experts\.(gate_up_proj|down_proj)$")
_STACKED_OUT_FIRST = re.compile(r"\.block_sparse_moe\.(input|output)_linear\.weight$|\.\d+\.experts\.\w+_proj$")
# Parts of other modalities, which no tool quantizes by default.
_BESIDE = re.compile(r"(^|\.)(vision|visual|audio|multi_modal|embed_vision|embed_audio)")
_NUMBER = re.compile(r"\.\d+\.")
_MXFP4_BLOCK, _MXFP4_BYTES = 32, 17
# Types that a budget chooses from, from fewer bits to more.
_LADDER = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_0")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """``type`` is what its numbers are in: ``f32``, ``16bit``, the name of a scheme, or a ggml type.

    In a folder it stands for ``count`` experts' tensors, as in ``models.tensor_table``, with the ``bytes`` of all.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int
    count: int = 1


def weight_table(
    decoder: Decoder, scheme: str | WeightScheme, *, rope_factors: int = 0, names: GgufTable | None = None
) -> tuple[StoredTensor, ...]:
    """The tensors of a file or folder of ``scheme``; in GGUF's names where that is its format.

    ``rope_factors`` numbers, by which a scaled rotary embedding divides, are stored in GGUF files beside the weights.
    ``names`` is the decoder's ``gguf_table`` where known. Raises InputError where the scheme is unknown, or wants
    headers (``stored``) and there are none.
    """
    wanted = parse_weight_scheme(scheme) if isinstance(scheme, str) else scheme
    if wanted.kind == "as stored":
        return _as_stored(decoder)
    if "token_embd.weight" in decoder.tensors and not in_gguf(wanted):
        raise InputError(f"of the GGUF file {decoder.name} no {wanted.name} folder is made; plan from its own folder")
    rows = TensorTable.of(decoder.tensors).rows
    if wanted.kind == "float32":
        return tuple(StoredTensor(row.name, row.shape, "f32", 4 * row.numbers, row.count) for row in rows)
    if wanted.kind == "mxfp4-experts":
        return tuple(_mxfp4(row) for row in rows)
    if not in_gguf(wanted):
        assert wanted.recipe is not None
        return folder_table(rows, wanted.recipe.scheme)
    table = names or gguf_table(decoder)
    rope = (StoredTensor("rope_freqs.weight", (rope_factors,), "f32", 4 * rope_factors),) if rope_factors else ()
    return (*rope, *_in_file(table, wanted, mixed_model(decoder, table)))


def mixed_model(decoder: Decoder, table: GgufTable) -> MixedModel:
    """What llama-quantize looks at when it mixes types."""
    shares = {a.heads // a.kv_heads for layer in decoder.layers if (a := layer.attention) is not None and a.kv_heads}
    experts = max((layer.experts for layer in decoder.layers), default=0)
    return MixedModel(len(decoder.layers), max(shares, default=1), experts, table.architecture)


def in_gguf(wanted: WeightScheme) -> bool:
    """Whether a scheme is stored in a GGUF file."""
    return wanted.kind in ("uniform", "mix") or (wanted.recipe is not None and wanted.recipe.scheme.format == "gguf")


def _as_stored(decoder: Decoder) -> tuple[StoredTensor, ...]:
    if not decoder.stored:
        raise InputError(f"{decoder.name} is known by its config alone, so how it is stored is not; name a scheme")
    return tuple(StoredTensor(n, decoder.tensors[n], "stored", size) for n, size in decoder.stored.items())


def folder_table(
    rows: Sequence[Alike], scheme: Scheme, layer: LayerBytes = stored_layer_bytes
) -> tuple[StoredTensor, ...]:
    """The tensors of a folder of ``scheme``, where a quantized matrix takes what ``layer`` says."""
    assigned = None if scheme.higher is None else Assignment.of(row.name for row in rows)
    found: list[StoredTensor] = []
    known: dict[tuple[str, tuple[int, ...], str], tuple[str, int]] = {}
    for row in rows:
        name, shape = row.name, row.shape
        own = scheme if assigned is None else assigned.scheme_of(name, scheme)
        # Layers differ in their numbers only.
        alike = (_NUMBER.sub(".0.", name), shape, own.name)
        if alike not in known:
            known[alike] = _one_in_folder(name, shape, own, layer)
        kind, held = known[alike]
        found.append(StoredTensor(name, shape, kind, row.count * held, row.count))
    return tuple(found)


def _one_in_folder(name: str, shape: tuple[int, ...], scheme: Scheme, layer: LayerBytes) -> tuple[str, int]:
    """The type of a tensor and its bytes."""
    matrices = None if scheme.kind == "float" else quantized_matrices(name, shape)
    one = None if matrices is None else layer(matrices[1], matrices[2], scheme)
    if matrices is None or one is None:
        return "16bit", 2 * math.prod(shape)
    return scheme.name, matrices[0] * one


def quantized_matrices(name: str, shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """How many matrices of how many rows and columns a folder's scheme fills in a tensor; None for what it leaves."""
    if _BESIDE.search(name):
        return None
    if _STACKED.search(name):
        return shape[0], shape[2], shape[1]
    if len(shape) == 3 and _STACKED_OUT_FIRST.search(name):
        return shape[0], shape[1], shape[2]
    if _IN_BLOCK.search(name) is None or _ROUTER.search(name):
        return None
    return (1, shape[0], shape[1]) if len(shape) == 2 else None


def _mxfp4(row: Alike) -> StoredTensor:
    """OCP microscaling: 32 codes of 4 bit share an 8-bit exponent; everything but the experts stays in 16 bit."""
    name, shape = row.name, row.shape
    blocks, rest = divmod(math.prod(shape), _MXFP4_BLOCK)
    if ".experts." in name and len(shape) > 1 and "bias" not in name and rest == 0:
        return StoredTensor(name, shape, "mxfp4", row.count * blocks * _MXFP4_BYTES, row.count)
    return StoredTensor(name, shape, "16bit", 2 * row.numbers, row.count)


def _in_file(table: GgufTable, wanted: WeightScheme, model: MixedModel) -> Sequence[StoredTensor]:
    if wanted.recipe is not None:
        recipe = wanted.recipe
        if recipe.budget is not None:
            return _of_budget(table, recipe)
        types: Mapping[str, str] = _mix(table, recipe, model)
    elif wanted.kind == "mix":
        types = small_mix_types(table.shapes, wanted.name, model)
    else:
        assert wanted.ggml is not None
        floats = ggml_types(table.shapes, "f16", model)
        types = {
            name: kind if kind == "f32" else _uniform(wanted.ggml, table.shapes[name][-1])
            for name, kind in floats.items()
        }
    return [StoredTensor(n, s, types[n], tensor_bytes(s, types[n])) for n, s in table.shapes.items()]


def _of_budget(table: GgufTable, recipe: Recipe) -> Sequence[StoredTensor]:
    """As many bytes as the budget allows, in the type next below it: which matrix takes which is found by measuring."""
    weights = sum(math.prod(shape) for shape in table.shapes.values())
    by_kind = {kind: _all_of(table, kind) for kind in _LADDER}
    totals = {kind: sum(tensor.bytes for tensor in tensors) for kind, tensors in by_kind.items()}
    allowed = budget_bytes(recipe, weights, totals[_LADDER[0]], totals[_LADDER[-1]])
    nearest = max((kind for kind in _LADDER if totals[kind] <= allowed), key=lambda kind: totals[kind])
    over = allowed - totals[nearest]
    found = [replace(t, bytes=t.bytes + over * t.bytes // totals[nearest]) for t in by_kind[nearest]]
    rest = allowed - sum(tensor.bytes for tensor in found)
    return [replace(found[0], bytes=found[0].bytes + rest), *found[1:]]


def budget_bytes(recipe: Recipe, weights: int, least: int, most: int) -> int:
    """Bytes that the budget of ``recipe`` allows ``weights`` numbers, of which the smallest mix takes ``least`` and the
    largest ``most``. Raises InputError where it allows less.
    """
    assert recipe.budget is not None
    allowed = recipe.budget.bytes or int((recipe.budget.bits_per_weight or 0.0) * weights / 8)
    if allowed < least:
        need = f"{least} bytes" if recipe.budget.bytes else f"{8 * least / weights:.3f} bits per weight"
        raise InputError(f"{recipe.name} is too small a budget; the smallest mix of this model takes {need}")
    return min(allowed, most)


def _all_of(table: GgufTable, kind: str) -> list[StoredTensor]:
    """Every matrix in one type, or what fits instead."""
    types = {n: fitting(kind, shape[-1]) if len(shape) > 1 else "f32" for n, shape in table.shapes.items()}
    return [StoredTensor(n, s, types[n], tensor_bytes(s, types[n])) for n, s in table.shapes.items()]


def _mix(table: GgufTable, recipe: Recipe, model: MixedModel) -> Mapping[str, str]:
    return ggml_types(table.shapes, recipe.scheme.name, model, importance=recipe.reads_data)


def _uniform(ggml: str, columns: int) -> str:
    """The type where rows split into its blocks, else one of 32 weights a block, else 16 bit."""
    if columns % GGML_BLOCKS[ggml][0] == 0:
        return ggml
    return fitting("q4_0", columns)


def known_layout(decoder: Decoder) -> bool:
    """Whether what is quantized of this decoder, and its names in GGUF, were held against files that exist."""
    built = architecture_of_class(language_class(decoder)) is not None or decoder.architecture == "OPTForCausalLM"
    return "token_embd.weight" in decoder.tensors or built
