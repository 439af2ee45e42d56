"""The plug point for grids: which numbers a matrix may take, and how their parameters are fitted."""

from __future__ import annotations

from typing import Protocol, TypeVar

from torch import Tensor


class Steps(Protocol):
    """Fitted parameters of one (rows, columns) matrix; each grid has its own."""

    def spread(self) -> tuple[Tensor, Tensor | None]:
        """``scale`` and ``zero`` for every weight, float32, each broadcastable to (rows, columns)."""
        ...


S = TypeVar("S", bound=Steps)


class Grid(Protocol[S]):
    """One number format. Matrices are (rows, columns) = (out, in); groups and blocks lie along a row.

    ``zero`` is None on symmetric grids. What it counts is the grid's own affair (codes on integer grids, values on
    ggml's), and only ``round`` and ``value`` of the same grid read it.
    """

    @property
    def lowest(self) -> int:
        """The smallest code."""
        ...

    @property
    def highest(self) -> int:
        """The largest code."""
        ...

    def fit(self, weight: Tensor, importance: Tensor | None = None) -> S:
        """Choose scales (and zeros). ``importance`` is a non-negative (columns,) vector: what a squared rounding error
        in each column costs. Parameters come out rounded to what will be stored.
        """
        ...

    def quantize(self, weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, S]:
        """Codes (rows, columns) and parameters at once, as plain rounding in this format does it."""
        ...

    def round(self, values: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        """Nearest codes (float32, whole numbers); ``scale`` and ``zero`` broadcast to ``values``, or are a part of it.

        A scale of zero gives any code: all of them stand for the same number.
        """
        ...

    def value(self, codes: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        """The numbers that codes stand for, float32."""
        ...

    def decode(self, codes: Tensor, steps: S) -> Tensor:
        """The float32 (rows, columns) matrix that stored codes stand for."""
        ...
