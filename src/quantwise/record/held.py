"""What a run folder holds of one question, and what the rule looks at, made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from quantwise.core.artifact import Artifact, Candidate, Degradation
from quantwise.core.evidence import LOST, Fit, Measurement
from quantwise.core.imported import Imported
from quantwise.core.question import Question
from quantwise.core.runtime import Executes, Footprint
from quantwise.core.verdict import Cost
from quantwise.cost.block_energy import BlockJoules, block_joules, meters_of
from quantwise.cost.candidate import cost, p95_seconds
from quantwise.cost.ratios import Ratio, inverse, ratios
from quantwise.cost.solved import priced, solved_items
from quantwise.decision.objective import MEASURED_PER_ITEM, Evidence
from quantwise.screen import noise
from quantwise.settle.floor import floor_verdicts
from quantwise.settle.pair import verdicts
from quantwise.store import Store


@dataclass(frozen=True, slots=True)
class Held:
    """By the name of a candidate: its rows, its artifact, how its weights are computed with, memory, fit and costs.

    ``broken`` says why a candidate ended early, ``imported`` which rows came from elsewhere, ``accuracy`` is by task,
    ``meters`` are those whose sum ``joules`` is, ``noise`` one row for each baseline and task, ``timing`` seconds by
    stage.
    """

    rows: Mapping[str, Sequence[Measurement]]
    broken: Mapping[str, str]
    imported: Mapping[str, Imported]
    artifacts: Mapping[str, Artifact]
    executes: Mapping[str, Executes | None]
    footprints: Mapping[str, Footprint]
    fits: Mapping[str, Fit]
    costs: Mapping[str, Cost]
    joules: Mapping[str, BlockJoules]
    meters: tuple[str, ...]
    accuracy: Mapping[str, Mapping[str, Mapping[str, Any]]]
    noise: Sequence[Mapping[str, Any]]
    timing: Mapping[str, float | None]


def held(store: Store, question: Question) -> Held:
    """Everything of the folder that a record rests on."""
    rows = {c.name: store.rows("certify", c.name) for c in question.candidates}
    metered = list(store.all("joules").values())
    imported, joules = store.imported(), block_joules(metered)
    artifacts = _artifacts(store, question, imported)
    told = {name: Footprint(**body) for name, body in store.all("footprint").items()}
    executes = {c.name: _executes(c, told.get(c.name)) for c in question.candidates}
    # What expanded weights occupy is nobody's memory.
    footprints = {
        n: Footprint(executes=how) if (how := executes.get(n)) == "dequantized" else f for n, f in told.items()
    }
    return Held(
        rows=rows,
        broken={name: body["why"] for name, body in store.all("broken").items()},
        imported=imported,
        artifacts=artifacts,
        executes=executes,
        footprints=footprints,
        fits={name: Fit(**body) for name, body in store.all("fit").items()},
        costs={
            c.name: cost(c, artifacts[c.name], footprints.get(c.name), rows[c.name], joules.get(c.name, {}))
            for c in question.candidates
            if c.name in artifacts
        },
        joules=joules,
        meters=meters_of(metered),
        accuracy={c.name: _accuracy(question, rows[c.name]) for c in question.candidates},
        noise=noise(store, question),
        timing=store.all("timing"),
    )


def evidence(store: Store, question: Question, found: Held) -> Evidence:
    """What the rule decides on."""
    return Evidence(
        verdicts=verdicts(store, question),
        fits=found.fits,
        costs=found.costs,
        broken=found.broken,
        p95_seconds={
            c.name: p95_seconds(found.rows[c.name]) if c.computes_as_stored else None for c in question.candidates
        },
        noise=_noise_rates(found.noise),
        ratios=_ratios(question, found),
        solved=solved_items(question, found.rows, found.costs, found.timing),
        floors=floor_verdicts(store, question),
        priced=priced(question, found.rows, {c.name for c in question.candidates if c.baseline or c.shippable}),
        dequantized=frozenset(name for name, how in found.executes.items() if how == "dequantized"),
    )


def _artifacts(store: Store, question: Question, imported: Mapping[str, Imported]) -> dict[str, Artifact]:
    """Those that lie here, and of rows from elsewhere those that were measured there."""
    here = {name: artifact_from(body) for name, body in store.all("artifact").items()}
    there = {name: Artifact(**{"location": "", **one.artifact}) for name, one in imported.items()}
    return {name: _with_difference(question, one, imported.get(name)) for name, one in (there | here).items()}


def artifact_from(body: Mapping[str, Any]) -> Artifact:
    """An artifact as the store keeps it."""
    return Artifact(**{**body, "degradations": tuple(Degradation(**d) for d in body["degradations"])})


def _with_difference(question: Question, artifact: Artifact, imported: Imported | None) -> Artifact:
    """The artifact with the degradation that its rows come from another runtime build, where they do."""
    other = None if imported is None else imported.differs(build_of(question, imported.candidate))
    if other is None:
        return artifact
    return replace(artifact, degradations=(*artifact.degradations, Degradation("evidence", other)))


def build_of(question: Question, candidate: str) -> str:
    """The build of the runtime that a candidate is measured in."""
    return next(question.runtimes[c.runtime] for c in question.candidates if c.name == candidate)


def _executes(candidate: Candidate, footprint: Footprint | None) -> Executes | None:
    """How its weights are computed with: as its session said, or as is known without it; None where nobody said."""
    if footprint is not None and footprint.executes is not None:
        return footprint.executes
    return "dequantized" if not candidate.computes_as_stored and candidate.cache == "f16" else None


def _accuracy(question: Question, rows: Sequence[Measurement]) -> dict[str, dict[str, Any]]:
    out = {}
    for task in question.tasks:
        scored = [(r.item, r.score) for r in rows if r.task == task.name and r.score is not None]
        lost = {r.item for r in rows if r.task == task.name and r.finish in LOST}
        items = {item for item, _ in scored}
        out[task.name] = {"n": len(items), "mean": _mean([score for _, score in scored]), "lost": len(lost)}
    return out


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None


def _ratios(question: Question, held: Held) -> dict[tuple[str, str], Mapping[str, Ratio | None]]:
    """Of every two candidates whose times are real, the measured costs that the objective asks for."""
    terms = [t for term in question.scenario["objective"] if (t := term.removeprefix("-")) in MEASURED_PER_ITEM]
    real = [c.name for c in question.candidates if c.computes_as_stored]
    found: dict[tuple[str, str], Mapping[str, Ratio | None]] = {}
    for one, two in combinations(real if terms else (), 2):
        told = ratios(
            held.rows[one], held.rows[two], terms, joules=(held.joules.get(one, {}), held.joules.get(two, {}))
        )
        found[one, two] = told
        found[two, one] = {term: inverse(r) if r else None for term, r in told.items()}
    return found


def _noise_rates(floor: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Share of items that flip between two runs of a runtime's baseline, over all tasks."""
    rates: dict[str, float | None] = {}
    for runtime in dict.fromkeys(row["runtime"] for row in floor):
        rows = [row for row in floor if row["runtime"] == runtime]
        asked = sum(row["n"] for row in rows)
        rates[runtime] = sum(row["flips"] for row in rows) / asked if asked else None
    return rates
