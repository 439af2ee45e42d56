"""The record of a run, as plain JSON values."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from quantwise import __version__
from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.evidence import Fit, Measurement
from quantwise.core.question import Question
from quantwise.core.runtime import Footprint
from quantwise.core.verdict import Cost, Verdict
from quantwise.cost.course import way_of
from quantwise.cost.solved import run_cost
from quantwise.decision.gates import gates_of, standing
from quantwise.decision.objective import Evidence
from quantwise.decision.rule import decide
from quantwise.endpoints import endpoints
from quantwise.losses import faults
from quantwise.prompts.check import prompts_of
from quantwise.record.held import Held, build_of, evidence, held
from quantwise.screen import screened
from quantwise.stats.compare import compare
from quantwise.stats.pairing import pairs
from quantwise.store import Store

_TAILS = (
    "p50_seconds", "p95_seconds", "p99_seconds", "p99_over_p50", "p50_first_token_seconds", "p95_first_token_seconds"
)  # fmt: skip


def assemble(store: Store, question: Question) -> dict[str, Any]:
    """Verdicts, costs and the decision, with all they rest on, as plain JSON values."""
    found = held(store, question)
    seen = evidence(store, question, found)
    facts = store.get("facts", "machine") or {"machine": {}, "versions": {}}
    return {
        "schema": 1,
        "quantwise": __version__,
        "question_hash": question.hash,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "question": _question(question),
        "machine": facts["machine"],
        "versions": facts["versions"],
        "decision": asdict(decide(question, seen)),
        "candidates": _candidates(store, question, found, seen),
        "verdicts": [_verdict(v) for v in seen.verdicts],
        "noise": found.noise,
        "screen": screened(store, question),
        "costs": [_cost(found.costs[c.name]) for c in question.candidates if c.name in found.costs],
        "energy_meters": list(found.meters),
        "timing": found.timing,
        "caveats": _caveats(seen.verdicts),
        "imported": [
            one.to_json() | {"differs": one.differs(build_of(question, name))} for name, one in found.imported.items()
        ],
        "prompts": prompts_of(store, question),
        "servers": [{"candidate": name} | able for name, able in store.all("capabilities").items()],
        "faults": [faults(name, of) for name, of in found.rows.items()],
        "endpoints": endpoints(store, question),
        "generations": sum(len(r) for r in found.rows.values()),
        "generations_per_s": _rate(found),
        "folder": str(store.folder),
        **_solved(question, seen, found.timing),
        **({"floors": [asdict(v) for v in seen.floors]} if seen.floors else {}),
    }


def _candidates(store: Store, question: Question, found: Held, seen: Evidence) -> list[dict[str, Any]]:
    gates = gates_of(question, seen.verdicts, seen.floors)
    return [
        _candidate(
            c,
            found.artifacts.get(c.name),
            found.fits.get(c.name),
            found.footprints.get(c.name),
            found.accuracy[c.name],
            None if c.baseline else _overall(question, c, found.rows, standing(gates, c.name)),
        )
        | {
            "note": found.broken.get(c.name) or store.get("note", c.name),
            "cache_use": store.get("cache_use", c.name),
            "executes": found.executes[c.name],
        }
        for c in question.candidates
    ]


def _cost(cost: Cost) -> dict[str, Any]:
    """JSON has no word for infinite: that is null there, and ``..._infinite`` beside it tells it from unknown."""
    told = asdict(cost)
    endless = {f"{key}_infinite": value == math.inf for key, value in told.items() if key in _TAILS}
    return {key: None if value == math.inf else value for key, value in told.items()} | endless


def _caveats(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Each sentence on what verdicts rest on beside what was measured here, with the candidates that it concerns."""
    said: dict[str, dict[str, None]] = {}
    for verdict in found:
        for sentence in verdict.caveats:
            said.setdefault(sentence, {})[verdict.candidate] = None
    return [{"says": sentence, "candidates": list(names)} for sentence, names in said.items()]


def _question(question: Question) -> dict[str, Any]:
    body = question.to_json()
    body["model"] = {"name": question.model, "hash": question.model_hash}
    body["multiplicity"] = {"rule": question.multiplicity, "m": question.m, "pass_threshold": question.pass_threshold}
    return body


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


def _solved(question: Question, seen: Evidence, timing: Mapping[str, float | None]) -> dict[str, Any]:
    """What a solved item costs with each candidate; nothing where the scenario states no prices."""
    way = way_of(question)
    if way is None:
        return {}
    body = asdict(way) | {"run_cost": run_cost(way, timing), "items": [asdict(s) for s in seen.solved.values()]}
    told = [
        {"candidate": one, "over": two, "term": term} | asdict(found)
        for (one, two), terms in seen.priced.items() for term, found in terms.items() if found is not None
    ]  # fmt: skip
    return {"solved": body | ({"between": told} if seen.priced else {})}


def _rate(found: Held) -> float | None:
    """Generations a second of what was measured here."""
    seconds = found.timing.get("certify")
    here = sum(len(rows) for name, rows in found.rows.items() if name not in found.imported)
    return here / seconds if seconds else None
