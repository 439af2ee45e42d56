"""Text for a stream that may know less than Unicode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO


def write_encoded(text: str, file: TextIO, plain: Mapping[int, str]) -> None:
    """Write ``text``; where the stream's encoding lacks a letter of it, in ASCII, with ``plain`` for marks of ours."""
    try:
        text.encode(getattr(file, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        text = text.translate(plain).encode("ascii", "replace").decode("ascii")
    file.write(text)
