"""The record of a run: everything a report shows, recomputed from the run folder alone."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from quantwise import __version__
from quantwise.core.artifact import Artifact, Candidate, Degradation
from quantwise.core.evidence import LOST, Fit, Measurement
from quantwise.core.imported import Imported
from quantwise.core.question import Question
from quantwise.core.runtime import Executes, Footprint
from quantwise.core.solved_item import Priced, SolvedItem
from quantwise.core.verdict import Verdict
from quantwise.cost.candidate import cost, percentile
from quantwise.cost.course import way_of
from quantwise.cost.ratios import Ratio, ratios
from quantwise.cost.solved import priced, run_cost, solved_items
from quantwise.decision.gates import gates_of, standing
from quantwise.decision.objective import Evidence
from quantwise.decision.rule import decide
from quantwise.endpoints import endpoints
from quantwise.losses import faults
from quantwise.prompts.check import prompts_of
from quantwise.screen import noise, screened
from quantwise.settle.floor import floor_verdicts
from quantwise.settle.pair import verdicts
from quantwise.stats.compare import compare
from quantwise.stats.pairing import ANSWERED, pairs
from quantwise.store import Store


def assemble(store: Store, question: Question) -> dict[str, Any]:
    """Verdicts, costs and the decision, with all they rest on, as plain JSON values."""
    found, floors = verdicts(store, question), floor_verdicts(store, question)
    rows = {c.name: store.rows("certify", c.name) for c in question.candidates}
    broken = {name: body["why"] for name, body in store.all("broken").items()}
    imported = store.imported()
    artifacts = {name: artifact_from(body) for name, body in store.all("artifact").items()}
    artifacts = {name: Artifact(**{"location": "", **one.artifact}) for name, one in imported.items()} | artifacts
    artifacts = {name: _with_difference(question, one, imported.get(name)) for name, one in artifacts.items()}
    told = {name: Footprint(**body) for name, body in store.all("footprint").items()}
    executes = {c.name: _executes(c, told.get(c.name)) for c in question.candidates}
    # What expanded weights occupy is nobody's memory.
    footprints = {
        n: Footprint(executes=how) if (how := executes.get(n)) == "dequantized" else f for n, f in told.items()
    }
    fits = {name: Fit(**body) for name, body in store.all("fit").items()}
    costs = {
        c.name: cost(c, artifacts[c.name], footprints.get(c.name), rows[c.name])
        for c in question.candidates
        if c.name in artifacts
    }
    accuracy = {c.name: _accuracy(question, rows[c.name]) for c in question.candidates}
    floor = noise(store, question)
    timing = store.all("timing")
    solved = solved_items(question, rows, costs, timing)
    pairs_priced = priced(question, rows, {c.name for c in question.candidates if c.baseline or c.shippable})
    evidence = Evidence(
        verdicts=found,
        fits=fits,
        costs=costs,
        accuracy={name: {t: a["mean"] for t, a in by_task.items()} for name, by_task in accuracy.items()},
        broken=broken,
        p95_seconds={c.name: _p95(c, rows[c.name]) for c in question.candidates},
        noise=_noise_rates(floor),
        lost={name: {t: a["lost"] / (a["n"] or 1) for t, a in of.items()} for name, of in accuracy.items()},
        ratios=_ratios(question, rows),
        solved=solved,
        floors=floors,
        priced=pairs_priced,
        dequantized=frozenset(name for name, how in executes.items() if how == "dequantized"),
    )
    gates = gates_of(question, found, floors)
    overall = {
        c.name: _overall(question, c, rows, standing(gates, c.name)) for c in question.candidates if not c.baseline
    }
    facts = store.get("facts", "machine") or {"machine": {}, "versions": {}}
    return (
        {
            "schema": 1,
            "quantwise": __version__,
            "question_hash": question.hash,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "question": _question(question),
            "machine": facts["machine"],
            "versions": facts["versions"],
            "decision": asdict(decide(question, evidence)),
            "candidates": [
                _candidate(
                    c,
                    artifacts.get(c.name),
                    fits.get(c.name),
                    footprints.get(c.name),
                    accuracy[c.name],
                    overall.get(c.name),
                )
                | {
                    "note": broken.get(c.name) or store.get("note", c.name),
                    "cache_use": store.get("cache_use", c.name),
                    "executes": executes[c.name],
                }
                for c in question.candidates
            ],
            "verdicts": [_verdict(v) for v in found],
            "noise": floor,
            "screen": screened(store, question),
            "costs": [asdict(costs[c.name]) for c in question.candidates if c.name in costs],
            "timing": timing,
            "caveats": _caveats(found),
            "imported": [
                one.to_json() | {"differs": one.differs(_build(question, name))} for name, one in imported.items()
            ],
            "prompts": prompts_of(store, question),
            "servers": [{"candidate": name} | able for name, able in store.all("capabilities").items()],
            "faults": [faults(name, of) for name, of in rows.items()],
            "endpoints": endpoints(store, question),
            "generations": sum(len(r) for r in rows.values()),
            "generations_per_s": _rate({name: r for name, r in rows.items() if name not in imported}, timing),
            "folder": str(store.folder),
        }
        | _solved(question, solved, pairs_priced, timing)
        | ({"floors": [asdict(v) for v in floors]} if floors else {})
    )


def flips(store: Store, question: Question) -> list[dict[str, Any]]:
    """Items on which a candidate and its baseline differ in score, with both outputs."""
    out = []
    for candidate in (c for c in question.candidates if not c.baseline):
        base = question.baseline_of(candidate)
        for task in question.tasks:
            asked = store.asked(task.name)
            theirs = {(r.item, r.repeat): r for r in store.rows("certify", base.name, task.name)}
            for row in store.rows("certify", candidate.name, task.name):
                other = theirs.get((row.item, row.repeat))
                if other is None or other.score == row.score:
                    continue
                prompt, target = asked[row.item]
                out.append(
                    {
                        "task": task.name,
                        "item": row.item,
                        "candidate": candidate.name,
                        "baseline": base.name,
                        "prompt": prompt,
                        "target": target,
                        "baseline_output": _said(other),
                        "candidate_output": _said(row),
                        "baseline_score": other.score,
                        "candidate_score": row.score,
                    }
                )
    return out


def artifact_from(body: Mapping[str, Any]) -> Artifact:
    """An artifact as the store keeps it."""
    return Artifact(**{**body, "degradations": tuple(Degradation(**d) for d in body["degradations"])})


def _with_difference(question: Question, artifact: Artifact, imported: Imported | None) -> Artifact:
    """The artifact with the degradation that its rows come from another runtime build, where they do."""
    other = None if imported is None else imported.differs(_build(question, imported.candidate))
    if other is None:
        return artifact
    return replace(artifact, degradations=(*artifact.degradations, Degradation("evidence", other)))


def _build(question: Question, candidate: str) -> str:
    return next(question.runtimes[c.runtime] for c in question.candidates if c.name == candidate)


def _caveats(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Each sentence on what verdicts rest on beside what was measured here, with the candidates that it concerns."""
    said: dict[str, dict[str, None]] = {}
    for verdict in found:
        for sentence in verdict.caveats:
            said.setdefault(sentence, {})[verdict.candidate] = None
    return [{"says": sentence, "candidates": list(names)} for sentence, names in said.items()]


