"""The whole story, top to bottom.

    pose -> plan -> build -> screen -> certify -> decide

Every stage reads what earlier ones wrote into the run folder, so the same request goes on where it was.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from quantwise import fetch, machine, prepare, stand_in
from quantwise.certify import Certification, Limits
from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError
from quantwise.core.progress import Progress
from quantwise.core.question import Question
from quantwise.core.recipe import Recipe, parse_recipe
from quantwise.forecast import expectations
from quantwise.measure import Arm, Bench
from quantwise.plan.memory import available_bytes
from quantwise.question import pose
from quantwise.question.joint import places_of
from quantwise.question.posed import Posed
from quantwise.question.request import Request
from quantwise.record.assemble import assemble
from quantwise.record.flips import flips as flips_of
from quantwise.record.held import artifact_from
from quantwise.screen import noise_floor, screen
from quantwise.settle.price import price_open
from quantwise.settle.still_open import fewest_asked
from quantwise.store import Store, write_atomically
from quantwise.tasks.calibration import CalibrationSet, gathered
from quantwise.tasks.prose import held_out_text

HELD_OUT_TEXTS = 8
HELD_OUT_CHARACTERS = 320
"""Short enough for most contexts, character-level models included."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long to measure, and how long to ask a failing server again; None is the scenario's and the usual."""

    budget: float | None
    retry: float | None


def decide(
    request: Request,
    progress: Progress,
    tell: Callable[[str], None] = lambda line: None,
    retry_seconds: float | None = None,
) -> dict[str, Any]:
    """Answer a request. Returns the record that reports show; it is also in the run folder as ``decision.json``.

    ``tell`` is given, before anything runs, what each margin will take, and what the builds will. ``retry_seconds`` is
    for how long an item is asked again of a server by URL (`RuntimeOptions.retry_s`).
    """
    progress.stage("read the question", None)
    request = stand_in.chosen(fetch.fetched(request, stand_in.fits, tell), tell)
    posed = pose.pose(request)
    for line in expectations(posed.question):
        tell(line)
    folder = request.run or Path("runs") / posed.question.hash[:12]
    with Store(folder, create=True) as store:
        store.freeze(posed.question)
        if posed.model is not None:
            store.put("facts", "model", str(posed.model.resolve()))
        if posed.parts:
            store.put("facts", "models", places_of(posed))
        if request.calibration is not None:
            store.put("facts", "calibration", asdict(request.calibration.absolute()))
        planned = {task.name: task.items for task in posed.question.tasks}
        return _answer(store, posed, planned, Seconds(request.budget_seconds, retry_seconds), progress, tell)


def extend(
    folder: Path, more: int, budget_seconds: float | None, progress: Progress, retry_seconds: float | None = None
) -> dict[str, Any]:
    """Ask ``more`` further items (whole blocks) of every task that is still open; verdicts stay valid.

    Returns the record. Raises InputError for a fixed-n question, and where something it rests on has changed.
    """
    progress.stage("read the question", None)
    with Store(folder) as store:
        question = store.question()
        if question.mode == "fixed":
            raise InputError(
                f"{folder} asks a fixed-n question; looking again would break its error rate, so decide anew"
            )
        posed = _posed_again(store, question)
        further = _further(store, posed, more)
        if (kept := store.get("facts", "calibration")) is not None:
            pose.recheck(posed, CalibrationSet(**{**kept, "sources": tuple(kept["sources"])}), further)
        return _answer(store, posed, further, Seconds(budget_seconds, retry_seconds), progress)


def reread(folder: Path) -> dict[str, Any]:
    """The record again, from the run folder alone: nothing is loaded, nothing is measured."""
    with Store(folder) as store:
        return _conclude(store, store.question())


def flips(folder: Path) -> list[dict[str, Any]]:
    """Items on which a candidate and its baseline differ, with both outputs."""
    with Store(folder) as store:
        return flips_of(store, store.question())


def build_recipes(
    model: Path,
    recipes: Sequence[str],
    out: Path,
    *,
    calibration: CalibrationSet | Path | None,
    seed: int,
    progress: Progress,
    tell: Callable[[str], None] | None = None,
) -> list[Artifact]:
    """Artifacts for the recipes, in one walk; nothing is measured. ``tell`` is given what it will take, beforehand."""
    from quantwise.build.calibration import Sample
    from quantwise.build.walk import build

    wanted = [parse_recipe(text) for text in recipes]
    if twice := [recipe.name for recipe in wanted if wanted.count(recipe) > 1]:
        raise InputError(f"{twice[0]} is named twice; name every recipe once")
    chosen = CalibrationSet((str(calibration),)) if isinstance(calibration, Path) else calibration
    texts: list[str] | Sample = []
    reads_data = any(recipe.reads_data for recipe in wanted)
    if reads_data and chosen is not None and chosen.files and not model.exists():
        gathered(chosen, None)  # what is wrong with a file is said before a model is downloaded
    model = source_of(model, wanted, out, tell)
    if reads_data:
        texts = gathered(chosen or CalibrationSet(seed=seed), pose.rendering(ChatTemplate.from_folder(model)))
        texts = Sample(tuple(texts)) if chosen and chosen.samples else texts
    elif tell and isinstance(calibration, CalibrationSet) and calibration.sources:
        tell("note: no recipe here reads calibration texts")
    return build(model, wanted, texts, out, progress=prepare.WalkStages(progress), seed=seed, tell=tell)


