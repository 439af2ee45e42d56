"""How long a GGUF file will be, to the byte, before it is written."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from quantwise.formats.gguf.opening import open_file
from quantwise.formats.gguf.tensors import types_in
from quantwise.formats.safetensors_header import TensorEntry


def gguf_file_bytes(
    folder: Path, entries: Mapping[str, TensorEntry], config: dict[str, Any], scheme: str, *, importance: bool = False
) -> int:
    """Bytes of the file ``scheme`` that is made of a model folder; ``entries`` are its tensors.

    Its header is written, to a temporary file, and measured: keys, vocabulary, padding and all. Raises InputError where
    no GGUF file is written of this model.
    """
    kinds = types_in(entries, config, scheme, importance=importance)
    with tempfile.TemporaryDirectory(prefix="quantwise-header-") as place:
        path = Path(place) / "header.gguf"
        opened = open_file(path, folder, entries, config, scheme, kinds)
        try:
            opened.write_header()
        finally:
            opened.writer.close()
        head = path.stat().st_size
    return int(gguf.GGUFWriter.ggml_pad(head, gguf.GGUF_DEFAULT_ALIGNMENT)) + opened.data_bytes
