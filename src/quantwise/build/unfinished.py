"""What is finished of a walk that was killed: packed blocks of every recipe, and the hidden states before the next one.

``OUT/.walk-<key>/`` belongs to one walk at a time, which holds a lock on it; the key hashes model and calibration. A
file is complete as soon as it has its name. Everything is removed when the walk ends, well or with a refusal; where the
disk or the machine failed it stays, and the same command goes on.
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
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from quantwise.build.artifact_folder import BUILDER
from quantwise.core.errors import InputError
from quantwise.formats.safetensors_header import TensorEntry, read_header
from quantwise.formats.safetensors_stream import write_stream

# What nobody came back for goes when another walk passes by.
_FORGOTTEN_SECONDS = 7 * 24 * 3600
# What flock(2) says where another holds the lock; anything else means that there are no locks.
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@dataclass(slots=True)
class Unfinished:
    """The kept parts of one walk in ``folder``, which this process has locked."""

    folder: Path
    _lock: int = field(default=-1, repr=False)

    @classmethod
    def take(cls, out: Path, *parts: str) -> Unfinished:
        """The folder of the walk that ``parts`` describe, with what a killed process left there.

        Where a living process works at the same, it is another, empty folder. Raises OSError where the disk refuses.
        """
        out.mkdir(parents=True, exist_ok=True)
        _forget(out)
        first = _place(out, parts)
        for number in range(1 << 16):
            folder = first if not number else first.with_name(f"{first.name}-{number}")
            if (lock := _locked(folder)) is not None:
                for half in folder.rglob("*.half"):
                    half.unlink()
                return cls(folder, lock)
        raise OSError("too many walks at once")

    @staticmethod
    def left_behind(out: Path, *parts: str) -> int:
        """Bytes of what a killed process left of the walk that ``parts`` describe."""
        return sum(file.stat().st_size for file in _place(out, parts).rglob("*") if file.is_file())

    @staticmethod
    def sweep(out: Path, *parts: str) -> None:
        """Remove what a process left that was killed after its last artifact: all recipes in it have theirs."""
        folder = _place(out, parts)
        if not folder.is_dir():
            return
        recipes = {place.name.removesuffix("-distilled") for place in folder.iterdir() if place.is_dir()}
        if all((out / recipe).is_dir() for recipe in recipes) and (lock := _locked(folder)) is not None:
            _remove(folder)
            os.close(lock)

    @property
    def worth_keeping(self) -> bool:
        """Whether a block is finished, of any recipe."""
        return any(self.folder.glob("*/block-*.safetensors"))

    def keep_block(self, recipe: str, index: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """A block of a recipe's artifact is finished: ``tensors`` as they will be stored, and what to know of them."""
        folder = self.folder / recipe
        folder.mkdir(exist_ok=True)
        _write(folder / _name(index), dict(tensors), {"facts": json.dumps(facts, sort_keys=True)})

    def has_block(self, recipe: str, index: int) -> bool:
        """Whether a block of a recipe is finished."""
        return (self.folder / recipe / _name(index)).exists()

    def facts(self, recipe: str, index: int) -> dict[str, Any]:
        """What was kept with a block."""
        try:
            with safe_open(self.folder / recipe / _name(index), framework="pt") as stream:
                facts: dict[str, Any] = json.loads(stream.metadata()["facts"])
                return facts
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise InputError(f"{self.folder} is damaged ({error}); remove it and build again") from error

    def tensors(self, recipe: str, blocks: int) -> dict[str, TensorEntry]:
        """Where the stored tensors of a recipe's finished blocks lie."""
        found: dict[str, TensorEntry] = {}
        for index in range(blocks):
            found |= read_header(self.folder / recipe / _name(index))
        return found

    def keep_note(self, recipe: str, what: str, note: Mapping[str, Any]) -> None:
        """What was measured for a recipe, as JSON."""
        file = self.folder / recipe / f"{what}.json"
        file.parent.mkdir(exist_ok=True)
        half = file.with_suffix(".half")
        half.write_text(json.dumps(note, sort_keys=True), encoding="utf-8")
        _complete(half, file)

    def note(self, recipe: str, what: str) -> dict[str, Any] | None:
        """What was noted; None where nothing was."""
        file = self.folder / recipe / f"{what}.json"
        try:
            found: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        except (OSError, ValueError) as error:
            raise InputError(f"{file} is damaged ({error}); remove it and build again") from error
        return found

    def keep_hidden(self, stream: str, index: int, hidden: Sequence[Tensor]) -> None:
        """The hidden states before block ``index``; those before earlier ones go."""
        name = f"hidden-{stream}-{_name(index)}"
        half = (self.folder / name).with_suffix(".half")
        shapes = {str(i): ("F32", tuple(batch.shape)) for i, batch in enumerate(hidden)}
        # One by one: the library would copy all of them first.
        write_stream(half, shapes, lambda number: hidden[int(number)])
        _complete(half, self.folder / name)
        for old in self.folder.glob(f"hidden-{stream}-*.safetensors"):
            if old.name != name:
                old.unlink()

    def hidden(self, stream: str) -> tuple[int, list[Tensor]] | None:
        """The block before which the stream stood, and its hidden states there; None where none were kept whole."""
        for file in sorted(self.folder.glob(f"hidden-{stream}-*.safetensors"), reverse=True):
            try:
                batches = load_file(file)
                return int(file.stem.rpartition("-")[2]), [batches[str(i)] for i in range(len(batches))]
            except (SafetensorError, KeyError):
                # Damaged: they can be had again from the texts.
                file.unlink()
        return None

    def forget(self) -> None:
        """Remove everything."""
        _remove(self.folder)
        self.leave()

    def leave(self) -> None:
        """Leave everything for the same walk another time."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _name(index: int) -> str:
    return f"block-{index:05d}.safetensors"


def _write(file: Path, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
    half = file.with_suffix(".half")
    try:
        save_file(tensors, half, metadata=facts)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    _complete(half, file)


def _complete(half: Path, file: Path) -> None:
    with half.open("rb") as stream:
        os.fsync(stream.fileno())
    half.rename(file)


def _place(out: Path, parts: Sequence[str]) -> Path:
    key = hashlib.blake2b("\n".join((str(BUILDER), *parts)).encode(), digest_size=8).hexdigest()
    return out / f".walk-{key}"


def _locked(folder: Path) -> int | None:
    """A handle that holds the lock of the folder, which is made where there is none, until it is closed or the process
    dies; None where another holds it. Where a disk has no locks, walks at the same time may disturb each other.
    """
    while True:
        with contextlib.suppress(FileExistsError):  # not exist_ok: that looks again, and it may be gone by then
            folder.mkdir()
        try:
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its owner removed the folder just now
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                os.close(handle)
                return None
        # The owner before us may have removed the folder between our opening and its unlocking.
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove a folder whose lock is held. It goes from its name at once: who comes meanwhile makes another."""
    gone = folder.with_name(f".gone-{secrets.token_hex(8)}")
    with contextlib.suppress(OSError):
        folder = folder.rename(gone)
    shutil.rmtree(folder, ignore_errors=True)


def _forget(out: Path) -> None:
    for folder in out.glob(".gone-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in out.glob(".walk-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _FORGOTTEN_SECONDS and (lock := _locked(folder)) is not None:
                _remove(folder)
                os.close(lock)
