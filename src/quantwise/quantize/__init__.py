"""Quantizers, written out: a new one is its own file, one line here, one in core.recipe.QUANTIZERS, and its test."""

from __future__ import annotations

from collections.abc import Callable

from quantwise.quantize.gptq import Gptq
from quantwise.quantize.imatrix import ImportanceWeighted
from quantwise.quantize.quantizer import Quantizer
from quantwise.quantize.rtn import RoundToNearest

QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "rtn": RoundToNearest,
    "imatrix": ImportanceWeighted,
    "gptq": Gptq,
}