def _said(row: Measurement) -> str:
    return row.output if row.finish in ANSWERED else f"[{row.finish}] {row.error or ''}"


def _question(question: Question) -> dict[str, Any]:
    body = question.to_json()
    body["model"] = {"name": question.model, "hash": question.model_hash}
    body["multiplicity"] = {"rule": question.multiplicity, "m": question.m, "pass_threshold": question.pass_threshold}
    return body


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


def _p95(candidate: Candidate, rows: Sequence[Measurement]) -> float | None:
    return (
        percentile([r.seconds for r in rows if r.seconds is not None], 0.95) if candidate.computes_as_stored else None
    )


def _overall(
    question: Question, candidate: Candidate, rows: Mapping[str, Sequence[Measurement]], verdict: str
) -> dict[str, Any]:
    """All tasks pooled, as a description; no verdict rests on it."""
    matched, _ = pairs(rows[question.baseline_of(candidate).name], rows[candidate.name])
    pooled = compare(matched, max(t.margin for t in question.tasks), alpha=question.alpha)
    return {
        "n": pooled.n,
        "delta": pooled.delta,
        "interval": pooled.interval,
        "verdict": verdict,
        "explanation": "all tasks pooled over the items asked; a description, no verdict rests on it",
    }


def _candidate(
    candidate: Candidate, artifact: Artifact | None, fit: Fit | None, footprint: Footprint | None,
    accuracy: Mapping[str, Any], overall: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "name": candidate.name,
        **({"model": candidate.model} if candidate.model else {}),
        "source": candidate.source,
        "runtime": candidate.runtime,
        "cache": candidate.cache,
        "baseline": candidate.baseline,
        "stands_for": candidate.stands_for or None,
        "control": candidate.control,
        "shippable": candidate.shippable,
        "computes_as_stored": candidate.computes_as_stored,
        "artifact": asdict(artifact) if artifact else None,
        "fit": asdict(fit) | {"total_bytes": fit.total_bytes} if fit else None,
        "footprint": asdict(footprint) if footprint else None,
        "accuracy": accuracy,
        "overall": overall,
    }


