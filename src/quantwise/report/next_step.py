"""The last line of a decision: what to type, or to change, next."""

from __future__ import annotations

from collections.abc import Sequence

from quantwise.core.verdict import two_digits
from quantwise.report import notation
from quantwise.report.reading import Reading, Row

_MORE = 256
"""Items to ask for where nothing says how many would do."""


def next_step(reading: Reading) -> str | None:
    """One sentence; None for a record that names no run folder, from which nothing can go on."""
    folder = reading.record.get("folder")
    if not folder:
        return None
    status = reading.decision.get("status")
    if status == "ship":
        return _served(reading)
    if status == "keep":
        return "nothing; other candidates, margins or limits are another question, for a new --run"
    if any("server is away" in row["why"] for row in reading.still_open):
        return "start the server that is away; the same command goes on"
    rows = [row for row in reading.unsettled() if row["candidate"] in {r["candidate"] for r in reading.still_open}]
    if short := [row for row in rows if row.get("reason") == "missing"]:
        return _unanswered(reading, short)
    if reading.question.get("mode") == "fixed":
        return _fixed(rows)
    if rows and all(row.get("reason") in ("not_measured", "budget") for row in rows):
        return "the same command goes on where this one ended"
    return _more(reading, str(folder), rows)


def _served(reading: Reading) -> str | None:
    artifact = reading.candidate(reading.decision.get("ship")).get("artifact") or {}
    place = artifact.get("location")
    if place is None:
        return None
    cache = reading.candidate(reading.decision.get("ship")).get("cache") or "f16"
    how = "" if cache == "f16" else f" with a {cache} cache"
    return f"send your requests to {place}" if artifact.get("format") == "server" else f"serve {place}{how}"


def _unanswered(reading: Reading, rows: Sequence[Row]) -> str:
    """Only of servers by URL is anything asked again (`certify`); what was refused would be refused again."""
    arms = {row.get(side) for row in rows for side in ("candidate", "baseline")}
    lost = {row["candidate"] for row in reading.record.get("faults") or () if row.get("lost")}
    if any(reading.candidate(name).get("runtime") == "openai" for name in arms & lost):
        return "the same command asks again what was lost"
    return "mend what the failed requests above say (a longer --context, where that is it) and decide in a new --run"


def _fixed(rows: Sequence[Row]) -> str:
    if any(row.get("n_more") for row in rows):
        return "the same command goes on to the number of items that was fixed"
    return "a fixed number of items is looked at once; a larger --fixed-n is another question, for a new --run"


def _more(reading: Reading, folder: str, rows: Sequence[Row]) -> str:
    """How many items `measure` should ask for, as far as there are any; for an open price, without a forecast."""
    about = rows or [row for row in reading.verdicts if row["candidate"] == reading.focus]
    left = {row["task"]: _left(reading, row) for row in about}
    if short := [task for task, items in left.items() if items == 0]:
        brought = " and ".join(row["candidate"] for row in reading.record.get("imported") or ())
        if brought:
            return f"bring more rows of {brought} (`quantwise evidence import {folder} FILE`), then the same command"
        return f"every item of {', '.join(dict.fromkeys(short))} was asked; add items to it and decide in a new --run"
    wanted = max((row["n_more"][1] for row in about if row.get("n_more")), default=0) or _MORE
    known = [items for items in left.values() if items is not None]
    many = two_digits(wanted)
    if known and max(known) < many and len(known) == len(left):
        return f"`quantwise measure {folder} --more {max(known)}` asks what items are left, which may not be enough"
    return f"`quantwise measure {folder} --more {many}` asks on; verdicts stay valid"


def _left(reading: Reading, row: Row) -> int | None:
    """Items of a verdict's task that nobody has asked yet; None where they never run out."""
    name = str(row["task"]).removesuffix(" (floor)")
    asked = notation.finite(row.get("n")) or 0
    for task in reading.question.get("tasks") or ():
        if name in (task["name"], *([name] if name.startswith(f"{task['name']}: ") else [])):
            known = [task.get("available"), *_brought(reading, row, str(task["name"]))]
            return min((max(0, int(n - asked)) for n in map(notation.finite, known) if n is not None), default=None)
    return None


def _brought(reading: Reading, row: Row, task: str) -> list[object]:
    """Items of a task that were imported of either arm: nothing beyond them can be compared here."""
    arms = row["candidate"], row.get("baseline")
    return [one["items"].get(task) for one in reading.record.get("imported") or () if one["candidate"] in arms]
