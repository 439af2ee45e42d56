"""The one table of the screen that holds each arm by itself against the absolute floors."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from quantwise.core.verdict import two_digits
from quantwise.report import notation
from quantwise.report.reading import Reading, Row
from quantwise.report.verdict_matrix import VERDICT_STYLE

_NAMES, _REST = 38, 50
_MOST = 16


def floor_table(reading: Reading, width: int) -> Table:
    """Task by task each arm's mean score, its bounds, and about how many items would settle what is open.

    Where there are many, what is shipped, what runs today and what is open come first; the page has every one.
    """
    names = min(_NAMES, max(width - _REST, 16))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("floor, arm", width=names, no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for title in ("mean", "bounds", "items", "more"):
        table.add_column(title, justify="right", no_wrap=True)
    shown = _first(reading.floors, reading)
    for task in dict.fromkeys(row["task"] for row in shown):
        rows = [row for row in shown if row["task"] == task]
        least = f"{notation.share(rows[0]['floor'])} on {task}"
        table.add_row(Text(notation.shorten(least, names), style="dim"))
        for row in rows:
            verdict = str(row["verdict"])
            table.add_row(
                Text("  " + notation.shorten(row["candidate"], names - 2)),
                Text(verdict, style=VERDICT_STYLE.get(verdict, "")),
                notation.share(row.get("mean")),
                notation.shares((row.get("low"), row.get("high"))),
                notation.count(row.get("n")),
                _more(row),
            )
    return table


def _more(row: Row) -> str:
    """About how many further items would settle it; nothing where it is settled."""
    if row["verdict"] != "UNKNOWN":
        return ""
    return f"~{notation.count(two_digits(row['n_more'][1]))}" if row.get("n_more") else "?"


def _first(floors: Sequence[Row], reading: Reading) -> list[Row]:
    """The rows that there is room for, in the record's order."""
    ranks = {"UNKNOWN": 1, "FAIL": 2}
    names = (reading.decision.get("ship"), reading.decision.get("rollback"))
    order = sorted(floors, key=lambda row: 0 if row["candidate"] in names else ranks.get(str(row["verdict"]), 3))
    kept = order[:_MOST]
    return [row for row in floors if row in kept]
