"""SmoothQuant: move outliers from the inputs, where they are hard to round, into the weights.

Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
https://arxiv.org/abs/2211.10438.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantwise.grids.grid import Grid
from quantwise.transform.transform import Scaling, require_finite, shared, silent_channels

_LEAST = 1e-5


@dataclass(frozen=True, slots=True)
class SmoothQuant:
    """Equation 4: s_j = max|x_j|^alpha / max|w_j|^(1 - alpha); inputs are divided and weights multiplied by s.

    ``alpha`` of 0.5 splits the difficulty evenly. The maximum over weights is that of all sinks together.
    """

    alpha: float = 0.5
    name: str = "smoothquant"
    needs: frozenset[str] = frozenset({"absmax"})

    def __call__(
        self,
        sinks: Sequence[Tensor],
        grids: Sequence[Grid[Any]],
        seen: Mapping[str, Tensor],
        rows: Tensor | None = None,
    ) -> Scaling:
        """As in the protocol; the grids are not read. Channels that are all zero on either side keep a scale of 1."""
        inputs = shared(require_finite("absmax", seen["absmax"]).float(), rows, "amax")
        weights = shared(torch.stack([sink.float().abs().amax(0) for sink in sinks]).amax(0), rows, "amax")
        scale = inputs.clamp(min=_LEAST) ** self.alpha / weights.clamp(min=_LEAST) ** (1 - self.alpha)
        silent = inputs <= 0
        still = silent | (weights <= 0)
        return Scaling(torch.where(still, torch.ones_like(scale), scale), degradations=silent_channels(silent))
