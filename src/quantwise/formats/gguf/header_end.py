"""Where the header of a GGUF file ends, from its first bytes: for files of which only a part is here."""

from __future__ import annotations

import io

from quantwise.core.errors import InputError
from quantwise.formats.gguf.wire import Broken, Short, parse


def gguf_header_end(first: bytes) -> int | None:
    """Bytes up to the end of the last tensor's description, or None where ``first`` is too short to tell.

    Raises InputError where this is no GGUF file of a version that is read here.
    """
    try:
        return parse(io.BytesIO(first).read).end
    except Short:
        return None
    except Broken as why:
        raise InputError(f"not a GGUF file that is read here ({why}); choose another file") from why
