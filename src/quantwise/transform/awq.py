"""AWQ: channels that carry large inputs are scaled up before rounding, and the ranges of groups are clipped.

Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration",
https://arxiv.org/abs/2306.00978. Where this differs from the paper and its authors' code:

- No forward pass: the error of the sinks' outputs is exact from the Hessian, sum over sinks of trace(E H E^T) with
  E = Q(W s) / s - W, over every calibration token instead of a sample.
- What is compared is the outputs of the linear layers, not of the block that they stand in (attention, the feed-forward
  network): what the block would cancel or amplify between them is not seen.
- The size of an input channel is its root mean square, not its mean absolute value.
- Beside s = x^a, s = x^a / w^(1 - a) is tried, where w is the root mean square of a channel's weights. It does not
  care how a model divides a channel between its producer and its sinks: one that was merely scaled up is undone.
- Value heads that several query heads share get one scale, where the authors leave such projections out.
- Clipping is searched on every sink, queries and keys included, from 1 down to 0.55 of a group's largest weight.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantwise.grids.grid import Grid
from quantwise.grids.integer import IntegerGrid
from quantwise.transform.rescale import clipped, rescaled
from quantwise.transform.transform import Scaling, require_finite, shared, silent_channels

# Channels weaker than this share of the strongest count as that strong.
_WEAKEST = 1e-4


@dataclass(frozen=True, slots=True)
class Awq:
    """AWQ with the authors' grid of 20 exponents, and 1 besides, for inputs alone and for inputs over weights.

    ``clip`` bounds groups of integer grids where rounding to nearest follows; quantizers that search their own ranges
    need it not. ``sample`` bounds the rows of each sink that the search for the exponent looks at, evenly spaced.
    """

    exponents: int = 20
    clip: bool = True
    clip_steps: int = 10
    sample: int = 512
    name: str = "awq"
    needs: frozenset[str] = frozenset({"hessian"})

    def __call__(
        self,
        sinks: Sequence[Tensor],
        grids: Sequence[Grid[Any]],
        seen: Mapping[str, Tensor],
        rows: Tensor | None = None,
    ) -> Scaling:
        """As in the protocol. An exponent of 0, which changes nothing, wins every tie."""
        hessian = require_finite("hessian", seen["hessian"])
        power = shared(hessian.diagonal(), rows, "mean")
        silent = power <= 0
        unit = (hessian / hessian.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)).float()
        parts = [sink.float()[:: -(-sink.shape[0] // self.sample)] for sink in sinks]
        sizes = torch.cat([sink.float().square().mean(0, keepdim=True).double() for sink in sinks]).mean(0)
        weights = shared(sizes, rows, "mean")
        best, least = torch.ones(len(power)), torch.inf
        # Inputs alone come first, and so does the exponent of 0.
        for share, step in itertools.product((0.0, 1.0), range(self.exponents + 1)):
            exponent = step / self.exponents
            logs = exponent * _logs(power) - share * (1 - exponent) * _logs(weights)
            scale = _scale(logs, silent)
            error = sum(
                _output_error(_rounded(p * scale, g) / scale - p, unit) for p, g in zip(parts, grids, strict=True)
            )
            if error < least:
                best, least = scale, error
        clips = None
        integer = [grid for grid in grids if isinstance(grid, IntegerGrid) and grid.granularity != "tensor"]
        if self.clip and len(integer) == len(grids):
            inputs = rescaled({"hessian": unit}, best)["hessian"].float()
            clips = tuple(
                _search_clip(sink.float() * best, grid, inputs, self.clip_steps)
                for sink, grid in zip(sinks, integer, strict=True)
            )
        return Scaling(best, clips, silent_channels(silent))


def _logs(squares: Tensor) -> Tensor:
    """Natural logarithms of root mean squares, (in,), of which none is far below the largest."""
    largest = squares.max().clamp(min=torch.finfo(torch.float64).tiny)
    return (squares / largest).sqrt().clamp(min=_WEAKEST).log()


def _scale(logs: Tensor, silent: Tensor) -> Tensor:
    """float32 (in,) with a geometric mean of 1 over the channels that are not silent; those stay at 1."""
    heard = ~silent
    if not bool(heard.any()):
        return torch.ones(len(logs))
    return torch.where(heard, logs - logs[heard].mean(), torch.zeros_like(logs)).exp().float()


def _rounded(weight: Tensor, grid: Grid[Any]) -> Tensor:
    codes, steps = grid.quantize(weight)
    return grid.decode(codes, steps)


def _output_error(change: Tensor, hessian: Tensor) -> float:
    """trace(E H E^T) of a (rows, in) change: the squared output error summed over rows and tokens."""
    return float(((change @ hessian) * change).sum(dtype=torch.float64))


def _search_clip(weight: Tensor, grid: IntegerGrid, hessian: Tensor, steps: int) -> Tensor:
    """The bound of each group, (rows, groups), whose rounding moves the group's own share of the outputs least.

    Cross terms between groups are left out, as in the authors' code: then a group's error is e^T H_gg e.
    """
    rows, columns = weight.shape
    group = grid.group or columns
    count = columns // group
    blocks = torch.stack([hessian[i : i + group, i : i + group] for i in range(0, columns, group)])
    largest = weight.reshape(rows, count, group).abs().amax(-1)
    best, least = largest, torch.full_like(largest, torch.inf)
    for step in range(steps):
        bound = largest * (1 - step / (2 * steps))
        change = (_rounded(clipped(weight, bound), grid) - weight).reshape(rows, count, group).transpose(0, 1)
        error = ((change @ blocks) * change).sum(-1).T
        best, least = torch.where(error < least, bound, best), torch.minimum(error, least)
    return best