def source_of(model: Path, recipes: Sequence[Recipe], out: Path, tell: Callable[[str], None] | None = None) -> Path:
    """The folder that ``recipes`` are applied to, downloaded into the hub's cache where it is a hub id.

    Raises InputError and EnvironmentFailure, from its headers alone, where it cannot become what they say, or ``out``
    has no room for that.
    """

    def check(here: Path) -> None:
        from quantwise.build.beforehand import announce
        from quantwise.build.preflight import check_recipes
        from quantwise.formats.safetensors_folder import ModelFolder

        check_recipes(here, recipes)
        announce(ModelFolder(here), out, recipes, {}, None, None)

    return fetch.local(model, check, tell or (lambda line: None))


def _answer(
    store: Store,
    posed: Posed,
    items: Mapping[str, int],
    seconds: Seconds,
    progress: Progress,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Every stage up to ``items`` certification items per task."""
    question = posed.question
    store.forget("broken")  # what failed to fit or to load may do so now; what rows ruled out, rows rule out again
    store.put("facts", "machine", machine.facts())
    for name, task in posed.tasks.items():
        store.put("supply", name, {"items": task.available})
    budget = question.scenario.get("budget_seconds") if seconds.budget is None else seconds.budget
    deadline = None if budget is None else time.monotonic() + budget
    with _timed(store, "plan"):
        prepare.plan(store, posed)
    with _timed(store, "build"):
        artifacts = prepare.build(store, posed, _artifacts(store), progress, tell)
    arms = prepare.arms(posed, artifacts, out=(*store.all("broken"), *store.imported()))
    if seconds.retry is not None:
        arms = {n: replace(arm, options=replace(arm.options, retry_s=seconds.retry)) for n, arm in arms.items()}
    length = min(HELD_OUT_CHARACTERS, question.context - 2)  # a token is at least a character, and one opens the text
    texts = [text[:length] for text in held_out_text("screen", HELD_OUT_TEXTS, question.seed)]
    with Bench(available_bytes()) as bench:
        with _timed(store, "screen"):
            for name, why in screen(store, question, arms, posed.screen_items, texts, bench, progress).items():
                store.put("broken", name, {"why": why})
        standing = {name: arm for name, arm in arms.items() if store.get("broken", name) is None}
        with _timed(store, "A/A noise floor"):
            noise_floor(store, question, _second_incarnations(standing), posed.screen_items, bench, progress)
        with _timed(store, "certify"):
            limits = Limits(items, deadline)
            Certification(store, question, standing, posed.certify_items, limits, bench, progress, price_open).run()
        for name in arms:
            if (footprint := bench.footprint(name)) is not None:
                store.put("footprint", name, asdict(footprint))
            if (use := bench.cache_use(name)) is not None:
                store.put("cache_use", name, asdict(use))
    return _conclude(store, question)


def _posed_again(store: Store, question: Question) -> Posed:
    if question.models:
        return pose.repose_parts(question, store.get("facts", "models") or {}, _artifacts(store))
    kept = store.get("facts", "model")
    return pose.repose(question, Path(kept) if kept else None, _artifacts(store))


def _artifacts(store: Store) -> dict[str, Artifact]:
    return {name: artifact_from(body) for name, body in store.all("artifact").items()}


def _conclude(store: Store, question: Question) -> dict[str, Any]:
    found = assemble(store, question)
    write_atomically(store.folder / "decision.json", json.dumps(found, ensure_ascii=False, indent=1))
    return found


def _second_incarnations(arms: Mapping[str, Arm]) -> list[Arm]:
    """Every baseline again, in a process of its own and with another number of requests at a time."""
    return [
        replace(
            arm,
            runtime=prepare.elsewhere(arm.runtime),
            options=replace(arm.options, parallel=_other(arm.options.parallel)),
        )
        for arm in arms.values()
        if arm.candidate.baseline
    ]


def _other(parallel: int) -> int:
    return max(1, parallel // 2 - 1) if parallel > 1 else 2


def _further(store: Store, posed: Posed, more: int) -> dict[str, int]:
    """Certification items per task that give every open pair ``more`` in whole blocks, as far as there are items."""
    open_tasks = fewest_asked(store, posed.question, price_open(store, posed.question, sys.maxsize))
    block = posed.question.block
    wanted = {}
    for name, task in posed.tasks.items():
        upto = -(-(open_tasks[name] + more) // block) * block if name in open_tasks else 0
        wanted[name] = upto if task.available is None else min(upto, task.available)
    return wanted


@contextmanager
def _timed(store: Store, stage: str) -> Iterator[None]:
    """Add the seconds of a stage to those that earlier processes spent on it.

    A process that was killed could not say what it spent: then the time of the stage stays unknown.
    """
    spent = store.all("timing").get(stage, 0.0)
    if store.get("stage_open", stage):
        spent = None
    store.put("stage_open", stage, True)
    began = time.monotonic()
    try:
        yield
    finally:
        store.put("timing", stage, None if spent is None else spent + time.monotonic() - began)
        store.put("stage_open", stage, False)
