"""compressed-tensors folders in the ``pack-quantized`` layout, as vLLM and Transformers load them.

Each quantized ``X.weight`` (out, in) becomes ``X.weight_packed`` int32 (codes offset to unsigned and packed along the
row), ``X.weight_scale`` in the model's 16-bit type, ``X.weight_shape`` int64 [out, in] and, on asymmetric grids,
``X.weight_zero_point`` int32 packed along the column. https://github.com/vllm-project/compressed-tensors
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantwise.core.scheme import Scheme
from quantwise.formats.safetensors_folder import (
    ModelFolder,
    copy_side_files,
    in_sixteen_bit,
    write_config,
    write_tensors,
)


@dataclass(frozen=True, slots=True)
class IntegerLayer:
    """``codes`` int8 (out, in), signed; ``scale`` (out, groups) or (1, 1); ``zero`` like ``scale``, or None."""

    codes: Tensor
    scale: Tensor
    zero: Tensor | None = None


def pack(layer: IntegerLayer, scheme: Scheme, dtype: torch.dtype) -> dict[str, Tensor]:
    """The stored tensors of one layer by the last part of their name."""
    scale = layer.scale.reshape(1) if scheme.granularity == "tensor" else layer.scale
    # Seconds to import, because it loads most of Transformers; GGUF files are written without it.
    from compressed_tensors.compressors import pack_to_int32

    packed = {
        "weight_packed": pack_to_int32(layer.codes.contiguous(), scheme.bits).contiguous(),
        "weight_scale": scale.to(dtype).contiguous(),
        "weight_shape": torch.tensor(layer.codes.shape, dtype=torch.int64),
    }
    if layer.zero is not None:
        packed["weight_zero_point"] = pack_to_int32(layer.zero.to(torch.int8), scheme.bits, packed_dim=0).contiguous()
    return packed


def quantization_config(scheme: Scheme, ignore: list[str]) -> dict[str, Any]:
    """The ``quantization_config`` of config.json; ``ignore`` names the linear layers that stay in 16 bit."""
    weights = {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": scheme.granularity,
        "group_size": scheme.group,
        "dynamic": False,
    }
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    # Transformers builds an asymmetric layer with an unpacked zero point and then refuses the packed one, unless it is
    # told to unpack while it loads (seen with Transformers 5.23 and compressed-tensors 0.19).
    unpack = {} if scheme.symmetric else {"dequantize": True}
    return {
        **unpack,
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ignore,
        "kv_cache_scheme": None,
    }


def write_compressed(
    target: Path, source: ModelFolder, layers: Mapping[str, IntegerLayer], scheme: Scheme, ignore: list[str]
) -> None:
    """Write ``source`` into the existing folder ``target`` with ``layers`` (module name to codes) packed.

    Every other tensor is written in the model's 16-bit type. Raises KeyError where a layer has no weight in ``source``.
    """
    dtype = source.sixteen_bit
    replaced = {f"{name}.weight" for name in layers}
    if missing := replaced - set(source):
        raise KeyError(f"no such weights: {sorted(missing)}")
    tensors = {name: in_sixteen_bit(source[name], dtype) for name in source if name not in replaced}
    for name, layer in layers.items():
        tensors |= {f"{name}.{part}": tensor for part, tensor in pack(layer, scheme, dtype).items()}
    write_tensors(target, tensors)
    write_config(target, source.config, dtype, quantization_config=quantization_config(scheme, ignore))
    copy_side_files(source.path, target)
