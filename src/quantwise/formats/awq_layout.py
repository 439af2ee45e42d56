"""The AWQ checkpoint layout (AutoAWQ, version GEMM), 4 bits only, as vLLM and Transformers load it.

Each quantized ``X.weight`` (out, in) becomes ``X.qweight`` int32 (in, out / 8), unsigned codes packed along the
outputs; ``X.qzeros`` int32 (groups, out / 8), zero points packed alike; ``X.scales`` (groups, out). The eight codes of
a word lie, from its lowest bits up, in the order 0 2 4 6 1 3 5 7. value = scale * (code - zero).
Facts: https://github.com/casper-hansen/AutoAWQ
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantwise.core.scheme import Scheme
from quantwise.formats.bit_packing import pack_words, unpack_words
from quantwise.formats.checkpoint_limits import refuses_awq
from quantwise.formats.compressed_tensors import IntegerLayer
from quantwise.formats.quantized_folder import write_quantized
from quantwise.formats.safetensors_folder import ModelFolder

_BITS, _OFFSET = 4, 8
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def _interleaved(codes: Tensor, order: tuple[int, ...]) -> Tensor:
    return codes.reshape(*codes.shape[:-1], -1, len(order))[..., order].reshape(codes.shape)


def pack_awq(layer: IntegerLayer, scheme: Scheme, dtype: torch.dtype) -> dict[str, Tensor]:
    """The stored tensors of one layer by the last part of their name. Raises ValueError where it has no place here."""
    if (reason := refuses_awq(scheme, *layer.codes.shape)) is not None:
        raise ValueError(reason)
    zero = torch.zeros_like(layer.scale) if layer.zero is None else layer.zero
    codes, zeros = ((part.to(torch.int32) + _OFFSET).t() for part in (layer.codes, zero))
    return {
        "qweight": pack_words(_interleaved(codes, _ORDER), _BITS),
        "qzeros": pack_words(_interleaved(zeros, _ORDER), _BITS),
        "scales": layer.scale.to(dtype).t().contiguous(),
    }


def unpack_awq(stored: Mapping[str, Tensor], scheme: Scheme) -> IntegerLayer:
    """The layer that ``pack_awq`` packed, its scales float32."""
    back = tuple(_ORDER.index(i) for i in range(len(_ORDER)))
    codes, zeros = (
        (_interleaved(unpack_words(stored[part], _BITS), back) - _OFFSET).t() for part in ("qweight", "qzeros")
    )
    scale = stored["scales"].t().float()
    return IntegerLayer(codes.to(torch.int8), scale, None if scheme.symmetric else zeros.float())


def awq_config(scheme: Scheme, kept: list[str]) -> dict[str, Any]:
    """The ``quantization_config`` of config.json; ``kept`` names the linear layers that stay in 16 bit.

    ``zero_point`` is always true: symmetric codes are stored with the zero point 8, which every reader knows.
    """
    return {
        "quant_method": "awq",
        "version": "gemm",
        "bits": _BITS,
        "group_size": scheme.group or -1,
        "zero_point": True,
        "modules_to_not_convert": kept or None,
    }


def write_awq(
    target: Path, source: ModelFolder, layers: Mapping[str, IntegerLayer], scheme: Scheme, kept: list[str]
) -> None:
    """Write ``source`` into the existing folder ``target`` with ``layers`` (module name to codes) in AWQ layout.

    Raises KeyError where a layer has no weight in ``source``, ValueError where one has no place in the layout.
    """
    packed = {name: pack_awq(layer, scheme, source.sixteen_bit) for name, layer in layers.items()}
    write_quantized(target, source, packed, awq_config(scheme, kept))
