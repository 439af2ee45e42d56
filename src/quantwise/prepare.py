"""Plan and build: from a posed question to arms that can be opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from quantwise.build.artifact_folder import stands
from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.progress import Progress
from quantwise.core.recipe import Recipe, parse_recipe
from quantwise.core.runtime import Runtime, RuntimeOptions
from quantwise.measure import Arm
from quantwise.plan.candidate_fit import Fits, Workload
from quantwise.plan.preflight import needs, no_room
from quantwise.question.posed import Posed
from quantwise.scenarios.reader import read_scenario
from quantwise.store import Store

THINKING_S = 0.25
"""Seconds that a request may take beyond the usual for each token that may be thought."""


def plan(store: Store, posed: Posed) -> None:
    """Keep a fit per candidate. What cannot fit is ruled out here, before a byte of it is loaded.

    Raises EnvironmentFailure where a baseline does not fit and no rows of it were imported: then nothing can be
    compared here.
    """
    question = posed.question
    elsewhere = store.imported()
    scenario = read_scenario(question.scenario)
    planners = {part.question.hash: Fits(part.model) for part in (posed, *posed.parts.values())}
    workload = Workload(question.context, scenario.concurrency, scenario.site)
    for candidate in question.candidates:
        planner = planners[posed.of(candidate).question.hash]
        there = planner.of(candidate, workload)
        store.put("fit", candidate.name, asdict(there))
        able = planner.of(candidate, Workload(question.context, question.requests(candidate.runtime)))
        if candidate.name in elsewhere:
            store.put("note", candidate.name, f"it {needs(able)}" if able.fits == "no" else None)
        elif able.fits == "no":
            if candidate.baseline:
                raise no_room(candidate, able, store.folder)
            store.put("broken", candidate.name, {"why": f"does not fit this machine: it {needs(able)}"})
        elif there.fits == "no" and not candidate.baseline:
            store.put("broken", candidate.name, {"why": f"does not fit: {there.fix or 'needs more memory'}"})


def build(
    store: Store,
    posed: Posed,
    known: Mapping[str, Artifact],
    progress: Progress,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Artifact]:
    """The artifact of every candidate that is still in: brought, built now in one walk, or ``known`` by name as this
    very question had it built before, and still there. ``tell`` is given what the walk will take, beforehand.
    """
    question = posed.question
    wanted = {
        c.name: recipe_of(c)
        for c in question.candidates
        if c.name not in posed.brought and store.get("broken", c.name) is None and store.get("imported", c.name) is None
    }
    made = dict(posed.brought) | {name: known[name] for name in wanted if name in known and stands(known[name])}
    wanted = {name: recipe for name, recipe in wanted.items() if name not in made}
    for part in (posed, *posed.parts.values()):
        own = {c.name: wanted[c.name] for c in question.candidates if c.name in wanted and posed.of(c) is part}
        if own and part.model is not None:
            made |= _walked(store, part, own, progress, tell)
    for name, artifact in made.items():
        store.put("artifact", name, asdict(artifact))
    return made


def _walked(
    store: Store, posed: Posed, wanted: Mapping[str, Recipe], progress: Progress, tell: Callable[[str], None] | None
) -> dict[str, Artifact]:
    """The artifacts of one model, by candidate."""
    from quantwise.build.calibration import Sample
    from quantwise.build.walk import build as walk

    recipes = list(dict.fromkeys(wanted.values()))
    artifacts = walk(
        posed.model or Path(),
        recipes,
        Sample(tuple(posed.calibration)) if posed.counted else posed.calibration,
        store.folder / "artifacts",
        progress=WalkStages(progress),
        seed=posed.question.seed,
        tell=tell,
    )
    by_recipe = dict(zip(recipes, artifacts, strict=True))
    return {name: replace(by_recipe[recipe], recipe=recipe.name) for name, recipe in wanted.items()}


def recipe_of(candidate: Candidate) -> Recipe:
    """The recipe that makes a candidate's bytes; 16 bit in llama.cpp is a GGUF of the model as it is."""
    if candidate.source == "16bit" and candidate.runtime == "llamacpp":
        return parse_recipe("f16")
    return parse_recipe(candidate.source)


class WalkStages:
    """The walk's (what, done, total) as stages of the progress: one for each thing that is done, and once more where
    it begins anew. ``write NAME`` are the artifacts of one stage; what is done in one step is not counted.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = ""
        self._done = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Open a stage where something else begins, and move its bar to ``done``."""
        kind, _, name = what.partition(" ")
        stage, note = ("write artifacts", name) if kind == "write" else (what, "")
        if stage != self._stage or done < self._done:
            self._stage, self._done = stage, done
            self._progress.stage(f"build: {stage if total > 1 else what}", total if total > 1 else None, done)
        if total > 1:
            self._progress.advance(done - self._done, note)
        self._done = done


def arms(posed: Posed, artifacts: Mapping[str, Artifact], out: Sequence[str]) -> dict[str, Arm]:
    """Candidates with their artifacts and the way they are run, in the question's order, but for those in ``out``."""
    question = posed.question
    found = {}
    for candidate in question.candidates:
        if candidate.name in out or candidate.name not in artifacts:
            continue
        artifact = artifacts[candidate.name]
        options = RuntimeOptions(
            cache=candidate.cache, context=question.context, parallel=question.requests(candidate.runtime)
        )
        thinking = question.decoding.thinking_cap or 0
        options = replace(options, timeout_s=options.timeout_s + THINKING_S * thinking)
        found[candidate.name] = Arm(
            candidate=candidate,
            artifact=replace(artifact, location=gguf_path(artifact)),
            runtime=posed.runtimes[candidate.runtime],
            options=options,
            template=posed.of(candidate).template,
            decoding=question.decoding,
            seed=question.seed,
            template_arguments=question.template_arguments,
        )
    return found


def gguf_path(artifact: Artifact) -> str:
    """Where the bytes lie: a built GGUF stands in a folder of its own."""
    path = Path(artifact.location)
    if artifact.format == "gguf" and path.is_dir():
        return str(next(path.glob("*.gguf")))
    return artifact.location


def elsewhere(runtime: Runtime) -> Runtime:
    """The runtime in a process of its own, where it is not in one already."""
    if runtime.name == "transformers":
        from quantwise.runtimes.transformers import Transformers

        return Transformers(own_process=True)
    return runtime
