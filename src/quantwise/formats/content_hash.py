"""The content hash by which a model or an artifact is known."""

from __future__ import annotations

import hashlib
from pathlib import Path

from quantwise.core.errors import InputError

# Our own notes about an artifact; they hold times, so they are no part of what it is.
RECORD = "quantwise.json"
_CHUNK = 1 << 20


def content_hash(path: Path) -> str:
    """Hash of a file's bytes, or of a folder's files with their relative names: 32 hex digits (BLAKE2b).

    Names are sorted; where a folder lies does not matter. Raises InputError where nothing is there or cannot be read.
    """
    try:
        if path.is_file():
            return _file_hash(path)
        if not path.is_dir():
            raise InputError(f"{path} is neither a file nor a folder; check the path")
        total = hashlib.blake2b(digest_size=16)
        for file in content_files(path):
            name = file.relative_to(path).as_posix()
            total.update(f"{len(name.encode())}:{name}:{_file_hash(file)}\n".encode())
        return total.hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror}") from error


def content_files(folder: Path) -> list[Path]:
    """The files that a folder's hash covers, in its order: all but hidden ones, our record, and what Python puts into a
    package (``__init__.py``, ``__pycache__``), as the reference model's folder is one.
    """
    found = []
    for file in folder.rglob("*"):
        parts = file.relative_to(folder).parts
        ours = file.name in (RECORD, "__init__.py") or "__pycache__" in parts
        if not ours and file.is_file() and not any(part.startswith(".") for part in parts):
            found.append(file)
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _file_hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
