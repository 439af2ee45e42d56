"""The run folder: ``question.json``, ``evidence.sqlite``, ``artifacts/``, ``decision.json``.

Rows of one block are committed together with the mark that the block is done, so a run that is killed at any moment
goes on where it was: no row twice, at most one block repeated. SQLite runs with write-ahead logging.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import IO, Any

from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.evidence import LOST, Measurement, Stage
from quantwise.core.imported import Imported
from quantwise.core.item import Item
from quantwise.core.question import Question

_SHOWN = 3
_COLUMNS = [f.name for f in fields(Measurement)]
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS measurements (
  {", ".join(f"{c}" for c in _COLUMNS)},
  PRIMARY KEY (candidate, stage, task, item, repeat)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (
  candidate TEXT, stage TEXT, task TEXT, block INTEGER, PRIMARY KEY (candidate, stage, task, block)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
  task TEXT, item TEXT, prompt TEXT, target TEXT, PRIMARY KEY (task, item)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
  kind TEXT, name TEXT, body TEXT, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
"""


class Store:
    """One run folder, open for one process at a time. Use as a context manager."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        """Open a run folder. Raises InputError where there is none, EnvironmentFailure where it is held."""
        self.folder = folder
        missing = [n for n in ("question.json", "evidence.sqlite") if not create and not (folder / n).is_file()]
        if missing:
            raise InputError(
                f"{folder} is no run folder (no {missing[0]}); `quantwise decide --run {folder}` makes one"
            )
        _make(folder)
        self._lock = self._take_lock()
        try:
            self._db = sqlite3.connect(folder / "evidence.sqlite", isolation_level=None, timeout=30)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._add_columns()
        except sqlite3.DatabaseError as error:
            self._lock.close()
            raise self._failed(error) from error

    def _add_columns(self) -> None:
        """A folder of an earlier version lacks the columns that came since; their values are unknown there."""
        held = {row[1] for row in self._db.execute("PRAGMA table_info(measurements)")}
        for column in (c for c in _COLUMNS if c not in held):
            self._db.execute(f"ALTER TABLE measurements ADD COLUMN {column}")

    def _failed(self, error: sqlite3.Error) -> EnvironmentFailure:
        """The complaint about an error of SQLite's; only a damaged file cannot be gone on with."""
        damaged = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT"))
        advice = (
            "decide again into a new --run" if damaged else "free the disk and run the command again: nothing is lost"
        )
        return EnvironmentFailure(f"{self.folder / 'evidence.sqlite'}: {error}; {advice}")

    def _take_lock(self) -> IO[str]:
        try:
            handle = (self.folder / "lock").open("w")
        except OSError as error:
            raise EnvironmentFailure(
                f"cannot write into {self.folder}: {error.strerror}; choose another --run"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.close()
            raise EnvironmentFailure(
                f"another quantwise works in {self.folder}; wait for it or choose another --run"
            ) from error
        return handle

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._lock.close()

    # -- the question ---------------------------------------------------------------------------------------------

    def freeze(self, question: Question) -> None:
        """Write the question once. Raises InputError if the folder holds another one."""
        path = self.folder / "question.json"
        if path.exists():
            held = self.question()
            if held.hash != question.hash:
                changed = _differences(held, question)
                raise InputError(
                    f"{self.folder} holds another question (changed: {', '.join(changed)}); decide into another --run; "
                    f"`quantwise report {self.folder}` still shows what is there"
                )
            return
        write_atomically(path, json.dumps(question.to_json(), indent=1, ensure_ascii=False))

    def question(self) -> Question:
        """The frozen question. Raises InputError where the file is damaged."""
        path = self.folder / "question.json"
        try:
            return Question.from_json(json.loads(path.read_text(encoding="utf-8")))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise InputError(f"{path} is damaged ({error}); decide again into a new --run") from error

    # -- rows -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            with contextlib.suppress(sqlite3.DatabaseError):
                self._db.execute("ROLLBACK")
            raise self._failed(error) from error

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._failed(error) from error

    def has_block(self, candidate: str, stage: Stage, task: str, block: int) -> bool:
        """Whether this block has been measured."""
        query = "SELECT 1 FROM blocks WHERE candidate=? AND stage=? AND task=? AND block=?"
        return bool(self._read(query, (candidate, stage, task, block)))

    def add_block(
        self, items: Iterable[Item], rows: Iterable[Measurement], record: tuple[str, str, Any] | None = None
    ) -> None:
        """Commit the rows of one block or of several, what was asked, and a record (kind, name, body), all or none."""
        rows = list(rows)
        asked = [(i.task, i.id, i.text, json.dumps(i.target, ensure_ascii=False)) for i in items]
        marks = {(r.candidate, r.stage, r.task, r.block) for r in rows}
        slots = ",".join("?" * len(_COLUMNS))
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO items VALUES (?,?,?,?)", asked)
            db.executemany(f"INSERT INTO measurements VALUES ({slots})", [astuple(r) for r in rows])
            db.executemany("INSERT INTO blocks VALUES (?,?,?,?)", sorted(marks))
            if record is not None:
                _put(db, *record)

    def replace_rows(self, rows: Iterable[Measurement]) -> None:
        """Put these rows, all or none, in the place of those of the same answers that were lost; others stay."""
        slots = ",".join("?" * len(_COLUMNS))
        rows = list(rows)
        same = "candidate=? AND stage=? AND task=? AND item=? AND repeat=?"
        keys = [(r.candidate, r.stage, r.task, r.item, r.repeat, *LOST) for r in rows]
        with self._transaction() as db:
            db.executemany(f"DELETE FROM measurements WHERE {same} AND finish IN (?, ?)", keys)
            db.executemany(f"INSERT OR IGNORE INTO measurements VALUES ({slots})", [astuple(r) for r in rows])

    def rows(self, stage: Stage, candidate: str | None = None, task: str | None = None) -> list[Measurement]:
        """Measurements by task, candidate and block; inside a block by item and repeat, not in the order asked."""
        query = f"SELECT {', '.join(_COLUMNS)} FROM measurements WHERE stage=?"
        values: list[Any] = [stage]
        for column, value in (("candidate", candidate), ("task", task)):
            if value is not None:
                query += f" AND {column}=?"
                values.append(value)
        query += " ORDER BY task, candidate, block, item, repeat"
        return [Measurement(*row) for row in self._read(query, values)]

    def blocks(self, stage: Stage, candidate: str, task: str) -> int:
        """How many blocks of this task the candidate has answered."""
        query = "SELECT COUNT(*) FROM blocks WHERE stage=? AND candidate=? AND task=?"
        return int(self._read(query, (stage, candidate, task))[0][0])

    def asked(self, task: str) -> dict[str, tuple[str, Any]]:
        """Item id to its prompt and its target, of everything that was asked of a task."""
        rows = self._read("SELECT item, prompt, target FROM items WHERE task=?", (task,))
        return {item: (prompt, json.loads(target)) for item, prompt, target in rows}

    def imported(self) -> dict[str, Imported]:
        """Candidate to where its rows came from, of every candidate that another machine measured."""
        return {name: Imported(**body) for name, body in self.all("imported").items()}

    # -- other records --------------------------------------------------------------------------------------------

    def put(self, kind: str, name: str, body: Any) -> None:
        """Keep a small record (an artifact, a fit, a footprint); the newest of its name stays."""
        with self._transaction() as db:
            _put(db, kind, name, body)

    def forget(self, kind: str, name: str | None = None) -> None:
        """Drop every record of a kind, or the one of that name."""
        with self._transaction() as db:
            db.execute("DELETE FROM records WHERE kind=? AND name=coalesce(?, name)", (kind, name))

    def get(self, kind: str, name: str) -> Any | None:
        """The record, or None."""
        rows = self._read("SELECT body FROM records WHERE kind=? AND name=?", (kind, name))
        return json.loads(rows[0][0]) if rows else None

    def all(self, kind: str) -> dict[str, Any]:
        """Every record of a kind, by name."""
        rows = self._read("SELECT name, body FROM records WHERE kind=? ORDER BY name", (kind,))
        return {name: json.loads(body) for name, body in rows}


def _put(db: sqlite3.Connection, kind: str, name: str, body: Any) -> None:
    db.execute("INSERT OR REPLACE INTO records VALUES (?,?,?)", (kind, name, json.dumps(body, ensure_ascii=False)))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder}: there is a file where a folder should be; choose another --run") from error
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot make the run folder {folder}: {error.strerror}; choose another --run"
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or none of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _differences(a: Question, b: Question) -> list[str]:
    """Names of the top-level fields in which two questions differ, and of what differs in those that have parts."""
    told_a, told_b = (json.loads(json.dumps(q.to_json())) | _by_name(q) for q in (a, b))
    names = [name for name in told_a | told_b if told_a.get(name) != told_b.get(name)]
    return [name + _parts(told_a.get(name), told_b.get(name)) for name in names]


def _by_name(question: Question) -> dict[str, Any]:
    return {"candidates": {c.name: asdict(c) for c in question.candidates},
            "tasks": {t.name: asdict(t) for t in question.tasks}}  # fmt: skip


def _parts(a: object, b: object) -> str:
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return ""
    differ = [name for name in a | b if a.get(name) != b.get(name)]
    return f" ({', '.join(differ[:_SHOWN])}{' ...' if len(differ) > _SHOWN else ''})"
