"""ModelOpt's unified checkpoint, which TensorRT-LLM's PyTorch backend reads beside a model's config.json.

``hf_quant_config.json`` names one algorithm for all linear layers; each of them keeps its name and gets, in place of
its weight, the tensors below. Read off the code that writes and that loads them, not off a run:

* modelopt/torch/export/{quant_utils,unified_export_hf}.py of github.com/NVIDIA/TensorRT-Model-Optimizer, commit
  5a4242faf414: names, types, shapes, the packing of 4 bits, the fields of hf_quant_config.json;
* tensorrt_llm/_torch/{model_config,modules/linear}.py of github.com/NVIDIA/TensorRT-LLM, commits 1a0dc5f70054 and
  ed53795b33fc: what is loaded, and which of them have a kernel.

NEVER RUN HERE: nothing of this has been loaded by TensorRT-LLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantwise.core.scheme import Scheme
from quantwise.formats.compressed_tensors import IntegerLayer, storage, unpack
from quantwise.formats.safetensors_folder import ModelFolder

# Projections that TensorRT-LLM joins into one matrix as it loads them: their inputs are one tensor.
FUSED = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One ``quant_algo``: further fields of hf_quant_config.json, and what nobody should be surprised by."""

    name: str
    fields: Mapping[str, Any]
    notes: tuple[str, ...] = ()


_REQUANTIZED = (
    "TensorRT-LLM joins q, k, v and gate, up under the largest of their scales and rounds their codes again as it "
    "loads them, so that it serves slightly other weights than those that were measured"
)
_AWQ = {"group_size": 128, "has_zero_point": False, "pre_quant_scale": True}
_FP8 = Algorithm("FP8", {}, (_REQUANTIZED,))
ALGORITHMS: Mapping[str, Algorithm] = {
    "fp8-static": _FP8,
    "fp8": Algorithm("FP8_PER_CHANNEL_PER_TOKEN", {}),
    "int4-g128": Algorithm("W4A16_AWQ", _AWQ),
    "int8-channel": Algorithm("W8A16", {}),
}
"""Scheme to the algorithm that stores the very same numbers."""


def lacks(scheme: Scheme) -> str | None:
    """Why a scheme has no counterpart, with the nearest that has one; None where it has."""
    if scheme.name in ALGORITHMS:
        return None
    if scheme.higher is not None:
        return "MIXED_PRECISION needs a second file whose layout was not checked; build int4-g128 or int8-channel"
    if scheme.name == "w4a8":
        return "W4A8_AWQ multiplies FP8 inputs, and these are int8; build int4-g128 or fp8"
    if scheme.name in ("w8a8", "w8a8-static"):
        return (
            "its PyTorch backend, the only one since the engine backend was removed, has no kernel for int8 inputs; "
            "build fp8 or int8-channel"
        )
    if scheme.name == "fp8-weights":
        return "its FP8 rounds inputs too, and this does not; build fp8 or fp8-static"
    if scheme.kind in ("nf4", "llm-int8"):
        return "bitsandbytes formats have no counterpart; build int4-g128 or int8-channel"
    if scheme.kind in ("ggml", "auto"):
        return "it does not read GGUF; build int4-g128, int8-channel or fp8"
    if scheme.kind == "float":
        return "weights in 16 bit need no export: give it the model's own folder"
    if not scheme.symmetric:
        return (
            f"its weights have no zero points; build {scheme.name.removesuffix('-asym')}, if that is one of its schemes"
        )
    if scheme.bits == 4:
        return f"its kernels for 4 bit take groups of 128, not {scheme.granularity} {scheme.group or ''}".rstrip() + (
            "; build int4-g128"
        )
    if scheme.bits == 8:
        return "its 8-bit weights have one scale for each row; build int8-channel"
    return f"it has no {scheme.bits}-bit weights; build int4-g128"


def quant_config(algorithm: Algorithm, exclude: list[str], version: str) -> dict[str, Any]:
    """hf_quant_config.json. TensorRT-LLM knows the layout by its producer's name, so the name is that of the layout."""
    return {
        "producer": {"name": "modelopt", "version": f"quantwise-{version}"},
        "quantization": {
            "quant_algo": algorithm.name,
            "kv_cache_quant_algo": None,
            **algorithm.fields,
            "exclude_modules": exclude,
        },
    }


def converted(folder: ModelFolder, scheme: Scheme) -> dict[str, Tensor]:
    """Every tensor of a compressed-tensors folder of ``scheme`` in ModelOpt's layout; codes and scales stay the same.

    Raises ValueError for a scheme that has no counterpart, or a matrix with an odd number of rows in 4 bit.
    """
    if scheme.name not in ALGORITHMS:
        raise ValueError(f"{scheme.name}: {lacks(scheme)}")
    layers = quantized(folder)
    parts = ("weight", "weight_packed", "weight_scale", "weight_shape", "input_scale")
    own = {f"{layer}.{part}" for layer in layers for part in parts}
    tensors = {name: folder[name] for name in folder if name not in own}
    for layer in layers:
        stored = {part: folder[f"{layer}.{part}"] for part in parts if f"{layer}.{part}" in folder}
        made = _layer(stored, scheme, fused=layer.endswith(FUSED), dtype=sixteen_bit(folder))
        tensors |= {f"{layer}.{part}": tensor.contiguous() for part, tensor in made.items()}
    return tensors


def sixteen_bit(folder: ModelFolder) -> torch.dtype:
    """The type of what is not quantized, as config.json says; most matrices of the folder are codes."""
    return torch.float16 if folder.config.get("dtype") == "float16" else torch.bfloat16


def quantized(folder: ModelFolder) -> list[str]:
    """Names of the layers whose weights are codes."""
    return [name.removesuffix(".weight_scale") for name in folder if name.endswith(".weight_scale")]


def _layer(stored: Mapping[str, Tensor], scheme: Scheme, *, fused: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    layer = _read(stored, scheme)
    scale = layer.scale.float()
    if ALGORITHMS[scheme.name].name == "W4A16_AWQ":
        made = {"weight": pack_rows(layer.codes), "weight_scale": scale}
        # Ours is folded into what makes the inputs, so that nothing is left to scale; layers that are not joined must
        # have the tensor all the same.
        return made if fused else made | {"pre_quant_scale": torch.ones(layer.codes.shape[1], dtype=dtype)}
    made = {"weight": layer.codes, "weight_scale": scale.reshape(() if scheme.granularity == "tensor" else (-1,))}
    if layer.input_scale is not None:
        made["input_scale"] = layer.input_scale.float().reshape(())
    return made


def _read(stored: Mapping[str, Tensor], scheme: Scheme) -> IntegerLayer:
    if storage(scheme) == "pack-quantized":
        return unpack(stored, scheme)
    return IntegerLayer(stored["weight"], stored["weight_scale"], None, stored.get("input_scale"))


def pack_rows(codes: Tensor) -> Tensor:
    """uint8 (out / 2, in) from codes (out, in) of -8 to 7: of two neighbouring rows the even one has the low four bits.

    Raises ValueError for an odd number of rows.
    """
    if codes.shape[0] % 2:
        raise ValueError(f"{codes.shape[0]} rows cannot be packed two by two")
    bits = codes.to(torch.int16) & 0x0F
    return (bits[0::2] | (bits[1::2] << 4)).to(torch.uint8)


def unpack_rows(packed: Tensor) -> Tensor:
    """int8 codes (out, in): the inverse of `pack_rows`."""
    halves = torch.stack((packed & 0x0F, packed >> 4), dim=1).to(torch.int8)
    return torch.where(halves > 7, halves - 16, halves).reshape(-1, packed.shape[1])
