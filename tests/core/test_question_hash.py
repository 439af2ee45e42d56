"""The hash that names a run: pinned for one question of everything, and changed by whatever could change its answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from quantwise.core.artifact import Candidate
from quantwise.core.decoding import Decoding
from quantwise.core.question import ModelQuestion, Question, TaskQuestion
from quantwise.scenarios.prices import Budget, Prices, Review
from quantwise.scenarios.scenario import Scenario
from quantwise.scenarios.site import Site

SCENARIO = Scenario(
    name="office",
    objective=("money_per_solved", "bytes"),
    site=Site(name="mini PC", memory_bytes=1 << 34),
    context=2048,
    margins={"code": 0.02},
    floors={"mine": 0.7},
    prices=Prices("EUR", 1.8),
    reruns=2,
    review=Review(0.25, 0.6, 0.9),
    requests_per_month=1000.0,
    budget=Budget(0.004, 1500.0),
    endpoints={"non_termination": 0.02},
    decoding=Decoding(0.7, 0.95, 4),
    compare="floor",
)
LARGE, SMALL = Candidate("q4_k_m", "llamacpp", model="large"), Candidate("q8_0", "llamacpp", model="small")
QUESTION = Question(
    model="large=a, small=b",
    model_hash="ab",
    scenario=SCENARIO.to_json(),
    tasks=(TaskQuestion("mine", "mine.jsonl", "cd", "other", 0.01, 512, 64, 900, 0.7),),
    candidates=(Candidate("16bit", "llamacpp", baseline=True, model="large"), LARGE, SMALL),
    calibration={"texts": 0, "of": {"large": {"texts": 0}, "small": {"texts": 0}}},
    runtimes={"llamacpp": "llama.cpp 1"},
    brought={},
    template_hash=None,
    scorers="1",
    parallel={"llamacpp": 2},
    decoding=SCENARIO.decoding,
    models=(ModelQuestion("large", "a", "ef", "12"), ModelQuestion("small", "b", "34", None)),
)
OF_QUESTION: dict[str, Any] = {
    "model": "x", "model_hash": "x", "template_hash": "x", "scorers": "2", "alpha": 0.01, "mode": "fixed",
    "multiplicity": "ladder", "block": 64, "parallel": {"llamacpp": 4}, "context": 512, "seed": 1, "schema": 2,
    "calibration": {"texts": 1}, "runtimes": {"llamacpp": "llama.cpp 2"}, "brought": {SMALL.name: "56"},
    "decoding": Decoding(0.8, 0.95, 4), "candidates": QUESTION.candidates[:2], "models": QUESTION.models[:1],
    "tasks": (*QUESTION.tasks, replace(QUESTION.tasks[0], name="other")), "scenario": {"name": "x"},
}  # fmt: skip
OF_SCENARIO: dict[str, Any] = {
    "name": "x", "objective": ("seconds_per_solved", "bytes"), "site": Site(name="mini PC", memory_bytes=1 << 35),
    "context": 1024, "concurrency": 2, "max_p95_seconds": 3.0, "margins": {"code": 0.03}, "floors": {"mine": 0.8},
    "budget_seconds": 9.0, "alpha": 0.01, "note": "x", "prices": Prices("EUR", 1.9), "reruns": 1,
    "review": Review(0.25, 0.7, 0.9), "requests_per_month": 2000.0, "decoding": Decoding(0.7, 0.95, 2),
    "endpoints": {"non_termination": 0.03}, "budget": Budget(0.005, 1500.0), "compare": "baseline",
    "service_levels": {"ttft": 500.0}, "template_arguments": {"enable_thinking": False},
}  # fmt: skip
OF_TASK: dict[str, Any] = {
    "name": "x", "source": "x", "source_hash": "x", "kind": "code", "margin": 0.02, "items": 64, "screen_items": 32,
    "available": None, "floor": None, "role": "advisory",
}  # fmt: skip
OF_CANDIDATE: dict[str, Any] = {
    "source": "q5_0", "runtime": "vllm", "cache": "q8_0", "baseline": True, "control": True,
    "computes_as_stored": False, "stands_for": "x", "model": "large",
}  # fmt: skip
OF_MODEL: dict[str, Any] = {"name": "x", "source": "x", "hash": "x", "template_hash": "x"}
KINDS: dict[str, tuple[type, dict[str, Any], Callable[[dict[str, Any]], Question]]] = {
    "question": (Question, OF_QUESTION, lambda change: replace(QUESTION, **change)),
    "scenario": (
        Scenario, OF_SCENARIO, lambda change: replace(QUESTION, scenario=replace(SCENARIO, **change).to_json())
    ),
    "task": (TaskQuestion, OF_TASK, lambda change: replace(QUESTION, tasks=(replace(QUESTION.tasks[0], **change),))),
    "candidate": (
        Candidate, OF_CANDIDATE,
        lambda change: replace(QUESTION, candidates=(*QUESTION.candidates[:2], replace(SMALL, **change))),
    ),
    "model": (
        ModelQuestion, OF_MODEL,
        lambda change: replace(QUESTION, models=(QUESTION.models[0], replace(QUESTION.models[1], **change))),
    ),
}  # fmt: skip


def test_the_same_question_has_the_hash_that_it_always_had() -> None:
    """It names the folders that people have: where this fails, their runs are found no more."""
    assert QUESTION.hash == "d59d5107ab15409ad12844e9667a9c7a"
    assert (
        replace(QUESTION, models=(), decoding=Decoding(), scenario={"name": "x"}).hash
        == "a794b49b7b2d067282b27002c69b820e"
    )
    again = Question.from_json(json.loads(json.dumps(QUESTION.to_json())))
    assert (again, again.hash) == (Question.from_json(QUESTION.to_json()), QUESTION.hash)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_reaches_the_hash(kind: str) -> None:
    """Every field there is, so that one that is added without a line here is found."""
    of, changes, changed = KINDS[kind]
    assert set(changes) == {f.name for f in fields(of)}
    hashes = {name: changed({name: value}).hash for name, value in changes.items()}
    assert QUESTION.hash not in hashes.values()
    assert len(set(hashes.values())) == len(hashes)


@pytest.mark.parametrize(
    "change",
    [
        {"models": QUESTION.models[::-1]},
        {"candidates": (QUESTION.candidates[0], SMALL, LARGE)},
        {"scenario": replace(SCENARIO, floors={"mine": 0.7, "theirs": 0.7}).to_json()},
        {"scenario": replace(SCENARIO, prices=Prices("CHF", 1.8)).to_json()},
        {"scenario": replace(SCENARIO, budget=Budget(0.004)).to_json()},
        {"scenario": replace(SCENARIO, review=Review(0.3, 0.6, 0.9)).to_json()},
        {"scenario": replace(SCENARIO, endpoints={"refusal": 0.02}).to_json()},
    ],
)
def test_so_do_the_order_of_models_and_the_parts_of_prices_floors_and_budgets(change: dict[str, Any]) -> None:
    assert replace(QUESTION, **change).hash != QUESTION.hash
