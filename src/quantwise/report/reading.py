"""Finding one's way in a decision record: who is compared with whom, and which verdict belongs to which cell.

A record is the plain dictionary of ``RUN/decision.json``. Nothing is computed here; what is absent stays None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from quantwise.core.verdict import RuledOut
from quantwise.report import notation

Row = Mapping[str, Any]

#: Verdict, mark, and the words used where there is room. Marks differ in shape, so that colour is never needed.
MARKS = {"PASS": "✓", "FAIL": "✗", "UNKNOWN": "?"}

REASONS = {
    "": "",
    "need_n": "more items are needed",
    "margin_unreachable": "the data lean towards a loss of more than the margin",
    "missing": "too many answers are missing",
    "noise": "the noise floor is too high",
    "items_exhausted": "the items have run out",
    "budget": "the budget is spent",
    "not_measured": "not measured",
}


@dataclass(frozen=True)
class Reading:
    """A record with its cross-references resolved."""

    record: Row

    @property
    def question(self) -> Row:
        """The frozen question, or an empty mapping."""
        return self.record.get("question") or {}

    @property
    def model(self) -> str | None:
        """What the question is about: a model's name, or the names of several."""
        several = [str(one["name"]) for one in self.question.get("models") or ()]
        return ", ".join(several) or (self.question.get("model") or {}).get("name")

    @property
    def level(self) -> str:
        """Of the intervals, as "95 %"."""
        return f"{100 * (1 - (self.question.get('alpha') or 0.05)):g} %"

    @property
    def decision(self) -> Row:
        """The decision, or an empty mapping."""
        return self.record.get("decision") or {}

    @cached_property
    def candidates(self) -> list[Row]:
        """Candidates in the record's order."""
        return list(self.record.get("candidates") or ())

    @cached_property
    def verdicts(self) -> list[Row]:
        """Verdict rows in the record's order."""
        return list(self.record.get("verdicts") or ())

    @cached_property
    def tasks(self) -> list[Row]:
        """Tasks of the question; a task that only a verdict names is appended, so that no verdict is ever hidden."""
        tasks = list(self.question.get("tasks") or ())
        named = {task["name"] for task in tasks}
        for row in self.verdicts:
            if row["task"] not in named:
                named.add(row["task"])
                tasks.append({"name": row["task"], "margin": row.get("margin")})
        return tasks

    @cached_property
    def _cells(self) -> dict[tuple[str, str], Row]:
        return {(row["candidate"], row["task"]): row for row in self.verdicts}

    @cached_property
    def _costs(self) -> dict[str, Row]:
        return {row["candidate"]: row for row in self.record.get("costs") or ()}

    @cached_property
    def _by_name(self) -> dict[str, Row]:
        return {row["name"]: row for row in self.candidates}

    def cell(self, candidate: str, task: str) -> Row | None:
        """The verdict row of a candidate on a task, or None where there is none."""
        return self._cells.get((candidate, task))

    def cost(self, candidate: str) -> Row:
        """The cost row, or an empty mapping."""
        return self._costs.get(candidate, {})

    @property
    def solved(self) -> Row:
        """What a solved item costs, as the scenario prices it; an empty mapping where it states no prices."""
        return self.record.get("solved") or {}

    @property
    def solved_level(self) -> str:
        """Of the intervals of a solved item's cost, which every look at a price shares; as "99 %"."""
        alphas = [item.get("alpha") for item in self.solved.get("items") or ()]
        return f"{100 * (1 - alphas[0]):.3g} %" if alphas and alphas[0] else self.level

    @cached_property
    def floors(self) -> list[Row]:
        """Each arm's verdict on each absolute floor; empty where none was asked."""
        return list(self.record.get("floors") or ())

    @property
    def by_floor(self) -> bool:
        """Whether the floors alone decide, and what stands beside the baseline is only shown."""
        return bool((self.question.get("scenario") or {}).get("compare") == "floor")

    @property
    def _not_shipped(self) -> list[Row]:
        return list(self.decision.get("ruled_out") or ())

    @property
    def ruled_out(self) -> list[Row]:
        """What is not shipped and why, without what more items might still settle."""
        return [row for row in self._not_shipped if not self._open(row)]

    @property
    def still_open(self) -> list[Row]:
        """What is not shipped yet, and might be: a verdict, a floor or a price is UNKNOWN, or its server is away."""
        return [row for row in self._not_shipped if self._open(row)]

    def _open(self, row: Row) -> bool:
        candidate = self.candidate(row["candidate"])
        may_be_shipped = candidate.get("shippable", True) and candidate.get("executes") != "dequantized"
        return bool(may_be_shipped and RuledOut(row["candidate"], row["why"]).open)

    @property
    def solved_notes(self) -> list[str]:
        """What the costs of solved items do not rest on, each said once."""
        items = self.solved.get("items") or ()
        return list(dict.fromkeys(str(note) for item in items for note in item.get("notes") or ()))

    def candidate(self, name: str | None) -> Row:
        """The candidate of that name, or an empty mapping."""
        return self._by_name.get(name or "", {})

    def baseline_of(self, name: str) -> str | None:
        """The baseline that a candidate's verdicts name; without verdicts, that of its runtime, or else the first."""
        for row in self.verdicts:
            if row["candidate"] == name:
                return str(row["baseline"])
        baselines = [row for row in self.candidates if row.get("baseline")]
        runtime = self.candidate(name).get("runtime")
        same = [row for row in baselines if row.get("runtime") == runtime]
        found = same or baselines
        return str(found[0]["name"]) if found else None

    @property
    def focus(self) -> str | None:
        """The candidate that the numbers are shown for: what is shipped, or else what is best supported."""
        ship, best = self.decision.get("ship"), self.decision.get("best_supported")
        for name in (ship, best):
            if name is not None and any(row["candidate"] == name for row in self.verdicts):
                return str(name)
        return None

    def artifact_bytes(self, name: str | None) -> int | None:
        """Bytes on disk, or None where nobody knows."""
        if name is None:
            return None
        known = (self.candidate(name).get("artifact") or {}).get("bytes")
        return known if known is not None else self.cost(name).get("artifact_bytes")

    def unsettled(self) -> list[Row]:
        """The UNKNOWN rows of what decides: of the focus candidate, or of everybody when there is none."""
        beside = [] if self.by_floor else self.verdicts
        alone = [{**row, "task": f"{row['task']} (floor)"} for row in self.floors]
        rows = [row for row in (*beside, *alone) if row["verdict"] == "UNKNOWN"]
        return [row for row in rows if row["candidate"] == self.focus] if self.focus else rows


