"""Round to nearest: every weight goes to the closest code of a range that covers its group. No data is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from quantwise.grids.grid import Grid, S
from quantwise.quantize.quantizer import Quantized


@dataclass(frozen=True, slots=True)
class RoundToNearest:
    """The baseline of every comparison between quantizers. On ggml's grids it is ggml's own encoder."""

    name: str = "rtn"
    needs: frozenset[str] = frozenset()

    def __call__(self, weight: Tensor, grid: Grid[S], seen: Mapping[str, Tensor]) -> Quantized[S]:
        """Quantize ``weight`` (out, in); ``seen`` is not read."""
        codes, steps = grid.quantize(weight)
        return Quantized(codes, steps, grid.decode(codes, steps))
