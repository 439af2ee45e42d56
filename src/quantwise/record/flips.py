"""Items on which a candidate and its baseline differ, with what both said."""

from __future__ import annotations

from typing import Any

from quantwise.core.evidence import ANSWERED, Measurement
from quantwise.core.question import Question
from quantwise.store import Store


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


def _said(row: Measurement) -> str:
    return row.output if row.finish in ANSWERED else f"[{row.finish}] {row.error or ''}"
