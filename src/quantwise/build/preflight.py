"""Before hours of work: whether a model can become what each recipe says, from headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from quantwise.build.skeleton import Skeleton
from quantwise.build.storage import storage_for
from quantwise.core.errors import InputError
from quantwise.core.layerwise import Assignment
from quantwise.core.recipe import Recipe
from quantwise.core.scheme import parse_scheme
from quantwise.formats.safetensors_folder import ModelFolder


def check_recipes(model: Path, recipes: Sequence[Recipe]) -> dict[str, str]:
    """What of each recipe's layers would stay in 16 bit, by the recipe's name, in one line; only those where any would.

    Raises InputError for an architecture that is not known here, or that llama.cpp lacks where a recipe wants GGUF, for
    a recipe that is not built here, and where no row splits into the groups of its scheme.
    """
    wanted = [recipe for recipe in dict.fromkeys(recipes) if recipe.scheme.kind != "float"]
    if not wanted:
        return {}
    source = ModelFolder(model)
    skeleton = Skeleton(source)
    linear = [
        skeleton.stored_name(f"{name}.weight").removesuffix(".weight")
        for index in range(len(skeleton.blocks))
        for name in skeleton.linear_layers(index)
    ]
    found = {}
    for recipe in wanted:
        check_names(recipe, source.entries)
        # A mix may take any type of blocks; which, is found while it is built.
        one_type = replace(recipe, scheme=parse_scheme("q8_0"), budget=None) if recipe.budget else recipe
        storage = storage_for(one_type, source)
        grids = {name: storage.grid(name, torch.Size(source.entries[f"{name}.weight"].shape)) for name in linear}
        whys = [grid for grid in grids.values() if isinstance(grid, str)]
        if linear and len(whys) == len(linear):
            raise InputError(f"{recipe.name} would change nothing in {model}: {whys[0]}; use a channel scheme")
        if whys:
            found[recipe.name] = f"{len(whys)} of {len(linear)} matrices: {whys[0]}"
    return found


def check_names(recipe: Recipe, names: Iterable[str]) -> None:
    """Raise InputError for what a recipe cannot do with a model whose tensors have these names."""
    assigned, higher = Assignment.of(names), recipe.scheme.higher
    if higher is not None and assigned.does_nothing:
        raise InputError(
            f"{recipe.name} would give all of this model the same, for each block is the first or the last; "
            f"use {recipe.quantizer}:{higher.name}"
        )
    if "distil" in recipe.options and assigned.mixture:
        raise InputError(f"{recipe.name}: scales of experts are not trained; leave distil+ out")
