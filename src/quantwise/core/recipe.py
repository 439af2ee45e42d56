"""Recipes: how an artifact is made, as a person writes it: ``gptq:int4-g64``, ``rtn:q4_0``, ``16bit``."""

from __future__ import annotations

from dataclasses import dataclass

from quantwise.core.errors import InputError
from quantwise.core.scheme import Scheme, SchemeKind, allowed_schemes, parse_scheme

# Which kinds of scheme each quantizer can fill; the quantizers themselves are listed in quantize/__init__.py.
QUANTIZERS: dict[str, frozenset[SchemeKind]] = {
    "rtn": frozenset({"integer", "ggml"}),
    "gptq": frozenset({"integer"}),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A quantizer and a scheme. ``quantizer`` is None for 16-bit schemes, where nothing is chosen."""

    scheme: Scheme
    quantizer: str | None = None

    def __post_init__(self) -> None:
        if self.quantizer is None:
            if self.scheme.kind != "float":
                raise InputError(f"{self.scheme.name!r} needs a quantizer; write for example rtn:{self.scheme.name}")
            return
        if self.quantizer not in QUANTIZERS:
            raise InputError(f"unknown quantizer {self.quantizer!r}; allowed: {', '.join(QUANTIZERS)}")
        if self.scheme.kind not in QUANTIZERS[self.quantizer]:
            able = [name for name, kinds in QUANTIZERS.items() if self.scheme.kind in kinds]
            advice = f"use {able[0]}:{self.scheme.name}" if able else f"use {self.scheme.name} alone"
            raise InputError(f"{self.quantizer} cannot fill {self.scheme.name!r}; {advice}")

    @property
    def name(self) -> str:
        """The recipe as a person writes it; ``parse_recipe`` reads it back."""
        return self.scheme.name if self.quantizer is None else f"{self.quantizer}:{self.scheme.name}"


def parse_recipe(text: str) -> Recipe:
    """Read ``QUANTIZER:SCHEME`` or a scheme alone, which is filled by rounding where it has to be filled at all.

    Raises InputError that lists the valid choices.
    """
    quantizer, colon, rest = text.strip().partition(":")
    if not colon:
        try:
            scheme = parse_scheme(text)
        except InputError as error:
            raise InputError(
                f"unknown recipe {text!r}; write QUANTIZER:SCHEME, quantizers: {', '.join(QUANTIZERS)}; "
                f"schemes: {allowed_schemes()}"
            ) from error
        return Recipe(scheme) if scheme.kind == "float" else Recipe(scheme, "rtn")
    return Recipe(parse_scheme(rest), quantizer.lower())
