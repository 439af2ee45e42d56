"""Bytes that each format stores for one quantized matrix, and that Transformers holds of it: every tensor counted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from quantwise.core.loads import expands
from quantwise.core.packing import INT4_ROWS, INT8_COLUMNS, kernel_group
from quantwise.core.scheme import SCALE_BITS, Scheme
from quantwise.formats.safetensors_header import TensorEntry
from quantwise.models.stored_scheme import expanded_because, stored_scheme

LayerBytes = Callable[[int, int, Scheme], int | None]
"""Bytes of a (rows, columns) matrix; None where it stays in 16 bit."""

_SCALE = SCALE_BITS // 8
# An int64 pair that compressed-tensors keeps beside every packed matrix.
_SHAPE_BYTES = 16
# bitsandbytes: float32 scales of 64 weights; with double quantization one byte each, and a float32 for 256 of these.
_NF4_BLOCK, _NESTED_BLOCK, _TABLE, _NESTED_TABLE = 64, 256, 16 * 4, 256 * 4
# Characters of the mean of the scales, which is only known once they are there; give or take three.
_OFFSET_DIGITS = 0.0123456789012345678


def stored_layer_bytes(rows: int, columns: int, scheme: Scheme) -> int | None:
    """Bytes of all tensors that stand for a (rows, columns) matrix; None where the format leaves it in 16 bit."""
    if not scheme.divides(columns):
        return None
    groups = _groups(rows, columns, scheme)
    if scheme.format == "bitsandbytes":
        return _bitsandbytes(rows, columns, scheme)
    if scheme.format in ("gptq", "awq"):
        return _layout(rows, columns, groups, scheme)
    if scheme.kind == "float8" or (scheme.activations is not None and scheme.bits == 8):
        fixed = _SCALE if scheme.activations in ("int8-tensor", "fp8-tensor") else 0
        return rows * columns + _SCALE * groups + fixed
    packed = 4 * rows * -(-columns * scheme.bits // 32)
    zero_columns = groups // rows
    zeros = 0 if scheme.symmetric else 4 * -(-rows * scheme.bits // 32) * zero_columns
    return packed + _SCALE * groups + zeros + _SHAPE_BYTES


def _groups(rows: int, columns: int, scheme: Scheme) -> int:
    return {"tensor": 1, "channel": rows, "group": rows * (columns // (scheme.group or columns))}[scheme.granularity]


def _layout(rows: int, columns: int, groups: int, scheme: Scheme) -> int | None:
    unfilled = any(count * scheme.bits % 32 for count in ((rows,) if scheme.format == "awq" else (rows, columns)))
    if unfilled:
        return None
    order = 4 * columns if scheme.format == "gptq" else 0
    return (rows * columns + groups) * scheme.bits // 8 + _SCALE * groups + order


def _bitsandbytes(rows: int, columns: int, scheme: Scheme) -> int:
    if scheme.kind == "llm-int8":
        return rows * columns + 4 * rows + 1
    scales = -(-rows * columns // _NF4_BLOCK)
    # What the library keeps as text beside each matrix; the type is named by its eight letters.
    state: dict[str, Any] = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [rows, columns]}
    if scheme.name == "nf4-dq":
        state |= {"nested_blocksize": _NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": _OFFSET_DIGITS}
        scale_bytes = scales + 4 * -(-scales // _NESTED_BLOCK) + _NESTED_TABLE
    else:
        scale_bytes = 4 * scales
    return rows * columns // 2 + scale_bytes + _TABLE + len(json.dumps(state))


def packed_layer_bytes(rows: int, columns: int, scheme: Scheme) -> int | None:
    """Bytes of a matrix as torch's kernels for few bits hold it on a processor (``runtimes/packed_linear.py``).

    None where it stays in 16 bit. Eight bits: rows filled to whole vectors, a scale each. Four bits: rows filled to
    whole blocks, and for each of the kernel's groups a scale, a value at code 0, and where there are zero points what
    16 bit leave of it.
    """
    if not scheme.divides(columns):
        return None
    if scheme.bits == 8:
        return rows * (columns + -columns % INT8_COLUMNS + _SCALE)
    group, filled = kernel_group(scheme.group or columns), rows + -rows % INT4_ROWS
    if group is None:
        return held_layer_bytes(rows, columns, scheme)
    return filled * columns // 2 + filled * (columns // group) * _SCALE * (2 if scheme.symmetric else 3)


def is_packed(scheme: Scheme) -> bool:
    """Whether Transformers packs the weights of a scheme, on a processor, and rounds no inputs."""
    return scheme.kind == "integer" and scheme.activations is None and expands("transformers", scheme) is None


def held_layer_bytes(rows: int, columns: int, scheme: Scheme) -> int | None:
    """Bytes that Transformers holds of a matrix of ours that is not packed; None where it stays in 16 bit."""
    stored = stored_layer_bytes(rows, columns, scheme)
    if stored is None or scheme.format == "bitsandbytes":
        return stored
    groups = _groups(rows, columns, scheme)
    if scheme.activations is None:
        # compressed-tensors unpacks at the first call and keeps the scales, unless it unpacked while it loaded.
        kept = scheme.format == "compressed-tensors" and scheme.symmetric
        packed = scheme.kind == "integer"
        return 2 * rows * columns + kept * (_SCALE * groups + packed * _SHAPE_BYTES)
    # Codes of rounded inputs are multiplied with codes of weights: a byte each, their scales in 32 bit.
    return rows * columns + 4 * groups + (4 if scheme.activations in ("int8-tensor", "fp8-tensor") else 0)


def packs_folder(names: Iterable[str], settings: Mapping[str, Any]) -> bool:
    """Whether Transformers packs the quantized layers of a folder on a processor: torch has kernels for all of them.

    Layers of a folder with experts are expanded, and so are weights whose inputs are rounded, where they are at all.
    """
    if settings.get("quant_method") == "bitsandbytes" or _rounds_inputs(settings):
        return False
    return expanded_because(settings) is None and not any(".experts." in name for name in names)


def held_folder_bytes(
    entries: Mapping[str, TensorEntry], settings: Mapping[str, Any], *, packed: bool = False
) -> int | None:
    """Bytes that Transformers holds of a quantized folder whose ``quantization_config`` is ``settings``.

    ``packed`` as ``packs_folder`` says. None where that config does not say how many bits a code has.
    """
    method = settings.get("quant_method")
    if method == "bitsandbytes":
        return sum(entry.bytes for entry in entries.values())
    rounded = _rounds_inputs(settings)
    scale_bytes = 4 if rounded else 0 if settings.get("dequantize") else _SCALE
    total = 0
    for name, entry in entries.items():
        (module, _, part), cells = name.rpartition("."), math.prod(entry.shape)
        if part in ("qweight", "weight_packed"):
            bits = _bits(settings, module)
            if bits is None:
                return None
            if packed:
                total += _packed_matrix(entry, part, bits, settings)
                continue
            total += cells * 32 // bits * (1 if rounded else 2)
        elif packed and part == "weight" and entry.dtype == "I8":
            total += _packed_matrix(entry, part, 8, settings)
        elif part == "weight" and entry.dtype in ("I8", "F8_E4M3"):
            total += cells * (1 if rounded else 2)
        elif packed and part in ("scales", "weight_scale", "weight_shape"):
            continue
        elif part in ("weight_scale", "input_scale"):
            total += scale_bytes * cells
        elif part == "weight_shape":
            total += 0 if rounded or settings.get("dequantize") else entry.bytes
        elif part not in ("qzeros", "scales", "g_idx", "weight_zero_point", "weight_g_idx"):
            total += 2 * cells if entry.dtype in ("F64", "F32", "F16", "BF16") else entry.bytes
    return total


def _packed_matrix(entry: TensorEntry, part: str, bits: int, settings: Mapping[str, Any]) -> int:
    """Bytes of the matrix whose codes are ``entry``, where every layer has groups and zero points alike."""
    in_word = 32 // bits
    first, second = entry.shape
    if part in ("weight", "weight_packed"):
        rows, columns = first, second * (in_word if part == "weight_packed" else 1)
    elif settings.get("quant_method") == "gptq":
        rows, columns = second, first * in_word
    else:
        rows, columns = second * in_word, first
    scheme = stored_scheme(_first_group(settings))
    assert scheme is not None
    order = 8 * columns if settings.get("desc_act") else 0
    return order + (packed_layer_bytes(rows, columns, replace(scheme, bits=bits)) or 0)


def _first_group(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    groups = settings.get("config_groups") or {}
    return {**settings, "config_groups": dict(list(groups.items())[:1])} if groups else settings


def _bits(settings: Mapping[str, Any], module: str) -> int | None:
    """Bits of a layer's codes: of the groups that name it, or else of those that name its class."""
    groups = [(g.get("targets") or (), g.get("weights") or {}) for g in (settings.get("config_groups") or {}).values()]
    named = [weights for targets, weights in groups if any(_names(target, module) for target in targets)]
    classes = [weights for targets, weights in groups if not any(target.startswith("re:") for target in targets)]
    found = {weights.get("num_bits") for weights in named or classes} or {settings.get("bits")}
    one = next(iter(found)) if len(found) == 1 else None
    return one if isinstance(one, int) else None


def _names(target: str, module: str) -> bool:
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), module) is not None
    return target == module


def _rounds_inputs(settings: Mapping[str, Any]) -> bool:
    return any(group.get("input_activations") for group in (settings.get("config_groups") or {}).values())