def _executes(candidate: Candidate, footprint: Footprint | None) -> Executes | None:
    """How its weights are computed with: as its session said, or as is known without it; None where nobody said."""
    if footprint is not None and footprint.executes is not None:
        return footprint.executes
    return "dequantized" if not candidate.computes_as_stored and candidate.cache == "f16" else None


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """One flat row, with the names that ``--json`` promises."""
    c = verdict.comparison
    return {
        "candidate": verdict.candidate, "baseline": verdict.baseline, "task": verdict.task,
        "verdict": verdict.verdict, "reason": verdict.reason, "n": c.n, "delta": c.delta, "interval": c.interval,
        "flips": c.regressions + c.improvements, "regressions": c.regressions, "improvements": c.improvements,
        "margin": c.margin, "e_pass": c.e_pass, "e_fail": c.e_fail, "z": c.z, "missing": c.missing,
        "n_more": verdict.n_more, "minutes_more": verdict.minutes_more, "smallest_margin": verdict.smallest_margin,
        "max_drop": verdict.max_drop, "explanation": verdict.explanation,
        "caveats": list(verdict.caveats),
    }  # fmt: skip


def _ratios(
    question: Question, rows: Mapping[str, Sequence[Measurement]]
) -> dict[tuple[str, str], Mapping[str, Ratio | None]]:
    """Measured costs of every two candidates whose times are real."""
    real = [c.name for c in question.candidates if c.computes_as_stored]
    return {(a, b): ratios(rows[a], rows[b]) for a in real for b in real if a != b}


def _noise_rates(floor: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Share of items that flip between two runs of a runtime's baseline, over all tasks."""
    rates: dict[str, float | None] = {}
    for runtime in dict.fromkeys(row["runtime"] for row in floor):
        rows = [row for row in floor if row["runtime"] == runtime]
        asked = sum(row["n"] for row in rows)
        rates[runtime] = sum(row["flips"] for row in rows) / asked if asked else None
    return rates


def _solved(
    question: Question, solved: Mapping[str, SolvedItem],
    between: Mapping[tuple[str, str], Mapping[str, Priced | None]], timing: Mapping[str, float | None],
) -> dict[str, Any]:  # fmt: skip
    """What a solved item costs with each candidate; nothing where the scenario states no prices."""
    way = way_of(question)
    if way is None:
        return {}
    body = asdict(way) | {"run_cost": run_cost(way, timing), "items": [asdict(s) for s in solved.values()]}
    told = [
        {"candidate": one, "over": two, "term": term} | asdict(found)
        for (one, two), terms in between.items() for term, found in terms.items() if found is not None
    ]  # fmt: skip
    return {"solved": body | ({"between": told} if between else {})}


def _rate(rows: Mapping[str, Sequence[Measurement]], timing: Mapping[str, Any]) -> float | None:
    seconds = timing.get("certify")
    return sum(len(r) for r in rows.values()) / seconds if seconds else None
