"""Small tables for the verbs that do not end in a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from quantwise.report import notation


def print_artifacts(rows: Sequence[Mapping[str, Any]], file: TextIO) -> None:
    """One line per artifact that was built, within 80 columns; below, where each lies and what was retreated from."""
    console = _console(file, 80)
    table = _table("recipe", "format", ">bytes", ">bits/weight", ">took", "hash")
    for row in rows:
        cells = (row["recipe"], row["format"], notation.size(row["bytes"]), notation.decimal(row["bits_per_weight"]))
        table.add_row(*map(str, cells), notation.seconds(row["seconds"]), row["hash"][:8])
    console.print(table)
    for row in rows:
        # Never broken: a path is there to be copied.
        console.print(f"{row['recipe']}: {row['path']}", soft_wrap=True)
        for what, where in _alike(row["degradations"]).items():
            console.print(f"  {what} ({where})", soft_wrap=True)


def _alike(degradations: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Each kind of degradation, with where it happened first and how often else."""
    places: dict[str, list[str]] = {}
    for found in degradations:
        places.setdefault(found["what"], []).append(found["where"])
    return {what: where[0] + (f" and {len(where) - 1} more" if where[1:] else "") for what, where in places.items()}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def _console(file: TextIO, width_elsewhere: int = 140) -> Console:
    width = None if file.isatty() else width_elsewhere
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)
