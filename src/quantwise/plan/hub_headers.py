"""A model on a hub as the planner sees it: headers alone, in files that are as long as the real ones and empty inside.

Every reader of headers works on such a stand-in as on the model itself, and nothing else is downloaded. The holes take
no room on a file system that keeps sparse files.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from quantwise.core.errors import InputError
from quantwise.formats.gguf.header_end import gguf_header_end
from quantwise.formats.safetensors_header import LONGEST_HEADER
from quantwise.models.hub import Selection, first_bytes, small_file

_SHAPES = ("config.json", "model.safetensors.index.json")


def stand_in(selection: Selection, folder: Path, also: Sequence[str] = ()) -> Path:
    """Write the headers of a selection beneath ``folder``. Returns the folder of the model, or its one file.

    ``also`` are further text files that are wanted whole, where the repository has them. Raises InputError for a
    damaged header, and what ``hub.first_bytes`` raises.
    """
    place = folder / selection.name.repo
    place.mkdir(parents=True, exist_ok=True)
    for file in selection.weights:
        gguf = file.lower().endswith(".gguf")
        header = first_bytes(selection, file, gguf_header_end if gguf else _safetensors_header_end)
        with (place / PurePosixPath(file).name).open("wb") as stream:
            stream.write(header)
            stream.truncate(selection.files[file])
    for file in (*_SHAPES, *also):
        if file in selection.files:
            (place / file).write_bytes(small_file(selection, file))
    return place / PurePosixPath(selection.weights[0]).name if selection.name.pattern is not None else place


def _safetensors_header_end(first: bytes) -> int | None:
    """Eight bytes of length, then so many of JSON (https://huggingface.co/docs/safetensors)."""
    if len(first) < 8:
        return None
    length = int(struct.unpack_from("<Q", first)[0])
    if length > LONGEST_HEADER:
        raise InputError("no safetensors file (bad header length); choose another repository")
    return 8 + length
