"""Recipes: how an artifact is made, as a person writes it: ``gptq:int4-g64``, ``awq+rtn:int4-g128``, ``q4_k_m``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quantwise.core.errors import InputError
from quantwise.core.scheme import LAYOUTS, Scheme, SchemeKind, allowed_schemes, parse_scheme, with_layout

# Which kinds of scheme each quantizer can fill; the quantizers themselves are listed in quantize/__init__.py.
QUANTIZERS: dict[str, frozenset[SchemeKind]] = {
    "rtn": frozenset({"integer", "ggml", "nf4", "float8", "llm-int8"}),
    "imatrix": frozenset({"integer", "ggml"}),
    "gptq": frozenset({"integer", "ggml"}),
}
# They rewrite the model into an equal one; what they may stand before.
TRANSFORMS: dict[str, frozenset[SchemeKind]] = {
    "awq": frozenset({"integer", "ggml"}),
    "smoothquant": frozenset({"integer", "float8"}),
}
# ``propagate`` feeds each block what the quantized blocks before it give; ``distil`` trains the scales afterwards.
OPTIONS = ("propagate", "distil")
_BUDGET = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>bpw|([kmg]i?)?b)")
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True, slots=True)
class Budget:
    """What ``auto`` may spend: bits for each weight of the whole file, or its bytes. One of the two is None."""

    text: str
    bits_per_weight: float | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """Transforms, a quantizer with its options, and a scheme.

    ``quantizer`` is None for 16-bit schemes, where nothing is chosen. ``budget`` is given for ``auto`` only, whose
    scheme names the format that it mixes in.
    """

    scheme: Scheme
    quantizer: str | None = None
    transforms: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    budget: Budget | None = None

    def __post_init__(self) -> None:
        if self.quantizer is None:
            if self.scheme.kind != "float":
                raise InputError(f"{self.scheme.name!r} needs a quantizer; write for example rtn:{self.scheme.name}")
            return
        if self.quantizer not in QUANTIZERS:
            raise _unknown(self.quantizer)
        if self.budget is None and self.scheme.kind not in QUANTIZERS[self.quantizer]:
            able = [name for name, kinds in QUANTIZERS.items() if self.scheme.kind in kinds]
            advice = f"use {able[0]}:{self.scheme.name}" if able else f"use {self.scheme.name} alone"
            raise InputError(f"{self.quantizer} cannot fill {self.scheme.name!r}; {advice}")
        if "propagate" in self.options and not self._sees_inputs:
            raise InputError(f"{self.name}: rounding sees no inputs, so nothing is propagated; leave propagate out")
        for transform in self.transforms:
            if self.scheme.kind not in TRANSFORMS[transform]:
                raise InputError(f"{transform} does not help {self.scheme.name!r}; leave it out")
        if "distil" in self.options and not self._has_trainable_scales:
            raise InputError(
                f"{self.name}: scales of {self.scheme.name} are not trained; use distil+ with GGUF types, or integer "
                "schemes in compressed-tensors whose inputs are not rounded"
            )

    @property
    def _has_trainable_scales(self) -> bool:
        integer = self.scheme.kind == "integer" and self.scheme.format == "compressed-tensors"
        return self.scheme.format == "gguf" or (integer and not self.scheme.activations)

    @property
    def reads_data(self) -> bool:
        """Whether it is made with calibration texts: then it has a calibration hash."""
        return bool(self._sees_inputs or self.budget is not None or self.options)

    @property
    def _sees_inputs(self) -> bool:
        """Whether what is made of a layer depends on its inputs."""
        static = self.scheme.activations in ("int8-tensor", "fp8-tensor")
        return bool(self.quantizer not in (None, "rtn") or self.transforms or static)

    @property
    def name(self) -> str:
        """The recipe as a person writes it; ``parse_recipe`` reads it back."""
        if self.quantizer is None:
            return self.scheme.name
        distil = tuple(o for o in self.options if o == "distil")
        after = tuple(o for o in self.options if o != "distil")
        head = "+".join((*distil, *self.transforms, self.quantizer, *after))
        if self.budget is not None:
            return f"auto:{self.budget.text}" if head == "gptq" else f"{head}+auto:{self.budget.text}"
        layout = f",layout={self.scheme.format}" if self.scheme.format in LAYOUTS.values() else ""
        return f"{head}:{self.scheme.name}{layout}"


def parse_recipe(text: str) -> Recipe:
    """Read ``[TRANSFORM+]QUANTIZER:SCHEME[,layout=L]`` or a scheme alone, which is filled by rounding where it has to
    be filled at all; ``auto:4.5bpw`` or ``auto:900MB`` chooses a type for each tensor.

    Raises InputError that lists the valid choices.
    """
    head, colon, rest = text.strip().lower().partition(":")
    if not colon:
        try:
            scheme = parse_scheme(text)
        except InputError as error:
            raise InputError(
                f"unknown recipe {text!r}; write QUANTIZER:SCHEME, quantizers: {', '.join(QUANTIZERS)}; "
                f"schemes: {allowed_schemes()}"
            ) from error
        return Recipe(scheme) if scheme.kind == "float" else Recipe(scheme, "rtn")
    parts = head.split("+")
    transforms = tuple(p for p in parts if p in TRANSFORMS)
    options = tuple(o for o in OPTIONS if o in parts)
    named = [p for p in parts if p not in TRANSFORMS and p not in OPTIONS and p != "auto"]
    if unknown := [p for p in named if p not in QUANTIZERS]:
        raise _unknown(unknown[0])
    if twice := [p for p in parts if parts.count(p) > 1]:
        raise InputError(f"recipe {text!r} names {twice[0]} twice; write it once")
    if len(named) > 1:
        raise InputError(f"recipe {text!r} names more than one quantizer; write one of {', '.join(QUANTIZERS)}")
    if "auto" in parts:
        scheme = Scheme("auto", "auto", 4, "group", "gguf")
        return Recipe(scheme, named[0] if named else "gptq", transforms, options, read_budget(rest))
    name, comma, layout = rest.partition(",layout=")
    scheme = parse_scheme(name)
    return Recipe(with_layout(scheme, layout) if comma else scheme, named[0] if named else "rtn", transforms, options)


def _unknown(quantizer: str) -> InputError:
    return InputError(
        f"unknown quantizer {quantizer!r}; allowed: {', '.join(QUANTIZERS)}, "
        f"behind the transforms {', '.join(TRANSFORMS)} or the options {', '.join(OPTIONS)}"
    )


def read_budget(text: str) -> Budget:
    """Read ``4.5bpw`` or bytes such as ``900MB`` or ``3.2GiB``. Raises InputError on any other."""
    match = _BUDGET.fullmatch(text.strip().lower())
    if match is None or float(match["number"]) <= 0:
        raise InputError(f"unknown budget {text!r}; write bits per weight (4.5bpw) or bytes (900MB, 3.2GiB)")
    number = float(match["number"])
    if match["unit"] == "bpw":
        return Budget(match[0], bits_per_weight=number)
    return Budget(match[0], bytes=int(number * _UNITS[match["unit"]]))
