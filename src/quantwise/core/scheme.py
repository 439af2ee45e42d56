"""Schemes: which numbers a weight may take, and an activation where the scheme rounds those too."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from quantwise.core.artifact import FormatName
from quantwise.core.errors import InputError

SchemeKind = Literal["float", "integer", "ggml", "nf4", "float8", "llm-int8", "auto"]
Granularity = Literal["tensor", "channel", "group"]
# How inputs of linear layers are rounded: one scale per token while it runs, or one per tensor fixed by calibration.
Activations = Literal["int8-token", "int8-tensor", "fp8-token", "fp8-tensor"]

INTEGER_BITS = (2, 3, 4, 8)
GROUP_SIZES = (32, 64, 128)
# A scale is stored in the model's own 16-bit type.
SCALE_BITS = 16


@dataclass(frozen=True, slots=True)
class Scheme:
    """One number format for the weights of the decoder's linear layers.

    ``bits`` counts a code without its scale. ``group`` is the number of neighbouring columns (of one row) that share a
    scale; None where a whole row (``channel``) or a whole matrix (``tensor``) does. ``format`` is how it is stored.
    A ``ggml`` scheme may be a mix (``q4_k_m``): then ``bits`` and ``group`` are those of its main type. ``higher`` is
    what some matrices take instead in a ``layerwise-`` scheme (``core.layerwise``); None elsewhere.
    """

    name: str
    kind: SchemeKind
    bits: int
    granularity: Granularity
    format: FormatName
    group: int | None = None
    symmetric: bool = True
    activations: Activations | None = None
    higher: Scheme | None = None

    def bits_per_weight(self, rows: int, columns: int) -> float:
        """Bits for each weight of a (rows, columns) matrix, scales and zero points included."""
        if self.kind == "float":
            return float(self.bits)
        scales = {"tensor": 1, "channel": rows, "group": rows * columns / (self.group or 1)}[self.granularity]
        return self.bits + scales * (SCALE_BITS + (0 if self.symmetric else self.bits)) / (rows * columns)

    def divides(self, columns: int) -> bool:
        """Whether a row of ``columns`` weights splits into whole groups."""
        return self.group is None or columns % self.group == 0


def _ggml(name: str, bits: int, block: int, *, symmetric: bool) -> Scheme:
    return Scheme(name, "ggml", bits, "group", "gguf", group=block, symmetric=symmetric)


def _fixed() -> dict[str, Scheme]:
    schemes = (
        Scheme("16bit", "float", 16, "tensor", "safetensors"),
        Scheme("bf16", "float", 16, "tensor", "gguf"),
        Scheme("f16", "float", 16, "tensor", "gguf"),
        # Block layouts of ggml: 32 weights of one row share a 16-bit float scale (ggml-common.h) ...
        _ggml("q8_0", 8, 32, symmetric=True),
        _ggml("q4_0", 4, 32, symmetric=True),
        _ggml("q4_1", 4, 32, symmetric=False),
        _ggml("q5_0", 5, 32, symmetric=True),
        _ggml("q5_1", 5, 32, symmetric=False),
        # ... or 256 weights two of them, and 16 or 32 weights small integers. The names are those of llama-quantize.
        *(_ggml(name, 2, 256, symmetric=False) for name in ("q2_k",)),
        *(_ggml(name, 3, 256, symmetric=True) for name in ("q3_k_s", "q3_k_m", "q3_k_l")),
        *(_ggml(name, 4, 256, symmetric=False) for name in ("q4_k_s", "q4_k_m")),
        *(_ggml(name, 5, 256, symmetric=False) for name in ("q5_k_s", "q5_k_m")),
        _ggml("q6_k", 6, 256, symmetric=True),
        # Normal quantiles, 64 weights to a scale (QLoRA); -dq rounds the scales to 8 bit as well.
        Scheme("nf4", "nf4", 4, "group", "bitsandbytes", group=64),
        Scheme("nf4-dq", "nf4", 4, "group", "bitsandbytes", group=64),
        Scheme("llm-int8", "llm-int8", 8, "channel", "bitsandbytes"),
        # e4m3; the weights alone, or the inputs too, with a scale per token or one fixed by calibration.
        Scheme("fp8-weights", "float8", 8, "channel", "compressed-tensors"),
        Scheme("fp8", "float8", 8, "channel", "compressed-tensors", activations="fp8-token"),
        Scheme("fp8-static", "float8", 8, "tensor", "compressed-tensors", activations="fp8-tensor"),
        Scheme("w8a8", "integer", 8, "channel", "compressed-tensors", activations="int8-token"),
        Scheme("w8a8-static", "integer", 8, "channel", "compressed-tensors", activations="int8-tensor"),
        Scheme("w4a8", "integer", 4, "group", "compressed-tensors", group=128, activations="int8-token"),
    )
    return {scheme.name: scheme for scheme in schemes}


FIXED_SCHEMES = _fixed()
# As llama-quantize reads them.
_ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}
_INTEGER = re.compile(r"int(?P<bits>\d+)-(?P<shape>tensor|channel|g(?P<group>\d+))(?P<asym>-asym)?")
_LAYERWISE = "layerwise-"
# What stands beside each: the next width for which runtimes have fast kernels.
_HIGHER = {"int2": "int4", "int3": "int4", "int4": "int8", "w4a8": "w8a8"}
LAYOUTS: dict[str, FormatName] = {"gptq": "gptq", "awq": "awq"}


def allowed_schemes() -> str:
    """The valid scheme names, as an error message lists them."""
    bits, groups = "|".join(map(str, INTEGER_BITS)), "|".join(f"g{size}" for size in GROUP_SIZES)
    return (
        f"{', '.join(FIXED_SCHEMES)}, int{{{bits}}}-{{tensor|channel|{groups}}}[-asym], and {_LAYERWISE} before "
        "a symmetric int2, int3, int4 or w4a8"
    )


def parse_scheme(text: str) -> Scheme:
    """Read a scheme's name, such as ``int4-g64``, ``int3-channel-asym``, ``q8_0`` or ``layerwise-int4-g128``.

    Raises InputError on any other.
    """
    name = text.strip().lower()
    name = _ALIASES.get(name, name)
    if name.startswith(_LAYERWISE):
        return _layerwise(name)
    if name in FIXED_SCHEMES:
        return FIXED_SCHEMES[name]
    match = _INTEGER.fullmatch(name)
    if match is None:
        raise InputError(f"unknown scheme {text!r}; allowed: {allowed_schemes()}")
    bits = int(match["bits"])
    group = int(match["group"]) if match["group"] else None
    if bits not in INTEGER_BITS or (group is not None and group not in GROUP_SIZES):
        raise InputError(f"no such integer scheme {text!r}; allowed: {allowed_schemes()}")
    symmetric = match["asym"] is None
    granularity: Granularity = "group" if group else ("tensor" if match["shape"] == "tensor" else "channel")
    if granularity == "tensor" and not symmetric:
        raise InputError(
            f"{text!r} cannot be stored: compressed-tensors packs zero points per channel or group only; "
            f"use int{bits}-channel-asym or a group"
        )
    return Scheme(name, "integer", bits, granularity, "compressed-tensors", group=group, symmetric=symmetric)


def _layerwise(name: str) -> Scheme:
    lower = parse_scheme(name.removeprefix(_LAYERWISE))
    width, dash, shape = lower.name.partition("-")
    # Transformers has to unpack zero points while it loads, and then reads all dense layers by one group's bits.
    if width not in _HIGHER or not lower.symmetric:
        raise InputError(f"no such scheme {name!r}; allowed: {_LAYERWISE} before a symmetric {', '.join(_HIGHER)}")
    return replace(lower, name=name, higher=parse_scheme(_HIGHER[width] + dash + shape))


def with_layout(scheme: Scheme, layout: str) -> Scheme:
    """The scheme stored as a GPTQ or AWQ checkpoint. Raises InputError where that layout has no place for it."""
    form = LAYOUTS.get(layout)
    if form is None:
        raise InputError(f"unknown layout {layout!r}; allowed: {', '.join(LAYOUTS)}")
    bits = {"gptq": (2, 3, 4, 8), "awq": (4,)}[layout]
    if scheme.higher is not None:
        raise InputError(f"a checkpoint in {layout.upper()} layout holds one scheme, not {scheme.name}; leave it out")
    if scheme.kind != "integer" or scheme.granularity == "tensor" or scheme.activations or scheme.bits not in bits:
        raise InputError(
            f"a checkpoint in {layout.upper()} layout cannot hold {scheme.name}; it takes int{{"
            f"{'|'.join(map(str, bits))}}} per channel or group, weights only"
        )
    return replace(scheme, format=form)
