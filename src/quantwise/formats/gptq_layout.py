"""The GPTQ checkpoint layout (AutoGPTQ, GPTQModel), as vLLM and Transformers load it.

Each quantized ``X.weight`` (out, in) becomes, with b-bit unsigned codes and ``groups`` scales to a row:
``X.qweight`` int32 (in * b / 32, out), codes packed along the inputs; ``X.qzeros`` int32 (groups, out * b / 32), zero
points packed along the outputs, minus one on symmetric schemes; ``X.scales`` (groups, out); ``X.g_idx`` int32 (in,),
the group of each input. value = scale * (code - zero).
Facts: https://github.com/AutoGPTQ/AutoGPTQ, https://github.com/ModelCloud/GPTQModel
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantwise import __version__
from quantwise.core.scheme import Scheme
from quantwise.formats.bit_packing import pack_words, unpack_words
from quantwise.formats.compressed_tensors import IntegerLayer
from quantwise.formats.quantized_folder import write_quantized
from quantwise.formats.safetensors_folder import ModelFolder


def subtracts_one(scheme: Scheme) -> bool:
    """Whether zero points are stored minus one (``checkpoint_format`` ``gptq``), as all readers know it.

    A zero point of 0 (a group without negative weights) would wrap to the largest code, which readers do not undo; so
    asymmetric schemes are written as ``gptq_v2``, whose zero points are stored as they are.
    """
    return scheme.symmetric


def pack_gptq(layer: IntegerLayer, scheme: Scheme, dtype: torch.dtype) -> dict[str, Tensor]:
    """The stored tensors of one layer by the last part of their name. Raises ValueError where words stay unfilled."""
    offset = 1 << (scheme.bits - 1)
    rows, columns = layer.codes.shape
    groups = layer.scale.shape[1]
    zero = torch.zeros(rows, groups) if layer.zero is None else layer.zero
    stored_zero = zero.to(torch.int32) + offset - int(subtracts_one(scheme))
    return {
        "qweight": pack_words(layer.codes.to(torch.int32) + offset, scheme.bits).t().contiguous(),
        "qzeros": pack_words(stored_zero.t(), scheme.bits).contiguous(),
        "scales": layer.scale.to(dtype).t().contiguous(),
        "g_idx": torch.arange(columns, dtype=torch.int32) // (columns // groups),
    }


def unpack_gptq(stored: Mapping[str, Tensor], scheme: Scheme) -> IntegerLayer:
    """The layer that ``pack_gptq`` packed, its scales float32. ``g_idx`` is taken to be in order (no ``desc_act``)."""
    offset = 1 << (scheme.bits - 1)
    codes = unpack_words(stored["qweight"].t(), scheme.bits) - offset
    zero = (unpack_words(stored["qzeros"], scheme.bits) + int(subtracts_one(scheme)) - offset).t().float()
    scale = stored["scales"].t().float()
    return IntegerLayer(codes.to(torch.int8), scale, None if scheme.symmetric else zero)


def gptq_config(scheme: Scheme, kept: list[str]) -> dict[str, Any]:
    """The ``quantization_config`` of config.json, also written as quantize_config.json, where older readers look.

    ``kept`` names the linear layers that stay in 16 bit. GPTQModel reads them from ``dynamic``; vLLM sees by a tensor's
    type what is quantized.
    """
    return {
        "quant_method": "gptq",
        "checkpoint_format": "gptq" if subtracts_one(scheme) else "gptq_v2",
        "bits": scheme.bits,
        "group_size": scheme.group or -1,
        "sym": scheme.symmetric,
        # Groups keep their place: a quantizer may visit columns in any order, but scales are fitted before that.
        "desc_act": False,
        "lm_head": False,
        "dynamic": {f"-:^{re.escape(name)}$": {} for name in kept if name != "lm_head"},
        "meta": {"quantizer": [f"quantwise:{__version__}"]},
    }


def write_gptq(
    target: Path, source: ModelFolder, layers: Mapping[str, IntegerLayer], scheme: Scheme, kept: list[str]
) -> None:
    """Write ``source`` into the existing folder ``target`` with ``layers`` (module name to codes) in GPTQ layout.

    Raises KeyError where a layer has no weight in ``source``, ValueError where one does not fill whole words.
    """
    packed = {name: pack_gptq(layer, scheme, source.sixteen_bit) for name, layer in layers.items()}
    config = gptq_config(scheme, kept)
    write_quantized(target, source, packed, config)
    (target / "quantize_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
