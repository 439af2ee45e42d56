"""Schemes: which numbers a weight may take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from quantwise.core.artifact import FormatName
from quantwise.core.errors import InputError

SchemeKind = Literal["float", "integer", "ggml"]
Granularity = Literal["tensor", "channel", "group"]

INTEGER_BITS = (2, 3, 4, 8)
GROUP_SIZES = (32, 64, 128)
# A scale is stored in the model's own 16-bit type.
SCALE_BITS = 16


@dataclass(frozen=True, slots=True)
class Scheme:
    """One number format for the weights of the decoder's linear layers.

    ``bits`` counts a code without its scale. ``group`` is the number of neighbouring columns (of one row) that share a
    scale; None where a whole row (``channel``) or a whole matrix (``tensor``) does. ``format`` is how it is stored.
    """

    name: str
    kind: SchemeKind
    bits: int
    granularity: Granularity
    format: FormatName
    group: int | None = None
    symmetric: bool = True

    def bits_per_weight(self, rows: int, columns: int) -> float:
        """Bits for each weight of a (rows, columns) matrix, scales and zero points included."""
        if self.kind == "float":
            return float(self.bits)
        scales = {"tensor": 1, "channel": rows, "group": rows * columns / (self.group or 1)}[self.granularity]
        return self.bits + scales * (SCALE_BITS + (0 if self.symmetric else self.bits)) / (rows * columns)

    def divides(self, columns: int) -> bool:
        """Whether a row of ``columns`` weights splits into whole groups."""
        return self.group is None or columns % self.group == 0


def _fixed() -> dict[str, Scheme]:
    schemes = (
        Scheme("16bit", "float", 16, "tensor", "safetensors"),
        Scheme("bf16", "float", 16, "tensor", "gguf"),
        Scheme("f16", "float", 16, "tensor", "gguf"),
        # Block layouts of ggml: 32 weights of one row share a 16-bit float scale (ggml-common.h).
        Scheme("q8_0", "ggml", 8, "group", "gguf", group=32),
        Scheme("q4_0", "ggml", 4, "group", "gguf", group=32),
    )
    return {scheme.name: scheme for scheme in schemes}


FIXED_SCHEMES = _fixed()
_INTEGER = re.compile(r"int(?P<bits>\d+)-(?P<shape>tensor|channel|g(?P<group>\d+))(?P<asym>-asym)?")


def allowed_schemes() -> str:
    """The valid scheme names, as an error message lists them."""
    bits, groups = "|".join(map(str, INTEGER_BITS)), "|".join(f"g{size}" for size in GROUP_SIZES)
    return f"{', '.join(FIXED_SCHEMES)}, int{{{bits}}}-{{tensor|channel|{groups}}}[-asym]"


def parse_scheme(text: str) -> Scheme:
    """Read a scheme's name, such as ``int4-g64``, ``int3-channel-asym`` or ``q8_0``. Raises InputError on any other."""
    name = text.strip().lower()
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
