"""From a request to a question: read everything that could change the answer, refuse what cannot work, freeze the rest.

Nothing is built, loaded or measured here, so that a slip of the pen costs a second and not an hour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact, Candidate, FormatName
from quantwise.core.decoding import Decoding, check_heat, decoding_of
from quantwise.core.errors import InputError
from quantwise.core.evidence import Fit
from quantwise.core.item import Item
from quantwise.core.loads import kernel_lacks
from quantwise.core.question import Question, TaskQuestion
from quantwise.core.recipe import parse_recipe
from quantwise.formats.content_hash import content_hash
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.models.config import read_config
from quantwise.plan.preflight import preflight
from quantwise.question.brought import brought_by, one_template
from quantwise.question.joint import apart, join, part_of, rejoin
from quantwise.question.posed import Posed
from quantwise.question.request import Request, candidates_of, is_demo, is_recipe, model_name, model_of, reads_data
from quantwise.runtimes import runtime_named
from quantwise.scenarios.reader import read_scenario
from quantwise.scenarios.scenario import Scenario
from quantwise.tasks import SUITES
from quantwise.tasks.calibration import CalibrationSet, Render, gathered
from quantwise.tasks.readers import read_all
from quantwise.tasks.scorers import SCORERS_VERSION
from quantwise.tasks.task import Task

BLOCK = 32
BATCH = 32
"""Requests in a batch of the Transformers runtime where no time decides: then it only has to be quick."""
ITEMS = 512
"""Certification items per task where they are made and nobody says how many."""
SCREEN_ITEMS = 64
MOST_ITEMS = 1_000_000
MOST_REQUESTS = 1_000_000
MOST_CONTEXT = 1_000_000_000


def fits_here(request: Request) -> dict[str, Fit]:
    """The fit of each candidate on this machine, by its name, from headers alone: before files are hashed.

    Raises InputError for a damaged file, and for a recipe that the model cannot become or its runtime could not load.
    """
    candidates = candidates_of(request)
    if request.models:
        found = [fits_here(part) for part in apart(request, candidates).values()]
        return {name: fit for fits in found for name, fit in fits.items()}
    _check_sizes(request)
    model = model_of(request, candidates)
    scenario = read_scenario(request.scenario or ("demo" if is_demo(request) else "laptop"))
    _decoding(request, scenario, candidates)
    context = _context(request.context or scenario.context, model, candidates)
    requests = {c.runtime: request.parallel or _requests(c.runtime, scenario, candidates) for c in candidates}
    recipes = [c for c in candidates if is_recipe(c)]
    fits = preflight(candidates, model, [c.source for c in recipes], context, requests)
    if model is not None:
        _check_recipes(recipes, model)
    return fits


def _check_recipes(candidates: Sequence[Candidate], model: Path) -> None:
    """Refuse, before anything is built, what the runtime could not load or the model cannot become."""
    made = {c: parse_recipe(c.source) for c in candidates}
    for candidate, recipe in made.items():
        form: FormatName = "gguf" if candidate.runtime == "llamacpp" else recipe.scheme.format
        runtime = runtime_named(candidate.runtime)
        why = runtime.refuses(Artifact("", form, "", None)) or kernel_lacks(runtime.version(), recipe.scheme)
        if why is not None:
            raise InputError(f"{candidate.name}: {why}")
    if wanted := [recipe for recipe in made.values() if recipe.scheme.kind != "float"]:
        from quantwise.build.preflight import check_recipes

        check_recipes(model, wanted)


def pose(request: Request) -> Posed:
    """Read, check and freeze. Raises InputError naming what cannot work."""
    candidates = candidates_of(request)
    if request.models:
        return join(candidates, {name: pose(part) for name, part in apart(request, candidates).items()})
    _check_sizes(request)
    model = model_of(request, candidates)
    scenario = read_scenario(request.scenario or ("demo" if is_demo(request) else "laptop"))
    tasks = read_all(request.tasks or [suite.name for suite in SUITES])
    runtimes = {name: runtime_named(name) for name in dict.fromkeys(c.runtime for c in candidates)}
    brought = {c.name: made for c in candidates if (made := brought_by(c, model, runtimes)) is not None}
    template = one_template(model, brought, scenario.template_arguments)
    texts: list[str] = []
    wanted = request.calibration or CalibrationSet(seed=request.seed)
    if any(map(reads_data, candidates)):
        texts = gathered(wanted, rendering(template), [item for task in tasks for item in asked(request, task)])
    question = Question(
        model=model_name(model, candidates),
        model_hash=content_hash(model) if model else "",
        scenario=scenario.to_json(),
        tasks=tuple(_task(request, scenario, task) for task in tasks),
        candidates=candidates,
        calibration={"texts": len(texts), "hash": _hash_of(texts), "samples": wanted.samples if texts else None},
        runtimes={name: live.version() for name, live in runtimes.items()},
        brought={name: made.hash for name, made in brought.items()},
        template_hash=template.hash if template else None,
        scorers=SCORERS_VERSION,
        alpha=scenario.alpha if request.alpha is None else request.alpha,
        mode="fixed" if request.fixed else "sequential",
        multiplicity=request.multiplicity,
        block=BLOCK,
        parallel={name: request.parallel or _requests(name, scenario, candidates) for name in runtimes},
        context=_context(request.context or scenario.context, model, candidates),
        seed=request.seed,
        decoding=_decoding(request, scenario, candidates),
    )
    _check_task_names(request, question)
    thinking = question.decoding.thinking_cap
    if thinking is not None and thinking >= question.context:
        raise InputError(
            f"{thinking} tokens of thinking do not fit into a context of {question.context}; give --context for the "
            "prompt, the thinking and the answer together, as far as the model has it, or a lower --thinking-cap"
        )
    counted = wanted.samples is not None
    return Posed(question, {t.name: t for t in tasks}, model, texts, runtimes, brought, template, counted)


def repose(question: Question, model: Path | None, artifacts: Mapping[str, Artifact]) -> Posed:
    """The live things of a question that was frozen earlier. Raises InputError where something has changed since."""
    tasks = read_all([t.source for t in question.tasks])
    for task, frozen in zip(tasks, question.tasks, strict=True):
        if task.source_hash != frozen.source_hash:
            raise InputError(
                f"{frozen.source} has changed since the question was frozen; decide again into a new --run"
            )
    runtimes = {name: runtime_named(name) for name in question.runtimes}
    for name, live in runtimes.items():
        if live.version() != question.runtimes[name]:
            raise InputError(
                f"asked of {question.runtimes[name]}, but here is {live.version()}; decide again into a new --run"
            )
    if question.scorers != SCORERS_VERSION:
        raise InputError("the scorers have changed since the question was frozen; decide again into a new --run")
    for name, made in artifacts.items():
        if made.format != "server" and content_hash(Path(made.location)) != made.hash:
            raise InputError(
                f"{made.location} ({name}) has changed since it was measured; decide again into a new --run"
            )
    as_it_is = model is None or any(made.location == str(model) for made in artifacts.values())
    if model is not None and not as_it_is and content_hash(model) != question.model_hash:
        raise InputError(f"{model} has changed since the question was frozen; decide again into a new --run")
    template = one_template(model, artifacts, question.template_arguments)
    if (template.hash if template else None) != question.template_hash:
        raise InputError("the chat template has changed since the question was frozen; decide again into a new --run")
    return Posed(question, {t.name: t for t in tasks}, model, (), runtimes, artifacts, template)


def repose_parts(question: Question, places: Mapping[str, str], artifacts: Mapping[str, Artifact]) -> Posed:
    """The same of a question of several models; ``places`` are the folders that recipes are applied to, by name."""
    parts = {}
    for model in question.models:
        own = part_of(question, model)
        names = {c.name for c in own.candidates}
        place = Path(places[model.name]) if model.name in places else None
        parts[model.name] = repose(own, place, {name: made for name, made in artifacts.items() if name in names})
    return rejoin(question, parts)


def recheck(posed: Posed, calibration: CalibrationSet, items: Mapping[str, int]) -> None:
    """Before so many certification items of each task are asked, more than when the question was posed: raise
    InputError where files that it was calibrated on hold one of them, or have changed since.
    """
    for part in posed.parts.values():
        recheck(part, calibration, items)
    if not calibration.files or not posed.question.calibration.get("texts"):
        return
    further = [item for name, count in items.items() for item in posed.certify_items(name, count)]
    texts = gathered(calibration, rendering(posed.template), further)
    if _hash_of(texts) != posed.question.calibration["hash"]:
        named = ", ".join(map(str, calibration.files))
        raise InputError(f"{named} has changed since the question was frozen; decide again into a new --run")


def rendering(template: ChatTemplate | None) -> Render | None:
    """How a solved item becomes a text; None where there is no template."""
    return None if template is None else lambda turns: template.render(turns, add_generation_prompt=False)


def asked(request: Request, task: Task) -> list[Item]:
    """The items of a task that this request would ask: all of a file, for they may be asked later."""
    most = _planned(request, task) if task.available is None else task.available
    return [*task.supply("screen", SCREEN_ITEMS, request.seed), *task.supply("certify", most, request.seed)]


def _task(request: Request, scenario: Scenario, task: Task) -> TaskQuestion:
    planned = _planned(request, task)
    return TaskQuestion(
        name=task.name,
        source=task.source,
        source_hash=task.source_hash,
        kind=task.kind,
        margin=request.margins.get(task.name, scenario.margin(task.name, task.kind)),
        items=planned,
        available=task.available,
        screen_items=len(task.supply("screen", SCREEN_ITEMS, request.seed)),
        floor=request.floors.get(task.name, scenario.floors.get(task.name)),
    )


def _check_sizes(request: Request) -> None:
    """Raise InputError for numbers that nothing here could hold."""
    for given, what, most in (
        (request.items, "items of each task", MOST_ITEMS),
        (request.parallel, "requests at a time", MOST_REQUESTS),
        (request.context, "tokens of context", MOST_CONTEXT),
    ):
        if given is not None and given > most:
            raise InputError(f"more {what} were asked for than this can hold; at most {most:,}")


def _context(wanted: int, model: Path | None, candidates: Sequence[Candidate]) -> int:
    """Tokens per request, no more than every model here was made for, or a server was started with."""
    brought = [c for c in candidates if not is_recipe(c)]
    places = [*([model] if model is not None else []), *(Path(c.source) for c in brought if c.runtime != "openai")]
    known = [read_config(p).context if p.is_dir() else read_gguf_header(p).context_length for p in places]
    if urls := [c.source for c in brought if c.runtime == "openai"]:
        from quantwise.runtimes.openai import server_context

        known += map(server_context, urls)
    return min([wanted, *(c for c in known if c)])


def _decoding(request: Request, scenario: Scenario, candidates: Sequence[Candidate]) -> Decoding:
    """What was asked for, before what the scenario says. Raises InputError for what does not go together."""
    wanted = decoding_of(scenario.decoding.to_json() | dict(request.decoding))
    if request.fixed and wanted.repeats > 1:
        raise InputError(
            "--fixed-n needs right-or-wrong items, and the mean of repeats is graded; leave one of them out"
        )
    for candidate in candidates:
        check_heat(wanted, candidate.name, candidate.runtime)
    return wanted


def _requests(runtime: str, scenario: Scenario, candidates: Sequence[Candidate]) -> int:
    """A server is asked as the scenario asks it; that also keeps the answers of llama.cpp the same in every run.

    So is Transformers where a time may decide. Behind bytes it decides between artifacts of exactly the same size only,
    which are of one layout and so computed alike; but nobody knows the bytes of a server by URL.
    """
    by_bytes = scenario.objective[0] == "bytes" and all(c.runtime != "openai" for c in candidates)
    timed = not by_bytes or scenario.max_p95_seconds is not None or scenario.prices is not None
    return BATCH if runtime == "transformers" and not timed else scenario.concurrency


def _planned(request: Request, task: Task) -> int:
    """Certification items: whole blocks, unless a file has fewer or the question fixes the number."""
    wanted = request.items or (ITEMS if task.available is None else task.available)
    if request.fixed:
        if any(item.cluster for item in task.supply("certify", wanted, request.seed)):
            raise InputError(
                f"{task.source}: --fixed-n needs right-or-wrong items, and clustered ones are graded; leave it out"
            )
        if task.available is not None and task.available < wanted:
            raise InputError(f"{task.source} has {task.available} items to certify with, not {wanted}; lower --fixed-n")
        return wanted
    rounded = -(-wanted // BLOCK) * BLOCK
    return rounded if task.available is None else min(rounded, task.available)


def _check_task_names(request: Request, question: Question) -> None:
    names = [t.name for t in question.tasks]
    for given in (*request.margins, *request.floors):
        if given not in names:
            raise InputError(f"no task {given!r} in this question; tasks: {', '.join(names)}")
    if question.by_floor and (without := [t.name for t in question.tasks if t.floor is None]):
        raise InputError(f"compare is floor, and {without[0]} has none; add --floor {without[0]}=0.6 or leave it out")
    if not 0 < question.alpha < 0.5:
        raise InputError(f"alpha {question.alpha:g} is out of range: give a share between 0 and 0.5, for example 0.05")
    for task in question.tasks:
        if not 0 < task.margin < 1:
            raise InputError(f"margin of {task.name} must lie between 0 and 1, such as 1%, not {task.margin:g}")
        if task.floor is not None and not 0 < task.floor <= 1:
            raise InputError(f"floor of {task.name} must be above 0 and at most 1, such as 70%, not {task.floor:g}")


def _hash_of(texts: Sequence[str]) -> str:
    digest: Any = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode() + b"\0")
    return str(digest.hexdigest())
