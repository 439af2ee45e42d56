"""Before hours of work: whether a model can become what each recipe says, from headers alone.

Where config and names of tensors tell what every matrix is, no tensor library is loaded; that takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantwise.build.architecture import Architecture
from quantwise.build.architectures import ARCHITECTURES
from quantwise.build.mixtures import check_experts
from quantwise.core.errors import InputError
from quantwise.core.layerwise import Assignment
from quantwise.core.recipe import Recipe
from quantwise.formats.checkpoint_limits import stays
from quantwise.formats.safetensors_header import TensorEntry, read_model


def check_recipes(model: Path, recipes: Sequence[Recipe]) -> dict[str, str]:
    """What of each recipe's layers would stay in 16 bit, by the recipe's name, in one line; only those where any would.

    Raises InputError for an architecture that is not known here, or that llama.cpp lacks where a recipe wants GGUF, and
    where no row splits into the groups of a scheme.
    """
    wanted = [recipe for recipe in dict.fromkeys(recipes) if recipe.scheme.kind != "float"]
    if not wanted:
        return {}
    config, entries = read_model(model)
    matrices = linear_by_name(config, entries)
    if matrices is None:
        matrices = _linear_by_tree(model)
    assigned, found = Assignment.of(entries), {}
    for recipe in wanted:
        check_names(recipe, entries)
        if recipe.scheme.format == "gguf":
            _check_gguf(model, config, entries, recipe)
            continue  # a matrix whose rows do not split takes another type of llama.cpp's
        schemes = {name: assigned.scheme_of(name, recipe.scheme) for name in matrices}
        left = {name: stays(schemes[name], *entries[f"{name}.weight"].shape) for name in matrices}
        check_experts(recipe, left)
        whys = [why for why in left.values() if why]
        if matrices and len(whys) == len(matrices):
            raise InputError(f"{recipe.name} would change nothing in {model}: {whys[0]}; use a channel scheme")
        if whys:
            found[recipe.name] = f"{len(whys)} of {len(matrices)} matrices: {whys[0]}"
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


def linear_by_name(config: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> list[str] | None:
    """The stored names, without ``.weight``, of the layers that recipes quantize.

    None where names alone do not tell: for a family that is not known or that mixes experts, and where a tensor has no
    place, or one that is due is missing.
    """
    architecture = ARCHITECTURES.get(str(config.get("model_type")))
    layers = config.get("num_hidden_layers")
    if architecture is None or architecture.experts or not isinstance(layers, int):
        return None
    due = {f"{n}.{path}" for n in range(layers) for path in (*architecture.attention, *architecture.feed_forward)}
    found: dict[str, str] = {}
    for stored in entries:
        module = _module(architecture, stored)
        if module is None:
            return None
        path = module.removeprefix(f"{architecture.blocks}.")
        if stored.endswith(".weight") and architecture.linear(path.partition(".")[2]):
            found[path] = stored.removesuffix(".weight")
    return list(found.values()) if found.keys() == due else None


def _module(architecture: Architecture, stored: str) -> str | None:
    """The module of the tree whose parameter is stored under this name; None where it has no place."""
    spelled = stored
    for ours, theirs in architecture.stored:
        spelled = spelled.replace(theirs, ours)
    for name in (stored, spelled, f"{architecture.base}.{stored}"):
        module = name.rpartition(".")[0]
        if architecture.tensor_class(module) is not None:
            return module
    return None


def _linear_by_tree(model: Path) -> list[str]:
    from quantwise.build.skeleton import Skeleton
    from quantwise.formats.safetensors_folder import ModelFolder

    skeleton = Skeleton(ModelFolder(model))
    return [
        skeleton.stored_name(f"{name}.weight").removesuffix(".weight")
        for index in range(len(skeleton.blocks))
        for name in skeleton.linear_layers(index)
    ]


def _check_gguf(model: Path, config: dict[str, Any], entries: Mapping[str, TensorEntry], recipe: Recipe) -> None:
    # GGUF is an extra of its own.
    from quantwise.formats.gguf.tensors import require_gguf, types_in
    from quantwise.formats.gguf.tokenizer import read_tokenizer

    require_gguf(entries, config)
    read_tokenizer(model, config)
    # A mix may take any type of blocks; which, is found while it is built.
    types_in(entries, config, "q8_0" if recipe.budget else recipe.scheme.name, importance=True)
