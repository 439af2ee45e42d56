"""Which type each tensor takes in the files of llama-quantize that are not built here: importance, ternary and MXFP4.

As ``mixes``, which has the others: rules of src/llama-quant.cpp (2026), on names and shapes alone. Files of three bits
and less are taken to be made with an importance matrix, which most of them demand; those of four without one, in which
the first down projections take more bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from quantwise.formats.gguf.mixes import MixedModel, fitting, more_bits, never_quantized

# The main type of each file.
SMALL_MIXES: Mapping[str, str] = MappingProxyType(
    {
        "iq1_s": "iq1_s", "iq1_m": "iq1_m", "iq2_xxs": "iq2_xxs", "iq2_xs": "iq2_xs", "iq2_s": "iq2_xs",
        "iq2_m": "iq2_s", "iq3_xxs": "iq3_xxs", "iq3_xs": "iq3_s", "iq3_s": "iq3_s", "iq3_m": "iq3_s",
        "iq4_nl": "iq4_nl", "iq4_xs": "iq4_xs", "tq1_0": "tq1_0", "tq2_0": "tq2_0", "q2_k_s": "q2_k",
        "mxfp4_moe": "mxfp4",
    }
)  # fmt: skip
_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.weight")
# Two bits and less; the finer two of them lean on a type of three bits, the others on q2_k.
_TWO, _FINE_TWO = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m"), ("iq2_s", "iq2_m")
_EMBEDDINGS = {**dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs"), "q2_k"),
               **dict.fromkeys(("iq2_s", "iq2_m", "iq3_xxs"), "iq3_s"), "tq1_0": "q4_k", "tq2_0": "q4_k"}  # fmt: skip
_FIVE_FOR_EIGHT = ("iq3_xxs", "iq3_xs", "iq3_s", "iq3_m", "iq4_nl", "iq4_xs")


def small_mix_types(shapes: Mapping[str, tuple[int, ...]], mix: str, model: MixedModel) -> dict[str, str]:
    """The type of each tensor by its GGUF name; ``shapes`` are (..., columns) of all tensors of the file."""
    tied = "output.weight" not in shapes
    return {
        name: "f32" if never_quantized(name, shape) else fitting(_wanted(name, shape, mix, model, tied), shape[-1])
        for name, shape in shapes.items()
    }


def _wanted(name: str, shape: tuple[int, ...], mix: str, model: MixedModel, tied: bool) -> str:
    main = SMALL_MIXES[mix]
    output = name == "output.weight" or (tied and name == "token_embd.weight")
    if mix == "mxfp4_moe":
        return "mxfp4" if len(shape) > 2 and not output else "q8_0"
    if output:
        if fitting(main, shape[-1]) != main:
            return "q8_0"
        return "q5_k" if mix in _TWO or mix == "iq3_xxs" else "q6_k"
    if name == "token_embd.weight":
        return _EMBEDDINGS.get(mix, main)
    found = _LAYER.fullmatch(name)
    if found is None:
        return main
    layer, part = int(found[1]), found[2]
    chosen = _two_bits(part, layer, mix, model) if mix in _TWO else _in_layer(part, layer, mix, model)
    return chosen or main


def _two_bits(part: str, layer: int, mix: str, model: MixedModel) -> str | None:
    finer = "iq3_s" if mix in _FINE_TWO else "q2_k"
    if part == "attn_v":
        return "q4_k" if model.heads_per_kv >= 4 or model.experts >= 4 else finer
    if part == "attn_k":
        return "q4_k" if model.experts == 8 else None
    if part.startswith("ffn_down"):
        return finer if layer < model.layers // 8 else None
    if part == "attn_output":
        if model.experts == 8:
            return "q5_k"
        return "iq3_s" if mix in _FINE_TWO else "iq2_xxs" if mix in ("iq1_s", "iq1_m") else None
    return None


def _in_layer(part: str, layer: int, mix: str, model: MixedModel) -> str | None:
    eight = model.experts == 8
    if part == "attn_v":
        return "q8_0" if eight else _value(mix, model)
    if part in ("attn_k", "attn_q"):
        if eight and part == "attn_k":
            return "q8_0"
        return {"iq3_xs": "iq3_xxs", "iq3_xxs": "iq2_s"}.get(mix)
    if part == "attn_qkv":
        return "q4_k" if mix == "iq3_m" else None
    if part == "attn_output":
        if eight:
            return "q5_k" if mix in _FIVE_FOR_EIGHT else None
        return {"iq3_xxs": "iq3_s", "iq3_m": "q4_k"}.get(mix)
    if part.startswith("ffn_down"):
        first = layer < model.layers // 8
        fine = mix == "iq3_m" and (first or (eight and more_bits(layer, model.layers)))
        if first and mix in ("iq4_nl", "iq4_xs"):
            return "q5_k"
        return "q4_k" if fine or (mix == "q2_k_s" and first) else None
    if part.startswith(("ffn_gate", "ffn_up")) and mix == "iq3_xs":
        return "iq3_xxs" if model.layers // 8 <= layer < 7 * model.layers // 8 else None
    return None


def _value(mix: str, model: MixedModel) -> str | None:
    many = model.heads_per_kv >= 4
    found = {"iq3_m": "q4_k"}.get(mix)
    if many:
        found = {
            **dict.fromkeys(("q2_k_s", "iq3_xxs", "iq3_xs", "iq3_s"), "q4_k"),
            "iq4_nl": "q5_k",
            "iq4_xs": "q5_k",
        }.get(mix, found)
    return "q5_k" if model.seventy_billion and found == "q4_k" else found
