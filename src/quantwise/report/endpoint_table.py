"""The one table of the screen that tells what no scorer looks at."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from quantwise.report import notation
from quantwise.report.reading import Row

_COLUMNS = {"non_termination": "do not end", "refusal": "refuse", "language_switch": "other script"}


def endpoint_table(pairs: Sequence[Row], focus: str | None, name_width: int) -> Table:
    """Answers that do not end, refusals, other scripts and lengths, of ``focus`` and of whoever is clearly worse.

    Where there is neither, the first candidate stands for all; the page has every one.
    """
    shown = [row for row in pairs if row["candidate"] == focus or row["worse"]] or pairs[:1]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("candidate", no_wrap=True, width=name_width)
    for title in (*_COLUMNS.values(), "length"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in shown:
        name = Text(notation.shorten(row["candidate"], name_width))
        table.add_row(name, *(_change(row[endpoint]) for endpoint in _COLUMNS), _times(row.get("length")))
    return table


def _change(endpoint: Row) -> Text:
    """Points more than the baseline, and the share itself; marked where it is clearly worse."""
    said = f"{notation.points(endpoint['difference'], unit=False)} ({notation.share(endpoint['candidate'])})"
    return Text(f"! {said}", style="bold red") if endpoint["worse"] else Text(said)


def _times(length: Row | None) -> Text:
    if length is None:
        return Text(notation.UNKNOWN)
    said = f"{notation.amount(length['ratio'])} times"
    return Text(f"! {said}", style="bold red") if length["worse"] else Text(said)
