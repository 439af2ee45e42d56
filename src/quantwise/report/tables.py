"""Small tables for the verbs that do not end in a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from quantwise.report import notation


def print_artifacts(rows: Sequence[Mapping[str, Any]], file: TextIO) -> None:
    """One line per artifact that was built, and every degradation below."""
    table = _table("recipe", "format", ">bytes", ">bits/weight", ">seconds", "hash", "where")
    for row in rows:
        cells = (row["recipe"], row["format"], notation.size(row["bytes"]), notation.decimal(row["bits_per_weight"]))
        table.add_row(*map(str, cells), notation.seconds(row["build_seconds"]), row["hash"][:12], row["location"])
    console = _console(file)
    console.print(table)
    for row in rows:
        for found in row["degradations"]:
            console.print(f"{row['recipe']}: {found['where']}: {found['what']}")


def print_fits(rows: Sequence[Mapping[str, Any]], file: TextIO) -> None:
    """One line per candidate: its terms, their sum, the limit, and what would make it fit."""
    table = _table("candidate", ">weights", ">cache", ">overhead", ">total", ">limit", "fits", "what would help")
    for row in rows:
        terms = ("weights_bytes", "cache_bytes", "overhead_bytes", "total_bytes", "limit_bytes")
        table.add_row(row["candidate"], *(notation.size(row[t]) for t in terms), row["fits"], row["fix"] or "")
    _console(file).print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def _console(file: TextIO) -> Console:
    width = None if file.isatty() else 140
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)
