"""bitsandbytes folders with LLM.int8() weights, as Transformers loads them with the bitsandbytes library.

Each quantized ``X.weight`` (out, in) becomes ``X.weight`` int8; ``X.SCB`` float32 (out,), the largest |weight| of each
row, which code 127 stands for; ``X.weight_format`` uint8, 0 for rows in order. https://huggingface.co/docs/bitsandbytes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantwise.formats.quantized_folder import write_quantized
from quantwise.formats.safetensors_folder import ModelFolder

# Columns in which some input is this large are multiplied in 16 bit: section 3.2 of the paper, the library's default.
OUTLIER = 6.0


@dataclass(frozen=True, slots=True)
class Int8Layer:
    """``codes`` int8 (out, in) in -127 .. 127; ``scale`` float32 (out, 1)."""

    codes: Tensor
    scale: Tensor


def pack_int8(layer: Int8Layer) -> dict[str, Tensor]:
    """The stored tensors of one layer by the last part of their name."""
    return {
        "weight": layer.codes.contiguous(),
        "SCB": layer.scale.reshape(-1).float() * 127.0,
        "weight_format": torch.tensor(0, dtype=torch.uint8),
    }


def int8_config(ignore: list[str]) -> dict[str, Any]:
    """The ``quantization_config`` of config.json; ``ignore`` names the linear layers that stay in 16 bit."""
    return {
        "quant_method": "bitsandbytes",
        "load_in_8bit": True,
        "load_in_4bit": False,
        "llm_int8_threshold": OUTLIER,
        "llm_int8_skip_modules": ignore,
        "llm_int8_has_fp16_weight": False,
        "llm_int8_enable_fp32_cpu_offload": False,
    }


def write_int8(target: Path, source: ModelFolder, layers: Mapping[str, Int8Layer], ignore: list[str]) -> None:
    """Write ``source`` into the existing folder ``target`` with ``layers`` (module name to codes) in eight bits.

    Every other tensor is written in the model's 16-bit type. Raises KeyError where a layer has no weight in ``source``.
    """
    write_quantized(target, source, {name: pack_int8(layer) for name, layer in layers.items()}, int8_config(ignore))
