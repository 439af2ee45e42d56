"""GPTQ and AWQ checkpoints as the 16-bit weights that their codes stand for.

Transformers hands these layouts to GPTQModel, whose kernels are written for accelerators. Both layouts are documented
and small, so they are expanded here, on any machine, whoever made them: what is then measured are the answers of the
artifact, not its speed. The layouts: ``formats/gptq_layout.py`` and ``formats/awq_layout.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from quantwise.core.errors import RuntimeFailure
from quantwise.formats.bit_packing import unpack_words
from quantwise.formats.safetensors_header import read_folder

_GPTQ_BITS = (2, 3, 4, 8)
_AWQ_BITS = 4
# Where output 0 .. 7 of a word lies among its codes, from the lowest bits up.
_AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
_PARTS = ("qweight", "qzeros", "scales", "g_idx")


def expanded(folder: Path, settings: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of the folder by its name, quantized layers as one ``weight`` (out, in) in ``dtype``.

    ``settings`` is the ``quantization_config``. Raises RuntimeFailure for a version of a layout that is not read here,
    and where a layer is not complete.
    """
    method = str(settings.get("quant_method"))
    read = {"gptq": _gptq, "awq": _awq}[method]
    if (why := refuses(settings)) is not None:
        raise RuntimeFailure(f"{folder}: {why}")
    tensors: dict[str, Tensor] = {}
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors_of(folder):
        layer, _, part = name.rpartition(".")
        if part in _PARTS:
            layers.setdefault(layer, {})[part] = tensor
        else:
            tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    for layer, parts in layers.items():
        try:
            tensors[f"{layer}.weight"] = read(parts, settings).to(dtype)
        except (KeyError, RuntimeError, IndexError) as error:
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


def _gptq(parts: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Tensor:
    """float32 (out, in). ``g_idx`` says which group an input belongs to, in any order (``desc_act``)."""
    bits = int(settings["bits"])
    codes = unpack_words(parts["qweight"].t(), bits)
    stored_less = 0 if settings.get("checkpoint_format") == "gptq_v2" else 1
    zeros = (unpack_words(parts["qzeros"], bits) + stored_less).t()
    scales = parts["scales"].float().t()
    columns = codes.shape[1]
    group = parts["g_idx"].long() if "g_idx" in parts else torch.arange(columns) // (columns // scales.shape[1])
    return (codes - zeros[:, group]).float() * scales[:, group]


def _awq(parts: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Tensor:
    """float32 (out, in)."""
    codes, zeros = (_in_order(unpack_words(parts[part], _AWQ_BITS)).t() for part in ("qweight", "qzeros"))
    scales = parts["scales"].float().t()
    width = codes.shape[1] // scales.shape[1]
    spread = [part.repeat_interleave(width, 1) for part in (zeros, scales)]
    return (codes - spread[0]).float() * spread[1]


def _in_order(codes: Tensor) -> Tensor:
    return codes.reshape(*codes.shape[:-1], -1, len(_AWQ_PLACES))[..., list(_AWQ_PLACES)].reshape(codes.shape)
