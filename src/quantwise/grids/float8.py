"""FP8 e4m3: 1 sign, 4 exponent and 3 mantissa bits, no infinity, largest 448; one scale per matrix or per row.

Micikevicius et al. 2022, "FP8 Formats for Deep Learning", https://arxiv.org/abs/2209.05433. Rounding is to the nearest,
ties to the even mantissa, and saturates at 448 rather than giving NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from quantwise.core.errors import QuantwiseError
from quantwise.grids.integer import Steps

LARGEST = 448.0


def to_bytes(codes: Tensor) -> Tensor:
    """Whole codes in -126 .. 126 as torch.float8_e4m3fn of the same shape: |code| is the seven bits beside the sign."""
    signed = codes.to(torch.int16)
    return (signed.abs() | ((signed < 0).to(torch.int16) << 7)).to(torch.uint8).view(torch.float8_e4m3fn)


def from_bytes(stored: Tensor) -> Tensor:
    """float32 codes of a float8_e4m3fn tensor; both zeros are code 0."""
    bits = stored.contiguous().view(torch.uint8).to(torch.int16)
    return torch.where(bits > 127, -(bits & 127), bits).float()


@dataclass(frozen=True, slots=True)
class Float8Grid:
    """The e4m3 grid with a scale of ``scale_dtype`` per ``channel`` (row) or per ``tensor``.

    A code is the number's rank: 0 is zero, 126 is 448, and the order of codes is that of the numbers.
    """

    granularity: Literal["tensor", "channel"] = "channel"
    scale_dtype: torch.dtype = torch.bfloat16
    lowest: int = -126
    highest: int = 126

    def fit(self, weight: Tensor, importance: Tensor | None = None) -> Steps:
        """Scales that bring the largest |weight| of a row or of the (rows, columns) matrix to 448.

        ``importance`` is not read: relative precision hardly depends on the scale, so there is nothing to search.
        """
        size = weight.float().abs()
        largest = size.amax().reshape(1, 1) if self.granularity == "tensor" else size.amax(1, keepdim=True)
        stored = (largest / LARGEST).to(self.scale_dtype).float()
        return Steps(torch.where(stored > 0, stored, torch.ones_like(stored)), None, weight.shape[1])

    def round(self, values: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        """Nearest codes (float32, whole numbers); ``scale`` broadcasts to the shape of ``values``."""
        return from_bytes((values / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn))

    def value(self, codes: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        """The numbers that codes stand for."""
        return to_bytes(codes).float() * scale

    def quantize(self, weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Steps]:
        """Nearest codes, int8 (rows, columns), of the scales that ``fit`` gives."""
        steps = self.fit(weight)
        return self.round(weight.float(), *steps.spread()).to(torch.int8), steps

    def decode(self, codes: Tensor, steps: Steps) -> Tensor:
        """The float32 matrix that codes stand for, (rows, columns)."""
        return self.value(codes, *steps.spread())


def input_scale(largest: Tensor) -> Tensor:
    """The fixed scale of a layer's inputs, float32 (1,), from the largest |input| of each channel in calibration.

    Raises QuantwiseError where calibration saw inputs that are not finite.
    """
    if not bool(torch.isfinite(largest).all()):
        raise QuantwiseError("the calibration inputs of a layer are not finite (absmax); check the model")
    scale = largest.float().amax().reshape(1) / LARGEST
    return torch.where(scale > 0, scale, torch.ones_like(scale))
