"""The question: everything that could change the answer, frozen and hashed before anything is measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from quantwise.core.artifact import Candidate
from quantwise.core.decoding import GREEDY, Decoding
from quantwise.core.endpoint import TITLES, Endpoint, endpoint_margins
from quantwise.core.errors import InputError

SCHEMA = 1
Mode = Literal["sequential", "fixed"]
MultiplicityRule = Literal["bonferroni", "ladder"]


@dataclass(frozen=True, slots=True)
class TaskQuestion:
    """One task of a question.

    ``margin`` is the largest acceptable drop in score, ``floor`` an absolute minimum (both in [0, 1]); a ``gate`` must
    pass before anything is shipped, an ``advisory`` task is only shown. ``items`` is how many certification items are
    planned; for sequential questions more may be added later without harm, up to ``available`` (None: without end).
    """

    name: str
    source: str
    source_hash: str
    kind: str
    margin: float
    items: int
    screen_items: int
    available: int | None = None
    floor: float | None = None
    role: Literal["gate", "advisory"] = "gate"

    @property
    def rows_of(self) -> str:
        """The task whose rows tell of it."""
        return self.name


@dataclass(frozen=True, slots=True)
class EndpointGate(TaskQuestion):
    """An endpoint on the answers to one task, for which the scenario sets a margin: an answer without the sign is 1.

    It is derived from the question, and no part of it beside the scenario. The margin is the largest acceptable rise
    against the baseline; where floors alone decide it is the largest acceptable share, and ``floor`` is what it leaves.
    """

    of: str = ""
    endpoint: Endpoint = "non_termination"

    @property
    def rows_of(self) -> str:
        """The task whose answers are looked at."""
        return self.of


@dataclass(frozen=True, slots=True)
class ModelQuestion:
    """One of several models of a question: the ``name`` before its candidates, where it comes from, its content hash,
    and that of the chat template that its arms are asked with (None: raw prompts, or a server that renders for itself).
    """

    name: str
    source: str
    hash: str
    template_hash: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """Model, scenario, tasks, candidates and statistics. Its hash names the run.

    ``runtimes`` maps each runtime to its build, ``brought`` each artifact that exists already to its content hash,
    ``parallel`` each runtime to the requests that it is given at a time (where none is said, one).
    With several ``models`` each candidate names its own, and ``model``, ``model_hash`` and ``template_hash`` are joint.
    """

    model: str
    model_hash: str
    scenario: Mapping[str, Any]
    tasks: tuple[TaskQuestion, ...]
    candidates: tuple[Candidate, ...]
    calibration: Mapping[str, Any]
    runtimes: Mapping[str, str]
    brought: Mapping[str, str]
    template_hash: str | None
    scorers: str
    alpha: float = 0.05
    mode: Mode = "sequential"
    multiplicity: MultiplicityRule = "bonferroni"
    block: int = 32
    parallel: Mapping[str, int] = field(default_factory=dict)
    context: int = 1024
    seed: int = 0
    schema: int = SCHEMA
    decoding: Decoding = GREEDY
    models: tuple[ModelQuestion, ...] = ()

    @property
    def m(self) -> int:
        """How many candidates could be shipped: each gate must reach m / alpha, unless the ladder is climbed.

        Where floors alone decide, the baseline may be kept on a PASS of its own, and is one more.
        """
        shown = (c.shippable or (c.baseline and self.by_floor) for c in self.candidates)
        return 1 if self.multiplicity == "ladder" else max(1, sum(shown))

    @property
    def pass_threshold(self) -> float:
        """The e-value a PASS needs."""
        return self.m / self.alpha

    @property
    def gates(self) -> tuple[TaskQuestion, ...]:
        """What a candidate must pass: every task, then on every task each endpoint that has a margin."""
        return (*self.tasks, *(gate for task in self.tasks for gate in self.gates_of(task)[1:]))

    def gates_of(self, task: TaskQuestion) -> tuple[TaskQuestion, ...]:
        """A task, and the endpoints on its answers that have a margin."""
        plain = {f.name: getattr(task, f.name) for f in fields(TaskQuestion)} | {"of": task.name}
        margins = endpoint_margins(self.scenario.get("endpoints", {}))
        return (
            task,
            *(
                EndpointGate(
                    **plain
                    | {"name": f"{task.name}: {TITLES[e]}", "margin": margin, "endpoint": e}
                    | {"floor": 1.0 - margin if self.by_floor else None}
                )
                for e, margin in margins.items()
            ),
        )

    @property
    def floors(self) -> tuple[TaskQuestion, ...]:
        """What an arm must reach by itself: each task with a floor, and where floors alone decide the endpoints."""
        return tuple(gate for gate in self.gates if gate.floor is not None)

    def requests(self, runtime: str) -> int:
        """Requests that a runtime is given at a time."""
        return self.parallel.get(runtime, 1)

    @property
    def by_floor(self) -> bool:
        """Whether the absolute floors alone decide, and the baseline is only shown."""
        return bool(self.scenario.get("compare") == "floor")

    @property
    def template_arguments(self) -> Mapping[str, Any]:
        """What chat templates are told beside the messages."""
        return dict(self.scenario.get("template_arguments", {}))

    def baseline_of(self, candidate: Candidate) -> Candidate:
        """The baseline of the candidate's runtime, or the only baseline there is."""
        baselines = [c for c in self.candidates if c.baseline]
        same = [b for b in baselines if b.runtime == candidate.runtime]
        return (same or baselines)[0]

    def to_json(self) -> dict[str, Any]:
        """The record that is written, and that is hashed. Greedy decoding and a single model are not in it, as
        before there were others.
        """
        record = asdict(self) | {"decoding": self.decoding.to_json()}
        if not self.decoding.to_json():
            del record["decoding"]
        if not self.models:
            del record["models"]
            for candidate in record["candidates"]:
                del candidate["model"]
        return record

    @property
    def hash(self) -> str:
        """blake2b of the canonical JSON, 32 hexadecimal digits."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Question:
        """Read back what ``to_json`` wrote. Raises InputError for a record of another version."""
        known = {f.name for f in fields(cls)}
        other = sorted(set(record) - {"decoding", "models"} ^ known - {"decoding", "models"})
        if (schema := record.get("schema")) != SCHEMA or other:
            what = f"schema {schema!r:.20} and not {SCHEMA}" if schema != SCHEMA else f"fields: {', '.join(other[:3])}"
            raise InputError(
                f"another version of quantwise wrote this question ({what}); decide again into a new --run"
            )
        data = dict(record)
        data["tasks"] = tuple(TaskQuestion(**t) for t in record["tasks"])
        data["candidates"] = tuple(Candidate(**c) for c in record["candidates"])
        data["decoding"] = Decoding(**record.get("decoding", {}))
        data["models"] = tuple(ModelQuestion(**m) for m in record.get("models", ()))
        return cls(**data)
