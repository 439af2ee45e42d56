"""GPTQ and AWQ checkpoints as the 16-bit weights that their codes stand for: the dequantized path.

Transformers hands these layouts to GPTQModel, whose kernels are written for accelerators. Both layouts are documented
and small (``stored_layer``), so they are read here, on any machine, whoever made them. What torch has no kernel for
is expanded here, and then what is measured are the answers of the artifact, not its speed; see ``packed_folder``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from quantwise.core.errors import RuntimeFailure
from quantwise.formats.safetensors_header import read_folder
from quantwise.runtimes.stored_layer import PARTS, stored_layer

_GPTQ_BITS = (2, 3, 4, 8)
_AWQ_BITS = 4


def expanded(folder: Path, settings: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of the folder by its name, quantized layers as one ``weight`` (out, in) in ``dtype``.

    ``settings`` is the ``quantization_config``. Raises RuntimeFailure for a version of a layout that is not read here,
    and where a layer is not complete.
    """
    method = str(settings.get("quant_method"))
    if (why := refuses(settings)) is not None:
        raise RuntimeFailure(f"{folder}: {why}")
    tensors: dict[str, Tensor] = {}
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors_of(folder):
        layer, _, part = name.rpartition(".")
        if part in PARTS["gptq"]:
            layers.setdefault(layer, {})[part] = tensor
        else:
            tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    for layer, parts in layers.items():
        try:
            tensors[f"{layer}.weight"] = stored_layer(parts, settings).values().to(dtype)
        except (KeyError, RuntimeError, IndexError, ValueError) as error:
            raise RuntimeFailure(f"{folder}: layer {layer} is no complete {method.upper()} layer ({error})") from error
    return tensors


def refuses(settings: Mapping[str, Any]) -> str | None:
    """Why a ``quantization_config`` of these layouts is not read here, or None."""
    method, bits = settings.get("quant_method"), settings.get("bits")
    if method == "gptq":
        if bits not in _GPTQ_BITS:
            return f"GPTQ with {bits} bits is not read here (2, 3, 4 or 8 are); serve the folder and give its address"
        form = settings.get("checkpoint_format", "gptq")
        if form not in ("gptq", "gptq_v2"):
            return f"GPTQ checkpoint format {form!r} is not read here; serve the folder and give its address"
        return None
    version = str(settings.get("version", "gemm")).lower()
    if bits != _AWQ_BITS or version != "gemm":
        return f"AWQ version {version!r} with {bits} bits is not read here (gemm with 4 is); serve it, give its address"
    return None


def tensors_of(folder: Path) -> list[tuple[str, Tensor]]:
    """Every tensor of a folder as it is stored, with its name."""
    entries = read_folder(folder)
    found = []
    for file in dict.fromkeys(entry.file for entry in entries.values()):
        with safe_open(file, framework="pt") as stream:
            found += [(n, stream.get_tensor(n)) for n, entry in entries.items() if entry.file == file]
    return found
