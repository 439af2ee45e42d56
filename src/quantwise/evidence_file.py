"""The file that carries rows from one machine to another: JSON Lines with a header, the rows, and a digest at its end.

    {"quantwise_evidence": 1, "candidate": ..., "artifact": ..., "runtime_build": ..., "asked": ..., "tasks": ..., ...}
    {"stage": "certify", "task": "code", "item": "...", "item_hash": "...", "score": 1.0, "output": "...", ...}
    {"rows": 512, "digest": "..."}

The digest finds a file that was cut short or edited; it is no signature. Times are not carried: what another machine
took says nothing about this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantwise.core.errors import InputError
from quantwise.core.evidence import Measurement
from quantwise.core.item import Item

SCHEMA = 1
_TEXT, _NUMBER, _OBJECT = (str,), (int, float, type(None)), (dict,)
_Shape = Mapping[str, tuple[type, ...]]
_HEADER: _Shape = {
    "quantwise_evidence": (int,), "quantwise": _TEXT, "created": _TEXT, "question_hash": _TEXT, "candidate": _OBJECT,
    "artifact": _OBJECT, "model_hash": _TEXT, "runtime_build": _TEXT, "machine": _TEXT, "asked": _OBJECT,
    "tasks": _OBJECT,
}  # fmt: skip
_CANDIDATE: _Shape = {"source": _TEXT, "runtime": _TEXT, "cache": _TEXT}
_ARTIFACT: _Shape = {
    "hash": _TEXT, "format": _TEXT, "bytes": (int, type(None)), "recipe": (str, type(None)), "bits_per_weight": _NUMBER,
}  # fmt: skip
# ``seconds`` stay behind; candidate and block are told anew by the run that takes a row in.
_ROW: _Shape = {
    "stage": (str,), "task": (str,), "item": (str,), "item_hash": (str,), "repeat": (int,), "score": (int, float),
    "finish": (str,), "output": (str,), "prompt_tokens": (int, type(None)), "output_tokens": (int, type(None)),
    "error": (str, type(None)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """A file that was read whole: its ``header``, its ``rows`` and its ``digest``."""

    header: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    digest: str


def item_hash(item: Item) -> str:
    """blake2b of everything that an item asks and is scored by, 32 hexadecimal digits."""
    return hashlib.blake2b(_canonical(asdict(item)).encode(), digest_size=16).hexdigest()


def row_of(measured: Measurement, item: Item) -> dict[str, Any]:
    """A measurement as a row of the file, without its times."""
    plain = asdict(measured) | {"item_hash": item_hash(item)}
    return {name: plain[name] for name in _ROW}


def artifact_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the header says of an artifact, out of the record that a run folder keeps of it."""
    return {name: body[name] for name in sorted(_ARTIFACT)}


def written(header: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """The text of a file."""
    lines = [_canonical(line) for line in ({"quantwise_evidence": SCHEMA} | dict(header), *rows)]
    body = "".join(f"{line}\n" for line in lines)
    return body + _canonical({"rows": len(lines) - 1, "digest": _digest(body)}) + "\n"


def read(path: Path) -> EvidenceFile:
    """Read a file whole. Raises InputError where it is none, is damaged or edited, or of another version."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a file of `quantwise evidence export`") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no evidence file; give one of `quantwise evidence export`") from error
    # Only a line feed ends a line: JSON leaves other separators of Unicode as they are.
    lines = text.split("\n")
    header = _object(path, lines[0], 1)
    if "quantwise_evidence" not in header:
        raise InputError(f"{path} is no evidence file; give one of `quantwise evidence export`")
    if header["quantwise_evidence"] != SCHEMA:
        raise InputError(
            f"{path} is of evidence schema {header['quantwise_evidence']!r}, this version reads {SCHEMA}; export it "
            "again with the same quantwise"
        )
    end = _object(path, lines[-2] if len(lines) > 2 else "", len(lines) - 1)
    body = "".join(f"{line}\n" for line in lines[:-2])
    if end != {"rows": len(lines) - 3, "digest": _digest(body)}:
        raise InputError(f"{path} was cut short or changed after it was exported; export it again")
    wrong = _misshapen(header, _HEADER)
    wrong = wrong or _misshapen(header["candidate"], _CANDIDATE) + _misshapen(header["artifact"], _ARTIFACT)
    if wrong:
        raise InputError(f"{path}: its header is wrong in {_named(wrong)}; export it again")
    rows = tuple(_row(path, line, number) for number, line in enumerate(lines[1:-2], 2))
    if len({(r["stage"], r["task"], r["item"], r["repeat"]) for r in rows}) < len(rows):
        raise InputError(f"{path} holds one row twice; export it again")
    return EvidenceFile(header, rows, str(end["digest"]))


def _row(path: Path, line: str, number: int) -> dict[str, Any]:
    row = _object(path, line, number)
    if wrong := _misshapen(row, _ROW):
        raise InputError(f"{path}, line {number}: {_named(wrong)} is wrong; export it again")
    return row


def _misshapen(body: Mapping[str, Any], shape: _Shape) -> list[str]:
    """Names that are missing, too many or of another type; JSON's true and false are no numbers."""
    mistyped = [n for n, kinds in shape.items() if n in body and not _is(body[n], kinds)]
    return sorted({*mistyped, *(set(body) ^ set(shape))})


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _object(path: Path, line: str, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number}, is no JSON: it was cut short or changed; export it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}, line {number}, is no JSON object; give a file of `quantwise evidence export`")
    return found


def _named(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _canonical(body: Any) -> str:
    return json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _digest(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=16).hexdigest()
