"""A user's text file, read whole and never without an end: a device or a pipe may have none."""

from __future__ import annotations

from pathlib import Path

from quantwise.core.errors import InputError

MOST = 64 << 20
"""Bytes: the start of a server is told in thousands, a million requests in forty million."""


def read_text_file(path: Path, wanted: str, *, most: int = MOST, replaces: bool = True) -> str:
    """The text of a file of at most ``most`` bytes in UTF-8. ``wanted`` says in an error what to give instead; with
    ``replaces``, bytes that are no text become question marks, else they raise UnicodeDecodeError.

    Raises InputError where it cannot be read, or is longer.
    """
    try:
        with path.open("rb") as file:
            found = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give {wanted}") from error
    if len(found) > most:
        raise InputError(f"{path} has more than {most:,} bytes; give {wanted}, or a part of it")
    return found.decode("utf-8", errors="replace" if replaces else "strict")
