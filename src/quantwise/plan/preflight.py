"""Before anything is hashed, built or loaded: read every header that is named, and refuse what cannot work here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from quantwise.core.artifact import Candidate
from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.evidence import Fit
from quantwise.core.loads import CPU_BUILD, homes, kernel_lacks, loading
from quantwise.core.recipe import Recipe, parse_recipe
from quantwise.plan.candidate_fit import Fits, Workload
from quantwise.plan.fit import size


def preflight(
    candidates: Sequence[Candidate],
    model: Path | None,
    recipes: Sequence[str],
    context: int,
    requests: Mapping[str, int],
) -> dict[str, Fit]:
    """Check ``candidates``, of which ``recipes`` are made from ``model``; ``requests`` at a time by runtime.

    Returns each candidate's fit on this machine. Raises InputError where a folder or file is damaged or lacks what a
    recipe needs.
    """
    if model is not None and any(map(_reads_tokenizer, map(parse_recipe, recipes))):
        _check_tokenizer(model / "tokenizer.json")
    planner = Fits(model)
    return {c.name: planner.of(c, Workload(context, requests[c.runtime])) for c in candidates}


def no_room(candidate: Candidate, able: Fit, run: Path | None = None) -> EnvironmentFailure:
    """The complaint about a baseline that does not fit, and whose rows nobody has brought into the folder ``run``."""
    bring = f"`quantwise evidence import {run} FILE` brings its rows from elsewhere, or " if run else ""
    return EnvironmentFailure(
        f"the baseline {candidate.name} {needs(able)}; {bring}name a smaller --baseline or a shorter --context"
    )


def needs(able: Fit) -> str:
    """What a candidate needs of what is there."""
    least = able.total_bytes or able.weights_bytes or 0
    return f"needs {size(least)} of the {size(able.limit_bytes or 0)} that are free here"


def notes(recipes: Sequence[str]) -> list[str]:
    """What stands between the artifacts of ``recipes`` and the runtimes that load them, a line for each obstacle."""
    told = []
    for recipe in dict.fromkeys(map(parse_recipe, recipes)):
        for runtime in homes(recipe.scheme.format):
            how = loading(runtime, recipe.scheme.format)
            if how is not None and how.library is not None and importlib.util.find_spec(how.library) is None:
                package = how.library.replace("_", "-")
                told.append(f"{recipe.name}: {runtime} loads it with {package}, which is not installed here")
            if (why := kernel_lacks(CPU_BUILD if runtime == "vllm" else runtime, recipe.scheme)) is not None:
                told.append(f"{recipe.name}: {why}")
    return told


def _reads_tokenizer(recipe: Recipe) -> bool:
    """GGUF holds the tokenizer, and a quantizer that reads data tokenizes it."""
    return recipe.scheme.format == "gguf" or recipe.reads_data


def _check_tokenizer(path: Path) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; GGUF files and calibration need it: give a folder with a tokenizer.json"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({str(error).splitlines()[0]}); download it again") from error
