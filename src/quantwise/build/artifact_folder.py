"""Artifacts on disk: a folder appears under its final name only when everything in it is written.

``OUT/<recipe>-<key>/`` holds the model's files (or ``model.gguf``) and, written last, ``quantwise.json``. The key
hashes what went in (model, recipe, calibration tokens, version of the builder): equal requests find equal artifacts.

Several processes may build into one folder. Who looks, publishes or clears away holds a lock on ``OUT`` meanwhile; who
writes a draft holds a lock on the draft, so that only drafts of the dead are swept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantwise import machine
from quantwise.core.artifact import Artifact, Degradation, FormatName
from quantwise.core.errors import EnvironmentFailure
from quantwise.core.recipe import Recipe
from quantwise.formats.content_hash import RECORD, content_hash

GGUF_NAME = "model.gguf"
# Raised whenever equal inputs would now give other bytes.
BUILDER = 4
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EFBIG: "a file grew too large"}
# Bytes of free space below which an unexplained write error is put down to a full disk.
_ALMOST_NOTHING = 1 << 20


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What an artifact is made of. ``calibration_hash`` is None where the recipe reads no data."""

    recipe: Recipe
    model_hash: str
    calibration_hash: str | None

    @property
    def folder_name(self) -> str:
        """The artifact's folder name."""
        parts = (str(BUILDER), self.recipe.name, self.model_hash, self.calibration_hash or "")
        key = hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
        return f"{self.recipe.name.replace(':', '-')}-{key}"


def find(out: Path, ingredients: Ingredients) -> Artifact | None:
    """The complete artifact made of these ingredients, or None. One whose files do not add up is removed.

    Raises EnvironmentFailure where it is there and cannot be read.
    """
    if not out.is_dir():
        return None
    with _reading(out), _locked(out):
        return _whole_or_gone(out / ingredients.folder_name)


def stands(artifact: Artifact) -> bool:
    """Whether an artifact that was finished here earlier still lies where it was, with all its bytes."""
    place = Path(artifact.location)
    try:
        found = _read(place if place.is_dir() else place.parent)
    except OSError:
        return False
    return found is not None and (found.hash, found.bytes) == (artifact.hash, artifact.bytes)


@dataclass(slots=True)
class Draft:
    """An artifact being written: fill ``folder``, then give its facts to ``finish``."""

    folder: Path
    final: Path
    ingredients: Ingredients

    def finish(
        self,
        bits_per_weight: float,
        seconds: float,
        degradations: Sequence[Degradation],
        by_class: Mapping[str, int] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Hash what is in the folder, write the record last, and rename. Returns the artifact under its final name.

        Where another build was faster, its artifact stays: the bytes are the same.
        ``by_class`` are bytes of tensor data by class, as ``tensor_bytes`` counts them; ``notes`` what else to know.
        """
        scheme = self.ingredients.recipe.scheme
        record = {
            "recipe": self.ingredients.recipe.name,
            "format": scheme.format,
            "hash": content_hash(self.folder / GGUF_NAME if scheme.format == "gguf" else self.folder),
            "bytes": _bytes(self.folder),
            "bits_per_weight": bits_per_weight,
            "seconds": seconds,
            "model_hash": self.ingredients.model_hash,
            "calibration_hash": self.ingredients.calibration_hash,
            "bytes_by_class": dict(by_class or {}),
            "builder": BUILDER,
            "versions": machine.facts()["versions"],
            "degradations": [asdict(d) for d in degradations],
            "notes": dict(notes or {}),
        }
        (self.folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for file in (*self.folder.iterdir(), self.folder):
            _sync(file)
        with _locked(self.final.parent):
            found = _whole_or_gone(self.final)
            if found is None:
                self.folder.rename(self.final)
                _sync(self.final.parent)
                found = _artifact(self.final, record)
        return found


@contextlib.contextmanager
def draft(out: Path, ingredients: Ingredients) -> Iterator[Draft]:
    """A temporary folder beside the final one; removed if it was not finished. Drafts of dead processes are swept away.

    Raises EnvironmentFailure where the disk is full or not writable.
    """
    with no_disk(ingredients.recipe.name, out):
        out.mkdir(parents=True, exist_ok=True)
        folder = out / f".draft-{secrets.token_hex(8)}"
        with _locked(out):
            _sweep(out)
            folder.mkdir()
            living = _try_lock(folder)
        try:
            yield Draft(folder, out / ingredients.folder_name, ingredients)
        except OSError as error:
            # Asked before the draft is removed: numpy's and safetensors' own errors come without a number.
            if shutil.disk_usage(out).free < _ALMOST_NOTHING:
                error.errno = errno.ENOSPC
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if living is not None:
                os.close(living)


@contextlib.contextmanager
def no_disk(what: str, out: Path) -> Iterator[None]:
    """Translate what the disk under ``out`` refuses into EnvironmentFailure."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        why = _FULL[error.errno or 0] if full else error.strerror or str(error)
        advice = "free some space or choose another folder" if full else "check the folder and its permissions"
        raise EnvironmentFailure(f"cannot write {what} to {out}: {why}; {advice}") from error


@contextlib.contextmanager
def _reading(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise EnvironmentFailure(f"cannot read {error.filename or out}: {why}; check it and its permissions") from error


def _whole_or_gone(folder: Path) -> Artifact | None:
    """The artifact in ``folder``, or None and no folder; to be asked under the lock."""
    found = _read(folder)
    if found is None and folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _read(folder: Path) -> Artifact | None:
    """The artifact in ``folder``; None where there is none, or not all of it. Raises OSError where nobody can tell."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        artifact = _artifact(folder, record)
        return artifact if artifact.bytes == _bytes(folder) else None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def _artifact(folder: Path, record: dict[str, Any]) -> Artifact:
    form: FormatName = record["format"]
    return Artifact(
        location=str(folder / GGUF_NAME if form == "gguf" else folder),
        format=form,
        hash=record["hash"],
        bytes=record["bytes"],
        recipe=record["recipe"],
        bits_per_weight=record["bits_per_weight"],
        build_seconds=record["seconds"],
        degradations=tuple(Degradation(**d) for d in record["degradations"]),
        notes=record.get("notes", {}),
    )


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.name != RECORD)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Nobody else looks, publishes or sweeps in ``out`` inside."""
    handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network disks lock no folders. There, builds at the same time may disturb each other.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _try_lock(folder: Path) -> int | None:
    """A handle that holds the folder's lock until it is closed or the process dies; None where another holds it, or
    nobody can.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _sweep(out: Path) -> None:
    """Remove the drafts that nobody holds."""
    for folder in out.glob(".draft-*"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if (handle := _try_lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)
