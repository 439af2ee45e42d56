"""One quantized layer as a folder stores it, whichever layout that is: codes, scales and zero points.

The layouts: ``formats/compressed_tensors.py``, ``formats/gptq_layout.py``, ``formats/awq_layout.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantwise.formats.bit_packing import unpack_words

PARTS: Mapping[str, tuple[str, ...]] = {
    "compressed-tensors": (
        "weight", "weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "input_scale", "weight_g_idx",
    ),
    "gptq": ("qweight", "qzeros", "scales", "g_idx"),
    "awq": ("qweight", "qzeros", "scales"),
}  # fmt: skip
"""The last parts of the names of a layer's tensors."""
SCALE = {"compressed-tensors": "weight_scale", "gptq": "scales", "awq": "scales"}
"""The part that every quantized layer has, and no other."""

_AWQ_BITS = 4
# Where output 0 .. 7 of a word lies among its codes, from the lowest bits up.
_AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """``codes`` (out, in), signed integers of ``bits`` or float8_e4m3fn; ``scale`` float32 (out or 1, groups);
    ``zero`` like ``scale``, or None; ``input_scale`` (1,), or None; ``group`` int64 (in,), the group of each input, or
    None where groups split a row evenly.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None
    input_scale: Tensor | None = None
    group: Tensor | None = None
    bits: int = 8

    def values(self) -> Tensor:
        """float32 (out, in)."""
        columns, groups = self.codes.shape[1], self.scale.shape[1]
        group = torch.arange(columns) // (columns // groups) if self.group is None else self.group
        codes = self.codes.float()
        if self.zero is not None:
            codes = codes - self.zero[:, group]
        return codes * self.scale[:, group]


def stored_layer(parts: Mapping[str, Tensor], settings: Mapping[str, Any]) -> StoredLayer:
    """The layer that ``parts``, by the last part of their names, stand for; ``settings`` is ``quantization_config``.

    Raises KeyError, IndexError, ValueError or RuntimeError where parts are missing or do not suit each other.
    """
    return _READERS[str(settings.get("quant_method"))](parts, settings)


def _compressed(parts: Mapping[str, Tensor], settings: Mapping[str, Any]) -> StoredLayer:
    from compressed_tensors.compressors import unpack_from_int32

    zero, bits = None, 8
    if "weight_packed" in parts:
        shape = torch.Size(parts["weight_shape"].tolist())
        # Rows of codes fill whole words but for the last, so the words of a row tell the bits.
        bits = 32 * parts["weight_packed"].shape[1] // shape[1]
        codes = unpack_from_int32(parts["weight_packed"], bits, shape)
    else:
        codes = parts["weight"]
    scale = parts["weight_scale"].float()
    scale = scale.reshape(codes.shape[0] if scale.numel() > 1 else 1, -1)
    if "weight_zero_point" in parts:
        zero = unpack_from_int32(parts["weight_zero_point"], bits, scale.shape, packed_dim=0).float()
    group = parts["weight_g_idx"].long() if "weight_g_idx" in parts else None
    return StoredLayer(codes, scale, zero, parts.get("input_scale"), group, bits)


def _gptq(parts: Mapping[str, Tensor], settings: Mapping[str, Any]) -> StoredLayer:
    """``g_idx`` says which group an input belongs to, in any order (``desc_act``)."""
    bits = int(settings["bits"])
    stored_less = 0 if settings.get("checkpoint_format") == "gptq_v2" else 1
    zeros = unpack_words(parts["qzeros"], bits) + stored_less
    codes, scale = unpack_words(parts["qweight"].t(), bits), parts["scales"].float().t()
    group = parts["g_idx"].long() if "g_idx" in parts else None
    if group is not None and torch.equal(group, torch.arange(len(group)) // (len(group) // scale.shape[1])):
        group = None
    return _signed(codes, scale, zeros.t(), bits, group)


def _awq(parts: Mapping[str, Tensor], settings: Mapping[str, Any]) -> StoredLayer:
    codes, zeros = (_in_order(unpack_words(parts[part], _AWQ_BITS)).t() for part in ("qweight", "qzeros"))
    return _signed(codes, parts["scales"].float().t(), zeros, _AWQ_BITS, None)


def _signed(codes: Tensor, scale: Tensor, zeros: Tensor, bits: int, group: Tensor | None) -> StoredLayer:
    """From codes and zero points that begin at 0; a zero point in the middle of all is none."""
    half = 1 << (bits - 1)
    if zeros.shape != scale.shape:
        raise ValueError(f"{tuple(zeros.shape)} zero points for {tuple(scale.shape)} scales")
    moved = (zeros - half).float()
    return StoredLayer((codes - half).to(torch.int8), scale, moved if bool(moved.any()) else None, None, group, bits)


def _in_order(codes: Tensor) -> Tensor:
    return codes.reshape(*codes.shape[:-1], -1, len(_AWQ_PLACES))[..., list(_AWQ_PLACES)].reshape(codes.shape)


_READERS: Mapping[str, Callable[[Mapping[str, Tensor], Mapping[str, Any]], StoredLayer]] = {
    "compressed-tensors": _compressed,
    "gptq": _gptq,
    "awq": _awq,
}
