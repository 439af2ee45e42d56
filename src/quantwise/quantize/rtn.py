"""Round to nearest: every weight goes to the closest code of a range that covers its group. No data is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from quantwise.grids.integer import IntegerGrid
from quantwise.quantize.quantizer import Quantized


@dataclass(frozen=True, slots=True)
class RoundToNearest:
    """The baseline of every comparison between quantizers."""

    name: str = "rtn"
    needs: frozenset[str] = frozenset()

    def __call__(self, weight: Tensor, grid: IntegerGrid, seen: Mapping[str, Tensor]) -> Quantized:
        """Quantize ``weight`` (out, in); ``seen`` is not read."""
        steps = grid.fit(weight)
        codes = grid.encode(weight, steps)
        return Quantized(codes, steps.scale, steps.zero, grid.decode(codes, steps))
