"""One question of several models, out of the questions that each would be by itself, and apart again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from quantwise.core.artifact import Candidate
from quantwise.core.question import ModelQuestion, Question
from quantwise.question.posed import Posed
from quantwise.question.request import Request


def apart(request: Request, candidates: Sequence[Candidate]) -> dict[str, Request]:
    """Of each model the request that is about its own candidates."""
    found = {}
    for name, place in request.models.items():
        own = tuple(c for c in candidates if c.model == name)
        found[name] = replace(request, model=place, models={}, exact=own, stand_ins={})
    return found


def join(candidates: Sequence[Candidate], parts: Mapping[str, Posed]) -> Posed:
    """The question of all candidates; each part keeps its model, its template and its calibration texts."""
    first = next(iter(parts.values()))
    asked = {name: part.question for name, part in parts.items()}
    models = tuple(
        ModelQuestion(name, q.model, q.model_hash or _hash_of(q.brought), q.template_hash) for name, q in asked.items()
    )
    calibration = {
        "texts": sum(q.calibration["texts"] for q in asked.values()),
        "hash": _hash_of({name: q.calibration["hash"] for name, q in asked.items()}),
        "samples": next((q.calibration["samples"] for q in asked.values() if q.calibration["samples"]), None),
        "of": {name: dict(q.calibration) for name, q in asked.items()},
    }
    question = replace(
        first.question,
        model=", ".join(f"{m.name}={m.source}" for m in models),
        model_hash=_hash_of({m.name: m.hash for m in models}),
        candidates=tuple(candidates),
        calibration=calibration,
        runtimes=_merged(q.runtimes for q in asked.values()),
        brought=_merged(q.brought for q in asked.values()),
        template_hash=None,
        parallel=_merged(q.parallel for q in asked.values()),
        context=min(q.context for q in asked.values()),
        models=models,
    )
    return _joined(question, parts)


def rejoin(question: Question, parts: Mapping[str, Posed]) -> Posed:
    """The same of a question that was frozen earlier."""
    return _joined(question, parts)


def part_of(question: Question, model: ModelQuestion) -> Question:
    """The question that one model would be by itself, with everything that was frozen about it."""
    own = tuple(c for c in question.candidates if c.model == model.name)
    runtimes = {c.runtime for c in own}
    return replace(
        question,
        model=model.source,
        model_hash=model.hash,
        template_hash=model.template_hash,
        candidates=own,
        calibration=question.calibration["of"][model.name],
        runtimes={name: build for name, build in question.runtimes.items() if name in runtimes},
        brought={c.name: question.brought[c.name] for c in own if c.name in question.brought},
        models=(),
    )


def places_of(posed: Posed) -> dict[str, str]:
    """Name to absolute folder of each model that recipes are applied to."""
    return {name: str(part.model.resolve()) for name, part in posed.parts.items() if part.model is not None}


def _joined(question: Question, parts: Mapping[str, Posed]) -> Posed:
    first = next(iter(parts.values()))
    runtimes = _merged(part.runtimes for part in parts.values())
    brought = _merged(part.brought for part in parts.values())
    return Posed(question, first.tasks, None, (), runtimes, brought, None, parts=parts)


def _merged(tables: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for table in tables:
        found |= table
    return found


def _hash_of(record: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16).hexdigest()
