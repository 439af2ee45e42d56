"""How fast this machine is, found in a fraction of a second: one product of matrices, one matrix by each recipe."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping

import torch

from quantwise.build.storage import Storage
from quantwise.core.errors import QuantwiseError
from quantwise.core.recipe import Recipe
from quantwise.plan.build_job import BuildPace
from quantwise.quantize import QUANTIZERS

_SIDE = 512
_ROWS, _COLUMNS = 512, 256


def measured_pace(storages: Mapping[Recipe, Storage]) -> BuildPace:
    """The pace of the recipes that a walk will take through the model."""
    a = torch.full((_SIDE, _SIDE), 0.5)
    a @ a
    best = min(_timed(lambda: a @ a) for _ in range(3))
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(_ROWS, _COLUMNS, generator=draw)
    inputs = torch.randn(2 * _COLUMNS, _COLUMNS, generator=draw)
    seen = {"hessian": (inputs.T @ inputs).double(), "mean_square": inputs.double().square().mean(0)}
    paces = {}
    for recipe, storage in storages.items():
        quantizer = QUANTIZERS[recipe.quantizer or "rtn"]()
        try:
            grid = next(g for name in _SOME if not isinstance(g := storage.grid(name, weight.shape), str | None))
            paces[recipe.name] = _timed(functools.partial(quantizer, weight, grid, seen)) / weight.numel()
        except (KeyError, StopIteration, QuantwiseError):
            paces[recipe.name] = 0.0
    return BuildPace(2 * _SIDE**3 / best, paces)


# A matrix that most models have, as the storage of a mix asks for it by name.
_SOME = tuple(f"model.layers.0.self_attn.{part}_proj" for part in ("q", "o"))


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
