"""bitsandbytes folders with 4-bit NF4 weights, as Transformers loads them with the bitsandbytes library.

Each quantized ``X.weight`` (out, in) becomes ``X.weight`` uint8 (out * in / 2, 1), two codes to a byte with the first
in the high half; ``X.weight.absmax``, one scale for each 64 weights; ``X.weight.quant_map`` float32 (16,);
``X.weight.quant_state.bitsandbytes__nf4``, the rest of the state as JSON in bytes. With double quantization ``absmax``
is uint8, and ``X.weight.nested_absmax`` and ``X.weight.nested_quant_map`` give its values.
https://huggingface.co/docs/bitsandbytes
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantwise.formats.quantized_folder import write_quantized
from quantwise.formats.safetensors_folder import ModelFolder

_SCALE_BLOCK = 256


@dataclass(frozen=True, slots=True)
class NestedScales:
    """Scales in 8 bit, row after row: scale i is ``table[codes[i]] * largest[i // 256] + mean``.

    ``codes`` uint8 (n,), ``table`` float32 (256,), ``largest`` float32 (ceil(n / 256),), ``mean`` a float32 number.
    """

    codes: Tensor
    table: Tensor
    largest: Tensor
    mean: Tensor


@dataclass(frozen=True, slots=True)
class Nf4Layer:
    """``codes`` (out, in) in 0 .. 15, indices into ``table`` float32 (16,); ``scale`` float32 (out, in / block).

    ``nested`` holds the same scales in 8 bit where they are doubly quantized.
    """

    codes: Tensor
    table: Tensor
    scale: Tensor
    nested: NestedScales | None = None


def pack_nf4(layer: Nf4Layer, dtype: torch.dtype) -> dict[str, Tensor]:
    """The stored tensors of one layer by the last part of their name; the library unpacks weights to ``dtype``."""
    codes = layer.codes.to(torch.uint8).reshape(-1)
    state: dict[str, Any] = {
        "quant_type": "nf4",
        "blocksize": layer.codes.shape[1] // layer.scale.shape[1],
        "dtype": str(dtype).removeprefix("torch."),
        "shape": list(layer.codes.shape),
    }
    packed = {
        "weight": ((codes[::2] << 4) | codes[1::2]).unsqueeze(1),
        "weight.absmax": layer.scale.reshape(-1).float(),
        "weight.quant_map": layer.table.clone(),
    }
    if (nested := layer.nested) is not None:
        packed |= {
            "weight.absmax": nested.codes,
            "weight.nested_absmax": nested.largest,
            "weight.nested_quant_map": nested.table.clone(),
        }
        state |= {"nested_blocksize": _SCALE_BLOCK, "nested_dtype": "float32", "nested_offset": float(nested.mean)}
    packed["weight.quant_state.bitsandbytes__nf4"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return packed


def nf4_config(dtype: torch.dtype, double: bool, kept: list[str]) -> dict[str, Any]:
    """The ``quantization_config`` of config.json; ``kept`` names the linear layers that stay in 16 bit."""
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": double,
        "bnb_4bit_compute_dtype": str(dtype).removeprefix("torch."),
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": kept,
    }


def write_nf4(target: Path, source: ModelFolder, layers: Mapping[str, Nf4Layer], kept: list[str]) -> None:
    """Write ``source`` into the existing folder ``target`` with ``layers`` (module name to codes) in NF4.

    Raises KeyError where a layer has no weight in ``source``.
    """
    dtype = source.sixteen_bit
    double = any(layer.nested is not None for layer in layers.values())
    packed = {name: pack_nf4(layer, dtype) for name, layer in layers.items()}
    write_quantized(target, source, packed, nf4_config(dtype, double, kept))
