"""Eight-bit inputs of linear layers, as vLLM's kernels round them: symmetric, codes -128 .. 127, ties to even.

One scale per token, found while it runs, or one per tensor, fixed by calibration. A token's scale is its largest
|input| over 127, and its codes are inputs times one over that, in float32: bit for bit what vLLM's kernel for the CPU
gives. Its kernel for CUDA takes 127 over the largest |input| instead, which differs where an input lies between codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantwise.core.errors import QuantwiseError

HIGHEST = 127.0


def fixed_scale(largest: Tensor) -> Tensor:
    """The scale of a layer's inputs, float32 (1,), from the largest |input| of each channel in calibration.

    Raises QuantwiseError where calibration saw inputs that are not finite.
    """
    if not bool(torch.isfinite(largest).all()):
        raise QuantwiseError("the calibration inputs of a layer are not finite (absmax); check the model")
    scale = largest.float().amax().reshape(1) / HIGHEST
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def round_tokens(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 (..., in) and scales float32 (..., 1) of inputs (..., in); a token of zeros has codes of zero."""
    values = inputs.float()
    largest = values.abs().amax(-1, keepdim=True)
    scale = largest / HIGHEST
    inverse = torch.where(scale > 0, 1.0 / scale, torch.zeros_like(scale))
    return _codes(values * inverse), scale


def round_fixed(inputs: Tensor, scale: Tensor) -> Tensor:
    """Codes int8 (..., in); what lies beyond the range of ``scale`` (1,) is cut off."""
    return _codes(inputs.float() / scale.float())


def _codes(values: Tensor) -> Tensor:
    return values.round().clamp(-HIGHEST - 1, HIGHEST).to(torch.int8)
