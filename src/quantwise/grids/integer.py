"""Uniform integer grids: value = scale * (code - zero), one scale per tensor, per row, or per group of columns.

Codes are signed: ``bits`` bits hold -2^(bits-1) .. 2^(bits-1) - 1. Symmetric scales are absmax / (2^(bits-1) - 1), so
that the largest weight and its negative both have a code; the one code below stays usable by error compensation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantwise.core.scheme import Granularity, Scheme

# Share of absmax kept at the far end of the search for the best scale, and its steps. Four or three levels are best
# spent on the bulk of a group, and one scale for a whole matrix on the bulk of its rows. A wider range than these has
# less rounding error still, but GPTQ, which adds to what is left, then ends up with more of it.
_SMALLEST_RANGE, _OF_TWO_BITS, _OF_A_MATRIX, _RANGE_STEPS = 0.6, 0.45, 0.3, 32

# Weights that are searched at once.
_CACHED = 1 << 17


@dataclass(frozen=True, slots=True)
class Steps:
    """Fitted parameters of a (rows, columns) matrix.

    ``scale`` is float32 of shape (rows, groups) or (1, 1); ``zero`` is a whole number in the codes' range, of the same
    shape, or None on a symmetric grid. ``columns`` is the row length.
    """

    scale: Tensor
    zero: Tensor | None
    columns: int

    def spread(self) -> tuple[Tensor, Tensor | None]:
        """``scale`` and ``zero`` for every column: (rows or 1, columns)."""
        repeat = self.columns // self.scale.shape[1]
        scale = self.scale.repeat_interleave(repeat, dim=1)
        return scale, None if self.zero is None else self.zero.repeat_interleave(repeat, dim=1)


@dataclass(frozen=True, slots=True)
class IntegerGrid:
    """An integer grid of one scheme.

    ``scale_dtype`` is the 16-bit type that scales are stored in: they are rounded to it before any code is chosen, so
    that the file holds exactly what was optimised.
    """

    bits: int
    granularity: Granularity
    group: int | None = None
    symmetric: bool = True
    scale_dtype: torch.dtype = torch.bfloat16

    @property
    def lowest(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1

    def fit(self, weight: Tensor, importance: Tensor | None = None) -> Steps:
        """Choose scales (and zero points) for a (rows, columns) float matrix.

        Without ``importance`` the range of the weights is covered exactly (absmax, or minimum to maximum). With it, a
        non-negative (columns,) vector such as the mean square of each input, the range is shrunk step by step to the
        least sum of importance * (rounding error)^2 in each group. Columns of no importance count like the mean of all
        others: what calibration never saw may still come.
        """
        blocks = self._blocks(weight.float())
        if importance is None:
            return Steps(*self._params(self._range(blocks), 1.0), weight.shape[1])
        heard = importance > 0
        unheard = importance[heard].mean() if bool(heard.any()) else torch.ones_like(importance[0])
        weights = torch.where(heard, importance, unheard).float().expand_as(weight).contiguous()
        return self._search(blocks, self._blocks(weights), weight.shape[1])

    def round(self, values: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        """Nearest codes (float32, whole numbers) of ``values``, whose scales and zeros broadcast to its shape."""
        codes = values / scale
        if zero is not None:
            codes = codes + zero
        return codes.round_().clamp_(self.lowest, self.highest)

    def value(self, codes: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        """The numbers that codes stand for."""
        return (codes if zero is None else codes - zero) * scale

    def quantize(self, weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Steps]:
        """Nearest codes, int8 (rows, columns), of the scales that ``fit`` chooses."""
        steps = self.fit(weight, importance)
        return self.encode(weight, steps), steps

    def encode(self, weight: Tensor, steps: Steps) -> Tensor:
        """Nearest codes of a whole matrix, int8 (rows, columns)."""
        return self.round(weight.float(), *steps.spread()).to(torch.int8)

    def decode(self, codes: Tensor, steps: Steps) -> Tensor:
        """The float32 matrix that codes stand for, (rows, columns)."""
        return self.value(codes.float(), *steps.spread())

    def _blocks(self, matrix: Tensor) -> Tensor:
        """(rows, groups, weights of one group); a tensor-wide scale is one row with one group."""
        rows, columns = matrix.shape
        if self.granularity == "tensor":
            return matrix.reshape(1, 1, -1)
        size = self.group or columns
        if columns % size:
            raise ValueError(f"{columns} columns do not split into groups of {size}")
        return matrix.reshape(rows, columns // size, size)

    def _range(self, blocks: Tensor) -> tuple[Tensor, Tensor | None]:
        """What each group must cover: its largest magnitude, or its (lowest, highest) weight."""
        if self.symmetric:
            return blocks.abs().amax(-1), None
        # Zero lies on the grid, so that a weight of exactly zero stays zero.
        return blocks.amin(-1).clamp_(max=0), blocks.amax(-1).clamp_(min=0)

    def _params(self, covered: tuple[Tensor, Tensor | None], keep: float) -> tuple[Tensor, Tensor | None]:
        low, high = covered
        if high is None:
            return self._stored(low * keep / self.highest), None
        low, high = low * keep, high * keep
        scale = self._stored((high - low) / (self.highest - self.lowest))
        return scale, (self.lowest - low / scale).round_().clamp_(self.lowest, self.highest)

    def _stored(self, scale: Tensor) -> Tensor:
        # An all-zero group takes any scale; one keeps it free of divisions by zero. So does a scale that underflows.
        stored = scale.to(self.scale_dtype).float()
        return torch.where(stored > 0, stored, torch.ones_like(stored))

    def _search(self, blocks: Tensor, importance: Tensor, columns: int) -> Steps:
        # Rows of groups do not know each other, and a few at a time stay in a core's cache.
        few = max(1, _CACHED // blocks[0].numel())
        if len(blocks) > few:
            starts = range(0, len(blocks), few)
            parts = [self._search(blocks[i : i + few], importance[i : i + few], columns) for i in starts]
            zeros = [part.zero for part in parts if part.zero is not None]
            return Steps(torch.cat([part.scale for part in parts]), torch.cat(zeros) if zeros else None, columns)
        covered = self._range(blocks)
        best_scale, best_zero = self._params(covered, 1.0)
        least = torch.full(best_scale.shape, torch.inf)
        smallest = _OF_TWO_BITS if self.bits == 2 else _SMALLEST_RANGE
        smallest = _OF_A_MATRIX if self.granularity == "tensor" else smallest
        for keep in torch.linspace(1.0, smallest, _RANGE_STEPS).tolist():
            scale, zero = self._params(covered, keep)
            wide = scale.unsqueeze(-1), None if zero is None else zero.unsqueeze(-1)
            error = self.value(self.round(blocks, *wide), *wide).sub_(blocks).square_().mul_(importance).sum(-1)
            better = error < least
            least = torch.where(better, error, least)
            best_scale = torch.where(better, scale, best_scale)
            if zero is not None and best_zero is not None:
                best_zero = torch.where(better, zero, best_zero)
        return Steps(best_scale, best_zero, columns)


def integer_grid(scheme: Scheme, scale_dtype: torch.dtype = torch.bfloat16) -> IntegerGrid:
    """The grid of an integer scheme."""
    if scheme.kind != "integer":
        raise ValueError(f"{scheme.name} is no integer scheme")
    return IntegerGrid(scheme.bits, scheme.granularity, scheme.group, scheme.symmetric, scale_dtype)
