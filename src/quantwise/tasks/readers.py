"""From what a person writes after ``--tasks`` to tasks: a built-in suite, a file, or a folder of files.

A file's format is told by its first line: BLiMP (``sentence_good``), GSM8K (``question`` and ``answer``), MGSM (no
JSON, but a tab), else our own JSON Lines. ``blimp:PATH``, ``gsm8k:PATH``, ``mgsm:PATH`` and ``jsonl:PATH`` force one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quantwise.core.errors import InputError
from quantwise.core.item import Item
from quantwise.tasks import SUITES
from quantwise.tasks.built_in import built_in_task
from quantwise.tasks.json_answers import read_json
from quantwise.tasks.published_items import blimp_item, gsm8k_item, mgsm_item
from quantwise.tasks.task import Kind, Task, cluster_repeats
from quantwise.tasks.user_items import user_item

FORMATS = ("blimp", "gsm8k", "mgsm", "jsonl")
SUFFIXES = (".jsonl", ".tsv")


def read_tasks(spec: str) -> list[Task]:
    """The tasks that ``spec`` names: one for a suite or a file, one for each task file of a folder.

    Raises InputError naming file, line, fault and what is allowed.
    """
    suite = built_in_task(spec)
    if suite is not None:
        return [suite]
    forced, colon, rest = spec.partition(":")
    form = forced if colon and forced in FORMATS else None
    path = Path(rest if form else spec).expanduser()
    if path.is_dir() and spec.strip():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
        if not files:
            raise InputError(f"{path}: no {' or '.join(SUFFIXES)} file in this folder; name a task file")
        return [_read_file(file, form) for file in files]
    if not path.exists() or not spec.strip():
        names = ", ".join(suite.name for suite in SUITES)
        raise InputError(f"{spec}: neither a suite nor a file; suites: {names}; files: .jsonl or .tsv, or gsm8k:FILE")
    return [_read_file(path, form)]


def read_all(specs: Sequence[str]) -> list[Task]:
    """The tasks of several specs, in order. Raises InputError also where two tasks have the same name."""
    tasks = [task for spec in specs for task in read_tasks(spec)]
    seen: dict[str, Task] = {}
    for task in tasks:
        if task.name in seen:
            raise InputError(
                f"two tasks are named {task.name!r}: {seen[task.name].source} and {task.source}; rename a file"
            )
        seen[task.name] = task
    return tasks


def _read_file(path: Path, form: str | None) -> Task:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror or error}; give a readable .jsonl or .tsv file"
        ) from error
    lines = list(_lines(path, raw))
    if not lines:
        raise InputError(f"{path}: no items; a task file has one item on each line")
    source = f"{form}:{path}" if form else str(path)
    form = form or _detect(path, *lines[0])
    name = _name(path, form)
    items: list[Item] = []
    first_at: dict[str, int] = {}
    for number, text in lines:
        try:
            item = _item(form, text, name, number)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        if item is None:
            continue
        if item.id in first_at:
            raise InputError(f"{path}:{number}: id {item.id!r} is already on line {first_at[item.id]}; ids must differ")
        first_at[item.id] = number
        items.append(item)
    if not items:
        raise InputError(f"{path}: no items; a task file has one item on each line")
    return Task(
        name=name,
        kind=_kind(form, items),
        scorer=", ".join(sorted({item.scorer for item in items})),
        source=source,
        source_hash=hashlib.blake2b(f"{form}\n".encode() + raw, digest_size=16).hexdigest(),
        items=cluster_repeats(items),
    )


def _lines(path: Path, raw: bytes) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of every line that is not blank; only a line feed ends a line."""
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            text = line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
        if text.strip():
            yield number, text


def _detect(path: Path, number: int, text: str) -> str:
    if not text.lstrip().startswith("{"):
        if path.suffix != ".jsonl" and "\t" in text:
            return "mgsm"
        _record(path, number, text)
    record = _record(path, number, text)
    if "sentence_good" in record:
        return "blimp"
    return "gsm8k" if {"question", "answer"} <= set(record) and "scorer" not in record else "jsonl"


def _record(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        return _object(text)
    except InputError as error:
        raise InputError(f"{path}:{number}: {error}") from error


def _object(text: str) -> dict[str, Any]:
    try:
        record = read_json(text)
        json.dumps(record, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON ({error.msg} at column {error.colno}); each line is one JSON object") from error
    except UnicodeEncodeError as error:
        raise InputError("half of a surrogate pair in a text; write the character itself") from error
    except ValueError as error:
        raise InputError(f"not JSON ({error}); each line is one JSON object") from error
    if not isinstance(record, dict):
        raise InputError(f"a JSON {type(record).__name__}, not an object; each line is one JSON object")
    return record


def _item(form: str, text: str, task: str, number: int) -> Item | None:
    if form == "mgsm":
        return mgsm_item(text, task, number)
    record = _object(text)
    if form == "blimp":
        return blimp_item(record, task, number)
    if form == "gsm8k":
        return gsm8k_item(record, task, number)
    return user_item(record, task)


def _name(path: Path, form: str) -> str:
    # GSM8K's own file is called test.jsonl, which says nothing in a report.
    return f"gsm8k-{path.stem}" if form == "gsm8k" and "gsm8k" not in path.stem.lower() else path.stem


def _kind(form: str, items: Sequence[Item]) -> Kind:
    if form in ("gsm8k", "mgsm"):
        return "reasoning"
    return "code" if all(item.scorer == "code" for item in items) else "other"
