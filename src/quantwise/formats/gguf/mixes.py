"""Which ggml type each tensor takes in a file of a given name, as llama-quantize assigns them.

A name such as ``q4_k_m`` is a mix: most matrices take its main type, value and down projections of some layers more
bits. Written after the rules in llama.cpp's src/llama-quant.cpp (2026) and checked against its files; llama.cpp's own
exceptions for Falcon are left out. Pure arithmetic on names and shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from quantwise.formats.gguf.types import GGML_TYPES

# Weights and bytes of one ggml block.
GGML_BLOCKS: Mapping[str, tuple[int, int]] = {kind.name: (kind.weights, kind.bytes) for kind in GGML_TYPES.values()}
# The main type of each mix; every other name is a type itself.
_MAIN = {"q3_k_s": "q3_k", "q3_k_m": "q3_k", "q3_k_l": "q3_k", "q4_k_s": "q4_k", "q4_k_m": "q4_k", "q5_k_s": "q5_k",
         "q5_k_m": "q5_k"}  # fmt: skip
# What a row takes that does not split into blocks of 256.
_FALLBACK = {"q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0", "tq1_0": "q4_0",
             "tq2_0": "q4_0", **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s",
                                               "iq4_xs"), "iq4_nl")}  # fmt: skip
_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.weight")
# Small, and computed in 32 bit: they are written so by llama.cpp's converter and never quantized.
_NEVER = ("_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "token_types.weight", "ssm_conv1d",
          "shortconv.conv.weight")  # fmt: skip


@dataclass(frozen=True, slots=True)
class MixedModel:
    """What an assignment depends on. ``heads_per_kv`` queries share one key and value; ``experts`` is 0 where there is
    no mixture; ``architecture`` is llama.cpp's name.
    """

    layers: int
    heads_per_kv: int
    experts: int = 0
    architecture: str = "llama"

    @property
    def seventy_billion(self) -> bool:
        """What llama.cpp takes for a model of 70B: Llama 2's, and each Qwen 2 of 80 layers."""
        shared = self.architecture == "llama" and self.heads_per_kv > 1
        return self.layers == 80 and (shared or self.architecture == "qwen2")


def ggml_types(
    shapes: Mapping[str, tuple[int, ...]],
    mix: str,
    model: MixedModel,
    *,
    importance: bool = False,
    sixteen: str = "f16",
) -> dict[str, str]:
    """The type of each tensor by its GGUF name; ``shapes`` are (..., columns) of all tensors of the file.

    ``importance`` tells that an importance matrix is at hand: llama-quantize then guards the first down projections of
    q4_0 and q5_0 files. A row that splits into no block takes ``sixteen``.
    """
    # Without an output matrix of its own, a model reads its embedding as one.
    outputs = {"output.weight"} if "output.weight" in shapes else {"token_embd.weight"}
    return {
        name: fitting(wanted, shape[-1], sixteen) if (wanted := _wanted(name, shape, mix, model, importance, outputs))
        else "f32" for name, shape in shapes.items()
    }  # fmt: skip


def tensor_bytes(shape: tuple[int, ...], ggml: str) -> int:
    """Bytes of a tensor stored in a type."""
    weights, size = GGML_BLOCKS[ggml]
    return math.prod(shape) // weights * size


def fitting(ggml: str, columns: int, sixteen: str = "f16") -> str:
    """The type itself where rows of ``columns`` split into its blocks, else what llama-quantize takes instead."""
    if columns % GGML_BLOCKS[ggml][0] == 0:
        return ggml
    instead = _FALLBACK.get(ggml, sixteen)
    return instead if columns % GGML_BLOCKS[instead][0] == 0 else sixteen


def never_quantized(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor stays in 32 bit whatever the mix."""
    return len(shape) < 2 or not name.endswith("weight") or any(part in name for part in _NEVER)


def _wanted(
    name: str, shape: tuple[int, ...], mix: str, model: MixedModel, importance: bool, outputs: set[str]
) -> str | None:
    """The type before it is looked at whether it fits; None for what is never quantized."""
    if never_quantized(name, shape):
        return None
    if mix in ("f32", "f16", "bf16"):
        return mix
    main = _MAIN.get(mix, mix)
    if name in outputs:
        return "q8_0" if main == "q8_0" or shape[-1] % GGML_BLOCKS[main][0] else "q6_k"
    found = _LAYER.fullmatch(name)
    return (_in_layer(found[2], int(found[1]), mix, model, importance) if found else None) or main


def _in_layer(part: str, layer: int, mix: str, model: MixedModel, importance: bool) -> str | None:
    """The type of a matrix of one layer where it is not the mix's main type."""
    eight = model.experts == 8
    if part in ("attn_v", "attn_qkv", "attn_kv_b"):
        return "q8_0" if eight else _value(layer, mix, model)
    if part == "attn_k":
        return "q8_0" if eight else None
    if part == "attn_output":
        if eight:
            return "q5_k" if mix in ("q2_k", "q3_k_s", "q3_k_m", "q4_k_s", "q4_k_m") else None
        return {"q2_k": "q3_k", "q3_k_m": "q4_k", "q3_k_l": "q5_k"}.get(mix)
    if part.startswith("ffn_down"):
        return _down(layer, mix, model.layers, importance)
    return None


def _value(layer: int, mix: str, model: MixedModel) -> str | None:
    found = {"q2_k": "q4_k" if model.heads_per_kv >= 4 else "q3_k", "q3_k_l": "q5_k"}.get(mix)
    if mix == "q3_k_m":
        found = "q5_k" if layer < 2 else "q4_k"
    elif mix in ("q4_k_m", "q5_k_m") and more_bits(layer, model.layers):
        found = "q6_k"
    elif mix == "q4_k_s" and layer < 4:
        found = "q5_k"
    # Eight heads share a small matrix there, so that bits cost little.
    return "q5_k" if model.seventy_billion and (found or _MAIN.get(mix, mix)) in ("q3_k", "q4_k") else found


def _down(layer: int, mix: str, layers: int, importance: bool) -> str | None:
    first = layer < layers // 8
    match mix:
        case "q2_k":
            return "q3_k"
        case "q3_k_m":
            return "q5_k" if layer < layers // 16 else "q4_k"
        case "q3_k_l":
            return "q5_k"
        case "q4_k_m" | "q5_k_m" if more_bits(layer, layers):
            return "q6_k"
        case "q4_k_s" if first:
            return "q5_k"
        case "q4_0" | "q5_0" if first and importance:
            return {"q4_0": "q4_1", "q5_0": "q5_1"}[mix]
    return None


def more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
