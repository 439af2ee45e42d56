"""Scale distillation: codes stay, and the scales and minima learn to give the 16-bit model's next-token distributions.

After the "distilled weight quantization" of mlx-lm (https://github.com/ml-explore/mlx-lm/pull/129). What is trained is
what a format stores in 16 bit: the float scale (and minimum) of each block of 256 on ggml's k types, whose small
integers stay, the scale of each group on integer grids, whose zero points stay. So nothing but a rounding to 16 bit
lies between what was learned and the file. Divergence is watched on texts that are not trained on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from quantwise.build.calibration import Batch
from quantwise.build.watch import Watch, log_probabilities
from quantwise.core.errors import InputError
from quantwise.grids.ggml_grid import BlockSteps, GgmlGrid
from quantwise.grids.grid import Grid
from quantwise.grids.integer import IntegerGrid, Steps


@dataclass(frozen=True, slots=True)
class Coded:
    """One quantized matrix: codes and the parameters that give them values."""

    grid: Grid[Any]
    codes: Tensor
    steps: Any

    def values(self) -> Tensor:
        """The float32 matrix that the codes stand for; differentiable in the parameters."""
        return self.grid.value(self.codes.float(), *self.steps.spread())


@dataclass(frozen=True, slots=True)
class Training:
    """Adam, a short warm-up, then a cosine to zero over ``epochs``, or over ``least_steps`` where these are more.

    A step of ``rate`` moves the largest value of a matrix by about that share of the distance between two codes,
    whatever its bits: what is small at 2 bits (0.3 % of a scale) would undo a rounding at 4. The watched divergence is
    taken ``checks`` times in all; after ``patience`` checks in a row without a new best, training stops. ``seed``
    orders the batches.
    """

    rate: float = 0.009
    epochs: int = 3
    least_steps: int = 96
    checks: int = 8
    patience: int = 3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Distilled:
    """The parameters that were best on the watched texts, as they are stored; those given where none was better.

    ``watched`` are the divergences there in nats per token: before the training, and at each check.
    """

    coded: Mapping[str, Coded]
    watched: Sequence[float]

    @property
    def before(self) -> float:
        """Watched divergence of what was given."""
        return self.watched[0]

    @property
    def after(self) -> float:
        """Watched divergence of what is returned; never above ``before``."""
        return min(self.watched)


def distil(
    model: nn.Module,
    coded: Mapping[str, Coded],
    batches: Sequence[Batch],
    watched: Watch,
    training: Training = Training(),
    *,
    fixed: Mapping[str, Tensor] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Distilled:
    """Train the scales of ``coded`` (full parameter name, such as ``model.layers.0.mlp.up_proj.weight``, to its
    matrix) by KL to ``model``, whose own weights are the 16-bit ones and stay as they are.

    ``fixed`` are other parameters of the quantized model that are not those of ``model``, such as a rescaled norm.
    ``batches`` are trained on, those of ``watched`` must be others. ``report`` is told (steps done, steps in all).
    Deterministic on one machine. Raises InputError where nothing can be trained.
    """
    if not batches or not coded:
        raise InputError("scale distillation needs quantized matrices and texts beside the watched ones; give more")
    learners = {name: _learner(matrix) for name, matrix in coded.items()}
    others = dict(fixed or {})
    rates = {name: training.rate / (matrix.grid.highest - matrix.grid.lowest) for name, matrix in coded.items()}
    groups = [{"params": list(learner.parameters()), "rate": rates[name]} for name, learner in learners.items()]
    optimizer = torch.optim.Adam(groups, lr=training.rate, betas=(0.9, 0.99))
    order, rng = list(batches), random.Random(training.seed)
    total = max(training.epochs * len(order), training.least_steps)
    every = max(1, round(total / training.checks))
    best: dict[str, Coded] = dict(coded)
    history = [watched.divergence(others | _values(best))]
    for step in range(total):
        if step % len(order) == 0:
            rng.shuffle(order)
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * min(1.0, (step + 1) / 8) * 0.5 * (1 + math.cos(math.pi * step / total))
        now = {name: replace(matrix, steps=learners[name].steps()) for name, matrix in coded.items()}
        _learn(model, others | _values(now), order[step % len(order)], optimizer)
        if report:
            report(step + 1, total)
        if (step + 1) % every == 0 or step + 1 == total:
            stored = {name: replace(matrix, steps=learners[name].stored()) for name, matrix in coded.items()}
            history.append(watched.divergence(others | _values(stored)))
            if history[-1] < min(history[:-1]):
                best = stored
            if history.index(min(history)) < len(history) - training.patience:
                break
    return Distilled(best, history)


def _learn(model: nn.Module, values: Mapping[str, Tensor], batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    """One step of the optimizer on one batch, for the parameters that ``values`` hang on."""
    with torch.no_grad():
        p = log_probabilities(model, batch, {})
    q = log_probabilities(model, batch, values)
    optimizer.zero_grad()
    (p.exp() * (p - q)).sum(-1).mean().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _values(coded: Mapping[str, Coded]) -> dict[str, Tensor]:
    return {name: matrix.values() for name, matrix in coded.items()}


class _Learner(nn.Module):
    """Relative changes of what is stored in 16 bit, zero at first."""

    def steps(self) -> Any:
        """The parameters as they are now, differentiable."""
        raise NotImplementedError

    def stored(self) -> Any:
        """The same, rounded to what the format stores."""
        raise NotImplementedError


class _BlockLearner(_Learner):
    """ggml blocks: ``d`` and, on asymmetric types, ``m``."""

    def __init__(self, given: BlockSteps) -> None:
        super().__init__()
        self.given = given
        self.d = nn.Parameter(torch.zeros_like(given.d))
        self.m = None if given.m is None else nn.Parameter(torch.zeros_like(given.m))

    def steps(self) -> BlockSteps:
        given = self.given
        m = None if given.m is None or self.m is None else given.m * (1 + self.m)
        return replace(given, d=given.d * (1 + self.d), m=m)

    def stored(self) -> BlockSteps:
        now = self.steps()
        return replace(
            now, d=_rounded(now.d, torch.float16), m=None if now.m is None else _rounded(now.m, torch.float16)
        )


class _IntegerLearner(_Learner):
    """Integer grids: the scale, which a file holds in ``dtype``."""

    def __init__(self, given: Steps, dtype: torch.dtype) -> None:
        super().__init__()
        self.given, self.dtype = given, dtype
        self.scale = nn.Parameter(torch.zeros_like(given.scale))

    def steps(self) -> Steps:
        return replace(self.given, scale=self.given.scale * (1 + self.scale))

    def stored(self) -> Steps:
        return replace(self.given, scale=_rounded(self.steps().scale, self.dtype))


def _learner(matrix: Coded) -> _Learner:
    if isinstance(matrix.grid, GgmlGrid) and isinstance(matrix.steps, BlockSteps):
        return _BlockLearner(matrix.steps)
    if isinstance(matrix.grid, IntegerGrid) and isinstance(matrix.steps, Steps):
        return _IntegerLearner(matrix.steps, matrix.grid.scale_dtype)
    raise InputError("scale distillation trains integer and ggml schemes only; use gptq for this one")


def _rounded(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    return numbers.detach().to(dtype).float()
