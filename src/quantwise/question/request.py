"""What a person asks for, and the candidates and the model that this names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantwise.core.artifact import Candidate
from quantwise.core.errors import InputError
from quantwise.core.question import MultiplicityRule
from quantwise.core.recipe import parse_recipe
from quantwise.models import reference
from quantwise.models.config import read_config
from quantwise.question import propose
from quantwise.question.across import candidates_across
from quantwise.tasks.calibration import CalibrationSet


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for; None means that the scenario or the default decides."""

    model: Path | None = None
    scenario: str | None = None
    tasks: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    baseline: str | None = None
    margins: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    alpha: float | None = None
    multiplicity: MultiplicityRule = "bonferroni"
    items: int | None = None
    fixed: bool = False
    budget_seconds: float | None = None
    calibration: CalibrationSet | None = None
    parallel: int | None = None
    context: int | None = None
    seed: int = 0
    decoding: Mapping[str, float | int] = field(default_factory=dict)
    """Fields of `core.decoding.Decoding` that somebody gave; the scenario's own stand for the others."""
    run: Path | None = None
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    """Baseline that has no room here to the source of what is compared with in its place (`stand_in.chosen`)."""
    models: Mapping[str, Path] = field(default_factory=dict)
    """Several models by name (`across.named_models`); ``model`` is then None."""
    exact: tuple[Candidate, ...] = ()
    """Of one of several models, its candidates as they are (`joint.apart`)."""


def is_demo(request: Request) -> bool:
    return request.model is None and not (request.models or request.candidates or request.baseline)


def candidates_of(request: Request) -> tuple[Candidate, ...]:
    """Everything that a request compares, baselines first. Raises InputError naming what was not understood."""
    if request.exact:
        return request.exact
    return propose.with_stand_ins(_named(request), request.stand_ins)


def _named(request: Request) -> tuple[Candidate, ...]:
    if request.models:
        return candidates_across(request.models, request.candidates, request.baseline)
    if not request.candidates:
        if request.baseline is not None:
            raise InputError(
                "a baseline alone decides nothing; add --candidate (a recipe, a .gguf file, a folder or a URL)"
            )
        return propose.DEFAULT
    baseline = None if request.baseline is None else propose.parse(request.baseline, baseline=True)
    found = propose.with_baselines([propose.parse(text) for text in request.candidates], baseline)
    names = [c.name for c in found]
    if double := {n for n in names if names.count(n) > 1}:
        raise InputError(f"{', '.join(sorted(double))} is named twice; name every candidate once")
    return found


def model_of(request: Request, candidates: Sequence[Candidate]) -> Path | None:
    """The folder that recipes are applied to; None where everything was brought."""
    recipes = [c for c in candidates if is_recipe(c)]
    if not recipes:
        if request.model is not None and not (request.stand_ins or request.exact):
            raise InputError(
                f"no candidate is built from {request.model}: all were brought; leave MODEL out or name a recipe"
            )
        return None
    folder = request.model or reference.path()
    read_config(folder)
    return folder


def is_recipe(candidate: Candidate) -> bool:
    return not (candidate.source.startswith(("http://", "https://")) or Path(candidate.source).exists())


def reads_data(candidate: Candidate) -> bool:
    return is_recipe(candidate) and parse_recipe(candidate.source).reads_data


def model_name(model: Path | None, candidates: Sequence[Candidate]) -> str:
    if model is None:
        return next((c.source for c in candidates if c.baseline), candidates[0].source)
    return "the reference model" if model == reference.path() else str(model)
