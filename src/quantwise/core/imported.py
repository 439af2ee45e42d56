"""Rows that another machine measured: what is known of them, and the sentence that every verdict on them carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from quantwise.core.artifact import Candidate
from quantwise.core.question import Question


@dataclass(frozen=True, slots=True)
class Imported:
    """Where the rows of one candidate of a run came from.

    ``build`` is the runtime build that gave them; ``artifact`` what it ran, as ``core.artifact.Artifact`` in plain
    values but without its place, which is on the other machine. ``items`` counts, for each task, the certification
    items that were taken, and ``left_out`` those that the file has beyond the last whole block.
    """

    candidate: str
    build: str
    machine: str
    created: str
    question_hash: str
    digest: str
    artifact: Mapping[str, Any]
    items: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record that a run folder keeps."""
        return asdict(self)

    def differs(self, build: str) -> str | None:
        """The degradation where this run's runtime is of another ``build``, or None where it is the same."""
        if self.build == build:
            return None
        return f"its rows come from {self.build} and this run uses {build}, which was accepted"

    def sentence(self, build: str) -> str:
        """What a verdict that rests on these rows says, in a run whose runtime is of ``build``."""
        said = f"{self.candidate} was measured on another machine ({self.machine}, {self.created}), not here"
        other = self.differs(build)
        return said if other is None else f"{said}; {other}"


def caveats(question: Question, candidate: Candidate, imported: Mapping[str, Imported]) -> tuple[str, ...]:
    """What every verdict of a candidate rests on beside what was measured here: a stand-in, rows of another machine."""
    base = question.baseline_of(candidate)
    said = []
    if base.stands_for:
        said.append(
            f"{base.name} stands in for {base.stands_for}, which has no room here: what {base.name} itself lost is not "
            "seen"
        )
    said += [imported[c.name].sentence(question.runtimes[c.runtime]) for c in (base, candidate) if c.name in imported]
    return tuple(said)


def imported_left(
    question: Question, candidate: Candidate, task: str, imported: Mapping[str, Imported], asked: int
) -> int | None:
    """Imported items beyond the first ``asked``; None where neither the candidate nor its baseline was imported."""
    sides = (candidate.name, question.baseline_of(candidate).name)
    known = [imported[name].items.get(task, 0) for name in sides if name in imported]
    return max(0, min(known) - asked) if known else None


def ended(question: Question, candidate: Candidate, task: str, imported: Mapping[str, Imported]) -> str:
    """That the imported rows of a task are used up. Raises ValueError where neither side was imported."""
    sides = (candidate.name, question.baseline_of(candidate).name)
    count, name = min((imported[name].items.get(task, 0), name) for name in sides if name in imported)
    return f"the evidence of {name} ends after {count} items; measure more there, export and import it again"
