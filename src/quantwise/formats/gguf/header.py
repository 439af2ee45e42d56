"""The header of a GGUF file: what is in it, without reading its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantwise.core.errors import InputError


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor. ``shape`` is (rows, columns), slowest first; ``type`` is ggml's name in lower case; bytes of data."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """``keys`` are all metadata but the arrays (vocabularies are long); ``bytes`` is the size of the file."""

    path: Path
    architecture: str
    keys: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    bytes: int

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template, where the file has one."""
        template = self.keys.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    @property
    def context_length(self) -> int | None:
        """Tokens the model was trained for."""
        length = self.keys.get(f"{self.architecture}.context_length")
        return length if isinstance(length, int) else None

    @property
    def bits_per_weight(self) -> float:
        """Bits of all tensors over the count of their weights."""
        weights = sum(_count(tensor.shape) for tensor in self.tensors)
        return 8 * sum(tensor.bytes for tensor in self.tensors) / max(weights, 1)


def read_gguf_header(path: Path) -> GgufHeader:
    """Read a header; data is mapped, not read. Raises InputError where the file is missing, damaged or truncated, or is
    one part of several: its bytes, its hash and its tensors would be those of the part.
    """
    import gguf

    if not path.is_file():
        raise InputError(f"GGUF file {path} does not exist; check the path")
    try:
        reader = gguf.GGUFReader(path)
        fields = reader.fields.items()
        arrays = gguf.GGUFValueType.ARRAY
        keys = {name: field.contents() for name, field in fields if field.types and field.types[0] != arrays}
        tensors = tuple(
            GgufTensor(t.name, t.tensor_type.name.lower(), tuple(int(n) for n in reversed(t.shape)), int(t.n_bytes))
            for t in reader.tensors
        )
        architecture = keys["general.architecture"]
    except (ValueError, KeyError, IndexError, OSError, OverflowError, MemoryError) as error:
        raise InputError(f"{path} is no complete GGUF file; download or build it again ({_line(error)})") from error
    _require_whole(path, keys)
    return GgufHeader(path, architecture, keys, tensors, path.stat().st_size)


def _require_whole(path: Path, keys: dict[str, Any]) -> None:
    parts = keys.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise InputError(
            f"{path} is one of {parts} parts of a model, which are not read here; choose one in a single file, or join "
            "them with llama-gguf-split --merge and give the file"
        )


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def read_chat_metadata(path: Path) -> dict[str, Any]:
    """The keys that shape a chat prompt: template, special token ids, and the vocabulary's texts as a list.

    Raises InputError as ``read_gguf_header`` does.
    """
    import gguf

    keys = dict(read_gguf_header(path).keys)
    field = gguf.GGUFReader(path).fields.get("tokenizer.ggml.tokens")
    if field is not None and "tokenizer.chat_template" in keys:
        keys["tokenizer.ggml.tokens"] = field.contents()
    return keys
