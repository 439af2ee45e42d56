"""Importance-weighted rounding: scales are searched so that errors in inputs that are large on average count more.

The "importance matrix" of llama.cpp (https://github.com/ggml-org/llama.cpp/pull/4861): one number for each input
channel, the mean square of what passes there. On ggml's grids the search is ggml's own and equal to llama-quantize's;
on integer grids it is the range search of ``IntegerGrid``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from quantwise.core.errors import QuantwiseError
from quantwise.grids.grid import Grid, S
from quantwise.quantize.quantizer import Quantized


@dataclass(frozen=True, slots=True)
class ImportanceWeighted:
    """Round to nearest with scales fitted to ``seen["mean_square"]``, (in,)."""

    name: str = "imatrix"
    needs: frozenset[str] = frozenset({"mean_square"})

    def __call__(self, weight: Tensor, grid: Grid[S], seen: Mapping[str, Tensor]) -> Quantized[S]:
        """Quantize ``weight`` (out, in). Raises QuantwiseError where calibration saw inputs that are not finite."""
        if not bool(torch.isfinite(seen["mean_square"]).all()):
            raise QuantwiseError("the calibration inputs of a layer are not finite (mean_square); check the model")
        codes, steps = grid.quantize(weight, seen["mean_square"])
        return Quantized(codes, steps, grid.decode(codes, steps))
