"""The plug point for quantizers: how the numbers are chosen. A quantizer sees one matrix, never a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from quantwise.core.artifact import Degradation
from quantwise.grids.integer import IntegerGrid


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix in few bits. ``codes`` int8 (out, in); ``scale`` and ``zero`` as in grids.integer.Steps;
    ``dequantized`` float32 (out, in), which is exactly scale * (codes - zero).
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None
    dequantized: Tensor
    degradations: tuple[Degradation, ...] = ()


class Quantizer(Protocol):
    """One way of choosing codes."""

    @property
    def name(self) -> str:
        """The name before the colon of a recipe."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """The statistics it reads from ``seen``: ``hessian`` is the float64 (in, in) sum of x x^T over calibration
        tokens. Empty where no data is used.
        """
        ...

    def __call__(self, weight: Tensor, grid: IntegerGrid, seen: Mapping[str, Tensor]) -> Quantized:
        """Quantize ``weight`` (out, in), finite. Pure: equal arguments give equal bits."""
        ...
