"""What was asked and never answered: which items, how many of each side, and what became of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quantwise.core.evidence import ANSWERED, LOST, Measurement


def lost_items(rows: Iterable[Measurement]) -> dict[int, set[str]]:
    """Block to the ids of its items that were lost; ``rows`` are of one candidate, stage and task."""
    lost: dict[int, set[str]] = defaultdict(set)
    for row in rows:
        if row.finish in LOST:
            lost[row.block].add(row.item)
    return lost


def lost_note(task: str, sides: Mapping[str, Sequence[Measurement]]) -> tuple[str, ...]:
    """The sentence that says how many items of each candidate in ``sides`` were lost, where any were."""
    lost = {name: len({row.item for row in rows if row.finish in LOST}) for name, rows in sides.items()}
    if not any(lost.values()):
        return ()
    counts = ", ".join(f"{n} of {len({row.item for row in sides[name]})} of {name}" for name, n in lost.items())
    return (f"lost items on {task}: {counts}; each counts as whatever would speak most against this verdict",)


def faults(candidate: str, rows: Sequence[Measurement]) -> dict[str, Any]:
    """Certification requests that ended without an answer, and those that were answered after further tries."""
    lost = [r for r in rows if r.finish in LOST]
    refused = [r for r in rows if r.finish == "refused"]
    retried = [r for r in rows if r.finish in ANSWERED and r.error]
    last = next((r.error for r in reversed([*retried, *refused, *lost])), None)
    counts = {"asked": len(rows), "lost": len(lost), "refused": len(refused), "retried": len(retried)}
    return {"candidate": candidate} | counts | {"example": last}
