"""The header of a GGUF file: what is in it, without reading its data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantwise.core.errors import InputError
from quantwise.formats.gguf.types import GGML_TYPES
from quantwise.formats.gguf.wire import Broken, Described, Short, WireHeader, parse

_TOKENS = "tokenizer.ggml.tokens"
# Data begins at multiples of this many bytes, unless a key says otherwise.
_ALIGNMENT, _LARGEST_ALIGNMENT = 32, 1 << 20


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor. ``shape`` is (rows, columns), slowest first; ``type`` is ggml's name in lower case; bytes of data."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """``keys`` are all metadata but the arrays; ``bytes`` is the size of the file.

    ``arrays`` are those of numbers that are short enough to be values of layers (vocabularies are long).
    """

    path: Path
    architecture: str
    keys: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    bytes: int
    arrays: Mapping[str, list[Any]] = field(default_factory=dict)

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
        weights = sum(math.prod(tensor.shape) for tensor in self.tensors)
        return 8 * sum(tensor.bytes for tensor in self.tensors) / max(weights, 1)


def read_gguf_header(path: Path, *, part: bool = False) -> GgufHeader:
    """Read a header; of the data only its length is looked at.

    Raises InputError where the file is missing, damaged or truncated, its header contradicts itself, or it is one part
    of several (unless ``part`` says that this is known): its bytes, hash and tensors would be those of the part.
    """
    found, size = _parsed(path)
    parts = found.keys.get("split.count", 1)
    if not part and isinstance(parts, int) and parts > 1:
        raise InputError(
            f"{path} is one of {parts} parts of a model, which are not read here; choose one in a single file, or join "
            "them with llama-gguf-split --merge and give the file"
        )
    architecture = found.keys.get("general.architecture")
    if not isinstance(architecture, str):
        raise _damaged(path, "it names no architecture")
    tensors = tuple(_tensor(path, described) for described in found.tensors)
    _check_places(path, found, tensors, size)
    return GgufHeader(path, architecture, found.keys, tensors, size, found.arrays)


def read_chat_metadata(path: Path) -> dict[str, Any]:
    """The keys that shape a chat prompt: template, special token ids, and the vocabulary's texts as a list.

    Raises InputError as ``read_gguf_header`` does.
    """
    keys = dict(read_gguf_header(path).keys)
    if "tokenizer.chat_template" in keys:
        found, _ = _parsed(path, frozenset({_TOKENS}))
        keys |= {name: texts for name, texts in found.arrays.items() if name == _TOKENS}
    return keys


def read_vocabulary(path: Path) -> list[str]:
    """The texts of the tokens by their ids, or an empty list. Raises InputError as ``read_gguf_header`` does."""
    found, _ = _parsed(path, frozenset({_TOKENS}))
    return [str(text) for text in found.arrays.get(_TOKENS, ())]


def _parsed(path: Path, wanted: frozenset[str] = frozenset()) -> tuple[WireHeader, int]:
    if not path.is_file():
        raise InputError(f"GGUF file {path} does not exist; check the path")
    try:
        with path.open("rb") as stream:
            return parse(stream.read, wanted), path.stat().st_size
    except Short as why:
        raise _damaged(path, "it ends within its header") from why
    except Broken as why:
        raise _damaged(path, str(why)) from why
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check its permissions") from error


def _tensor(path: Path, described: Described) -> GgufTensor:
    kind = GGML_TYPES.get(described.type)
    if kind is None:
        raise _damaged(path, f"tensor {described.name!r:.60} has the unknown type {described.type}")
    if described.dimensions[0] % kind.weights:
        raise _damaged(path, f"tensor {described.name!r:.60} has rows that do not split into blocks of {kind.name}")
    held = math.prod(described.dimensions) // kind.weights * kind.bytes
    return GgufTensor(described.name, kind.name, tuple(reversed(described.dimensions)), held)


def _check_places(path: Path, found: WireHeader, tensors: Sequence[GgufTensor], size: int) -> None:
    """Raise InputError where the data of tensors is not in the file, overlaps, or names come twice."""
    alignment = found.keys.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise _damaged(path, f"an alignment of {alignment!r:.40} is none")
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise _damaged(path, "two tensors have one name")
    start = -(-found.end // alignment) * alignment
    end = 0
    for offset, held, name in sorted((d.offset, t.bytes, t.name) for d, t in zip(found.tensors, tensors, strict=True)):
        if offset < end or offset % alignment:
            raise _damaged(path, f"the data of tensor {name!r:.60} begins within that of another")
        end = offset + held
        if start + end > size:
            raise _damaged(path, f"it has {size} bytes, the data of tensor {name!r:.60} ends at {start + end}")


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no complete GGUF file; download or build it again ({why})")
