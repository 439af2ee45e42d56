"""The plug point for quantizers: how the numbers are chosen. A quantizer sees one matrix, never a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol

from torch import Tensor

from quantwise.core.artifact import Degradation
from quantwise.grids.grid import Grid, S


@dataclass(frozen=True, slots=True)
class Quantized(Generic[S]):
    """A matrix in few bits.

    ``codes`` int8 (out, in); ``steps`` as the grid fitted them: ``steps.scale`` and ``steps.zero`` on integer grids; on
    ggml's, ``grid.pack(codes, steps)`` gives the bytes of a file. ``dequantized`` is float32 (out, in): exactly the
    numbers that codes and steps stand for.
    """

    codes: Tensor
    steps: S
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
        """The statistics it reads from ``seen``, taken over calibration tokens: ``hessian`` is the float64 (in, in) sum
        of x x^T, ``mean_square`` the float (in,) mean of x^2. Empty where no data is used.
        """
        ...

    def __call__(self, weight: Tensor, grid: Grid[S], seen: Mapping[str, Tensor]) -> Quantized[S]:
        """Quantize ``weight`` (out, in), finite. Pure: equal arguments give equal bits."""
        ...