def role(candidate: Row) -> str:
    """In one or two words, what a candidate takes part as; empty for one that may be shipped."""
    if candidate.get("baseline"):
        return "baseline"
    if candidate.get("control"):
        return "control"
    if candidate.get("executes") == "dequantized":
        return "dequantized"
    return "" if candidate.get("shippable") else "quality only"


def settles(row: Row) -> str:
    """What would settle an UNKNOWN, from what the verdict says of it."""
    if row.get("reason") == "missing":  # no margin is narrow or wide enough for answers that nobody has
        return REASONS["missing"]
    parts = []
    if row.get("n_more") is not None:
        parts.append(f"{notation.forecast(row['n_more'])} more items")
    if notation.finite(row.get("minutes_more")) is not None:
        parts.append(f"{notation.seconds(60 * row['minutes_more'])} more")
    if notation.finite(row.get("smallest_margin")) is not None:
        when = "with the items left" if row.get("reason") in ("items_exhausted", "budget") else "as things stand"
        parts.append(f"{'or ' if parts else ''}a margin of {notation.at_most(row['smallest_margin'])} {when}")
    if "floor" in row and row.get("reason") == "margin_unreachable":
        return "too near the floor for a forecast"
    reason = REASONS.get(row.get("reason") or "", plain_reason(row))
    return ", ".join(parts) if parts else reason or "unknown"


def plain_reason(row: Row) -> str:
    """A reason that this version has no words for, as it stands in the record."""
    return notation.plain(row.get("reason") or "").replace("_", " ")
