"""Apply a scaling: sinks multiplied, the producer divided, statistics as the rescaled model would give them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def scaled_sink(weight: Tensor, scale: Tensor) -> Tensor:
    """A matrix (out, in) that reads the divided tensor; its bias stays."""
    return weight * scale.to(weight.dtype)


def clipped(weight: Tensor, clip: Tensor) -> Tensor:
    """An already scaled matrix (out, in) with each group of a row bounded by ``clip`` (out, groups)."""
    bound = clip.to(weight.dtype).repeat_interleave(weight.shape[1] // clip.shape[1], dim=1)
    return weight.clamp(-bound, bound)


def divided_rows(
    weight: Tensor, bias: Tensor | None, scale: Tensor, rows: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """A linear producer, weight (rows, columns) and bias (rows,), whose outputs shrink by ``scale`` (in,) of its sinks.

    ``rows`` int64 (in,): the producer's row behind each of the sinks' channels, as given to the transform; rows that
    nobody reads stay. Nothing but a product with it (a gate), a copy (grouped heads), a sum over tokens (attention) or
    a ReLU may stand between producer and sinks.
    """
    per_row = scale.to(weight.dtype)
    if rows is not None:
        per_row = torch.ones(weight.shape[0], dtype=weight.dtype).scatter_(0, rows, per_row)
    return weight / per_row.unsqueeze(1), None if bias is None else bias / per_row.to(bias.dtype)


def divided_norm(
    weight: Tensor, bias: Tensor | None, scale: Tensor, dtype: torch.dtype | None = None, offset: float = 0.0
) -> tuple[Tensor, Tensor | None, Tensor]:
    """A norm's divided weight and bias (in,), and the scale that its sinks take.

    ``offset`` is what the norm adds to its weight before it multiplies (1 in Gemma). With ``dtype``, the divided weight
    is rounded to the 16-bit type that it will be stored in, and the scale is corrected by what that rounding did, so
    that the stored norm and its sinks stay equal to the original; the bias takes the corrected scale too.
    """
    gain = weight.double() + offset
    divided = gain / scale.double() - offset
    if dtype is not None:
        divided = divided.to(dtype).double()
    # A gain that rounding would silence, or that the type cannot hold, is not divided; one of zero lets nothing
    # through, whatever its sinks take.
    lost = (gain != 0) & ((divided + offset == 0) | ~torch.isfinite(divided))
    divided = torch.where(lost, weight.double(), divided)
    exact = torch.where(gain != 0, gain / (divided + offset), scale.double())
    shrunk = None if bias is None else (bias.double() / exact).to(bias.dtype)
    return divided.to(weight.dtype), shrunk, exact.to(scale.dtype) if dtype is not None else scale


def rescaled(seen: Mapping[str, Tensor], scale: Tensor) -> dict[str, Tensor]:
    """Statistics of the divided tensor: hessian D^-1 H D^-1, mean square over the square, absmax over the scale."""
    inverse = 1.0 / scale.double()
    powers = {"mean_square": 2, "absmax": 1}
    found = {
        name: (values.double() * inverse ** powers[name]).to(values.dtype)
        for name, values in seen.items()
        if name in powers
    }
    if "hessian" in seen:
        found["hessian"] = seen["hessian"] * inverse * inverse.unsqueeze(1)
    return found
