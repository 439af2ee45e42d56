"""compressed-tensors folders, as vLLM and Transformers load them. https://github.com/vllm-project/compressed-tensors

In the ``pack-quantized`` layout each quantized ``X.weight`` (out, in) becomes ``X.weight_packed`` int32 (codes offset
to unsigned and packed along the row), ``X.weight_scale`` in the model's 16-bit type, ``X.weight_shape`` int64 [out, in]
and, on asymmetric grids, ``X.weight_zero_point`` int32 packed along the column. In ``int-quantized`` and
``float-quantized``, ``X.weight`` stays, as int8 or float8_e4m3fn, beside ``X.weight_scale``. Where the scale of inputs
is fixed, ``X.input_scale`` (1,) holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantwise.core.layerwise import Assignment
from quantwise.core.scheme import Activations, Scheme
from quantwise.formats.safetensors_folder import (
    ModelFolder,
    copy_side_files,
    in_sixteen_bit,
    write_config,
    write_tensors,
)

# One scale per token while it runs, or one per tensor from calibration: type, strategy, dynamic.
_INPUTS: dict[Activations, tuple[str, str, bool]] = {
    "int8-token": ("int", "token", True),
    "int8-tensor": ("int", "tensor", False),
    "fp8-token": ("float", "token", True),
    "fp8-tensor": ("float", "tensor", False),
}


@dataclass(frozen=True, slots=True)
class IntegerLayer:
    """``codes`` int8 (out, in), signed, or torch.float8_e4m3fn (out, in) for FP8; ``scale`` (out, groups) or (1, 1);
    ``zero`` like ``scale``, or None. ``input_scale`` (1,) where a scheme fixes the scale of inputs.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None = None
    input_scale: Tensor | None = None


def storage(scheme: Scheme) -> str:
    """The library's name for how a scheme's weights lie in the file.

    Eight-bit codes whose inputs are rounded too lie there unpacked, because that is where vLLM looks for them; its
    kernels for four-bit weights and eight-bit inputs read packed ones.
    """
    if scheme.kind == "float8":
        return "float-quantized"
    return "int-quantized" if scheme.activations and scheme.bits == 8 else "pack-quantized"


def pack(layer: IntegerLayer, scheme: Scheme, dtype: torch.dtype) -> dict[str, Tensor]:
    """The stored tensors of one layer by the last part of their name.

    Raises ValueError where the scale of its inputs is missing, or given to a scheme that has no place for it.
    """
    if (layer.input_scale is not None) != is_static(scheme):
        raise ValueError(f"{scheme.name} {'needs' if is_static(scheme) else 'has no'} fixed scale of inputs")
    inputs = {} if layer.input_scale is None else {"input_scale": layer.input_scale.reshape(1).to(dtype)}
    scale = layer.scale.reshape(1) if scheme.granularity == "tensor" else layer.scale
    if storage(scheme) != "pack-quantized":
        return {"weight": layer.codes.contiguous(), "weight_scale": scale.to(dtype).contiguous(), **inputs}
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


def packed_parts(scheme: Scheme) -> tuple[str, ...]:
    """The last parts of the names of a layer's stored tensors in ``pack-quantized``."""
    return ("weight_packed", "weight_scale", "weight_shape", *(() if scheme.symmetric else ("weight_zero_point",)))


def unpack(stored: Mapping[str, Tensor], scheme: Scheme) -> IntegerLayer:
    """The inverse of ``pack`` in ``pack-quantized``; scales come in float32, as (1, 1) where there is one."""
    from compressed_tensors.compressors import unpack_from_int32

    shape = torch.Size(stored["weight_shape"].tolist())
    scale = stored["weight_scale"].float().reshape(shape[0] if scheme.granularity != "tensor" else 1, -1)
    zero = None
    if not scheme.symmetric:
        zero = unpack_from_int32(stored["weight_zero_point"], scheme.bits, scale.shape, packed_dim=0).float()
    return IntegerLayer(unpack_from_int32(stored["weight_packed"], scheme.bits, shape), scale, zero)


def is_static(scheme: Scheme) -> bool:
    """Whether the scheme fixes the scale of inputs from calibration."""
    return scheme.activations is not None and not _INPUTS[scheme.activations][2]


def quantization_config(scheme: Scheme, ignore: list[str], assigned: Assignment | None = None) -> dict[str, Any]:
    """The ``quantization_config`` of config.json; ``ignore`` names the linear layers that stay in 16 bit.

    ``assigned`` says which layers take which of a layerwise scheme's two; ValueError without it.
    """
    form, groups = storage(scheme), {"group_0": _group(scheme, ["Linear"])}
    if scheme.higher is not None:
        if assigned is None:
            raise ValueError(f"{scheme.name} is two schemes; say which layers take which")
        lower, higher = assigned.targets
        # Names go before the class: the library warns of a target that it never came to.
        parts = sorted(((scheme, lower), (scheme.higher, higher)), key=lambda part: part[1] == ["Linear"])
        groups = {f"group_{i}": _group(*part) for i, part in enumerate(parts)}
        form = form if storage(scheme.higher) == form else "mixed-precision"
    # Transformers builds an asymmetric layer with an unpacked zero point and then refuses the packed one, unless it is
    # told to unpack while it loads (seen with Transformers 5.23 and compressed-tensors 0.19).
    unpack = {} if scheme.symmetric else {"dequantize": True}
    return {
        **unpack,
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignore,
        "kv_cache_scheme": None,
    }


def _group(scheme: Scheme, targets: list[str]) -> dict[str, Any]:
    weights = {
        "num_bits": scheme.bits,
        "type": "float" if scheme.kind == "float8" else "int",
        "symmetric": scheme.symmetric,
        "strategy": scheme.granularity,
        "group_size": scheme.group,
        "dynamic": False,
    }
    inputs = _input_activations(scheme.activations) if scheme.activations else None
    group: dict[str, Any] = {
        "targets": targets,
        "weights": weights,
        "input_activations": inputs,
        "output_activations": None,
    }
    if inputs is not None or scheme.kind == "float8":
        # Left to itself, the library guesses that weights whose inputs are rounded lie unpacked.
        group["format"] = storage(scheme)
    return group


def _input_activations(kind: Activations) -> dict[str, Any]:
    number, strategy, dynamic = _INPUTS[kind]
    return {"num_bits": 8, "type": number, "symmetric": True, "strategy": strategy, "dynamic": dynamic}


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
