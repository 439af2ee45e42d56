"""What torch's kernels for weights of eight and four bits take on a processor: shapes, as data (torch 2.6 to 2.13)."""

from __future__ import annotations

from collections.abc import Mapping

# Weights of a row that share a scale in the four-bit kernel, the most first.
KERNEL_GROUPS = (256, 128, 64, 32)
NARROW_ROWS: Mapping[int, int] = {8: 14, 4: 48}
"""By bits: up to how many rows of inputs the kernel is used. Beyond these a piece of the matrix is widened to 16 bit,
which is slower than 16 bit at first and nearly as fast with hundreds of rows (figures: ``docs/packed-kernels.md``)."""
INT4_ROWS = 64
"""Rows are filled up to a multiple of these, so that every block of rows has the same layout."""
INT8_COLUMNS = 16
"""Columns are filled up to a multiple of these, because the eight-bit kernel reads so many at a time."""


def kernel_group(width: int) -> int | None:
    """The kernel's group for scales that stand for ``width`` weights of a row; None where none divides it.

    A wider group becomes several that share a scale.
    """
    return next((size for size in KERNEL_GROUPS if width % size == 0), None)
