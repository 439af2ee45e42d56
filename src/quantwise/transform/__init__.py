"""Transforms, written out: a new one is its own file, one line here, one in core.recipe.TRANSFORMS, and its test."""

from __future__ import annotations

from collections.abc import Callable

from quantwise.transform.awq import Awq
from quantwise.transform.smoothquant import SmoothQuant
from quantwise.transform.transform import Transform

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "awq": Awq,
    "smoothquant": SmoothQuant,
}
