"""The plug point for transforms: they rewrite a model into an equal one that rounds better.

A transform sees the matrices that read one tensor (its sinks), never a model. What it returns multiplies the sinks'
columns; whoever produces the tensor is divided by the same numbers (``transform.rescale``), so nothing changes but what
rounding costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from quantwise.core.artifact import Degradation
from quantwise.core.errors import QuantwiseError
from quantwise.grids.grid import Grid


@dataclass(frozen=True, slots=True)
class Scaling:
    """``scale`` is positive float32 (in,). ``clips`` bounds the scaled weights of each sink, largest |weight| (rows,
    groups), in the order of the sinks; None where nothing is clipped.
    """

    scale: Tensor
    clips: tuple[Tensor, ...] | None = None
    degradations: tuple[Degradation, ...] = ()


class Transform(Protocol):
    """One way of choosing scales."""

    @property
    def name(self) -> str:
        """The name before the ``+`` of a recipe."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """The statistics it reads from ``seen``: ``hessian`` float64 (in, in), ``mean_square`` and ``absmax`` (in,)."""
        ...

    def __call__(
        self,
        sinks: Sequence[Tensor],
        grids: Sequence[Grid[Any]],
        seen: Mapping[str, Tensor],
        rows: Tensor | None = None,
    ) -> Scaling:
        """Scale the tensor that ``sinks``, each (out, in) and finite, read. Pure: equal arguments give equal bits.

        ``grids`` are those that the sinks will be rounded to, one for each: a mix gives values more bits than queries.

        ``rows`` int64 (in,) names the producer's row behind each input channel where several channels read one row
        (value heads shared by query heads); those get one scale. None where each channel has a row of its own.
        """
        ...


def shared(values: Tensor, rows: Tensor | None, reduce: str) -> Tensor:
    """``values`` (in,) with channels of one producer's row made equal, by their ``mean`` or ``amax``."""
    if rows is None:
        return values
    pooled = torch.zeros(int(rows.max()) + 1, dtype=values.dtype)
    return pooled.scatter_reduce(0, rows, values, reduce, include_self=False)[rows]


def require_finite(name: str, values: Tensor) -> Tensor:
    """``values`` as they are. Raises QuantwiseError where calibration saw inputs that are not finite."""
    if not bool(torch.isfinite(values).all()):
        raise QuantwiseError(f"the calibration inputs of a layer are not finite ({name}); check the model")
    return values


def silent_channels(silent: Tensor) -> tuple[Degradation, ...]:
    """What to record of input channels, bool (in,), that calibration never saw."""
    count = int(silent.sum())
    if not count:
        return ()
    what = f"{count} of {len(silent)} input channels were silent in calibration; they are not scaled"
    return (Degradation("", what),)
