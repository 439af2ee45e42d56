"""The weights of LLM.int8(): eight bits, symmetric, one float32 scale per row.

Dettmers et al. 2022, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale",
https://arxiv.org/abs/2208.07339. What the paper adds happens where the bytes run: columns in which some input is 6 or
larger are multiplied in 16 bit, all others as integers with a scale per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantwise.core.errors import InputError
from quantwise.grids.integer import Steps

HIGHEST = 127.0


@dataclass(frozen=True, slots=True)
class LlmInt8Grid:
    """The grid of the bitsandbytes library, whose codes and scales ``quantize`` gives bit for bit."""

    lowest: int = -127
    highest: int = 127

    def fit(self, weight: Tensor, importance: Tensor | None = None) -> Steps:
        """Scales (rows, 1) that cover each row; ``importance`` is not read, as the library has no other range."""
        scale = _largest(weight) / HIGHEST
        return Steps(torch.where(scale > 0, scale, torch.ones_like(scale)), None, weight.shape[1])

    def round(self, values: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        """Nearest codes (float32, whole numbers); ``scale`` broadcasts to the shape of ``values``."""
        return (values / scale).round_().clamp_(self.lowest, self.highest)

    def value(self, codes: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        """The numbers that codes stand for."""
        return codes * scale

    def quantize(self, weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Steps]:
        """Codes int8 (rows, columns) and scales of a matrix within float16, to which the library rounds it first."""
        steps = self.fit(weight)
        inverse = HIGHEST / (steps.scale * HIGHEST)
        codes = (weight.half().float() * inverse).round_()
        return codes.to(torch.int8), steps

    def decode(self, codes: Tensor, steps: Steps) -> Tensor:
        """The float32 matrix that codes stand for, (rows, columns)."""
        return self.value(codes.float(), *steps.spread())


def _largest(weight: Tensor) -> Tensor:
    """float32 (rows, 1). Raises InputError beyond float16, where the library would write infinities."""
    largest = weight.half().float().abs().amax(1, keepdim=True)
    if not bool(torch.isfinite(largest).all()):
        raise InputError(
            "a weight beyond 65,504 does not fit LLM.int8(), which rounds to float16 first; use rtn:int8-channel"
        )
    return largest
