"""What weights may be planned to be stored in: every recipe that is built here, and types that only others write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantwise.core.errors import InputError
from quantwise.core.recipe import Recipe, parse_recipe
from quantwise.core.scheme import allowed_schemes
from quantwise.formats.gguf.small_mixes import SMALL_MIXES

WeightKind = Literal["float32", "recipe", "mix", "uniform", "mxfp4-experts", "as stored"]

# Codes of one weight, without scales. Ternary digits are packed five to a byte, or four.
_ONLY_BROUGHT = {
    "iq1_s": 1.0, "iq1_m": 1.0, "iq2_xxs": 2.0, "iq2_xs": 2.0, "iq2_s": 2.0, "iq3_xxs": 3.0, "iq3_s": 3.0,
    "iq4_nl": 4.0, "iq4_xs": 4.0, "tq1_0": 1.6, "tq2_0": 2.0, "mxfp4": 4.0, "nvfp4": 4.0, "q1_0": 1.0,
}  # fmt: skip
_BUILT = {"q2_k": 2.0, "q3_k": 3.0, "q4_k": 4.0, "q5_k": 5.0, "q6_k": 6.0, "q4_0": 4.0, "q4_1": 4.0, "q5_0": 5.0,
          "q5_1": 5.0, "q8_0": 8.0}  # fmt: skip
_UNIFORM = "uniform-"
_OTHERS = f"fp32, {', '.join(SMALL_MIXES)}, mxfp4-experts, stored, uniform-{{{'|'.join((*_BUILT, *_ONLY_BROUGHT))}}}"


@dataclass(frozen=True, slots=True)
class WeightScheme:
    """``bits`` are those of a code, without what a group shares. ``recipe`` is given for the kind of that name.

    A ``mix`` is a file as llama-quantize writes it. A ``uniform`` file takes the one ggml type ``ggml`` for every
    matrix, embeddings and output matrix included: mixes of that name give some matrices more bits.
    """

    name: str
    kind: WeightKind
    bits: float
    recipe: Recipe | None = None
    ggml: str | None = None


def parse_weight_scheme(text: str) -> WeightScheme:
    """Read a recipe's or scheme's name, or one of: ``fp32``; ``mxfp4-experts``, as gpt-oss is published; ``stored``, as
    the files are; another name of llama-quantize, such as ``iq4_xs``; ``uniform-TYPE`` for one ggml type.

    Raises InputError that lists what there is.
    """
    name = text.strip().lower()
    if name in ("fp32", "f32"):
        return WeightScheme("fp32", "float32", 32.0)
    if name == "mxfp4-experts":
        return WeightScheme(name, "mxfp4-experts", 4.0)
    if name == "stored":
        return WeightScheme(name, "as stored", 0.0)
    if name in SMALL_MIXES:
        return WeightScheme(name, "mix", {**_ONLY_BROUGHT, **_BUILT}[SMALL_MIXES[name]])
    ggml = name.removeprefix(_UNIFORM)
    bits = _ONLY_BROUGHT.get(ggml, _BUILT.get(ggml) if ggml != name else None)
    if bits is not None:
        return WeightScheme(f"{_UNIFORM}{ggml}", "uniform", bits, ggml=ggml)
    if ggml != name:
        raise InputError(f"unknown type {ggml!r:.40}; allowed: {_OTHERS}")
    try:
        recipe = parse_recipe(name)
    except InputError as error:
        if ":" in name:
            raise
        raise InputError(f"unknown scheme {text!r:.60}; allowed: {allowed_schemes()}, {_OTHERS}") from error
    return WeightScheme(name, "recipe", float(recipe.scheme.bits), recipe)
