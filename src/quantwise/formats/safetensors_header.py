"""Names, shapes, types and bytes of safetensors files from their headers, without torch and without their data.

Layout (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, JSON header, then the data, to
which ``data_offsets`` are relative.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantwise.core.errors import InputError

# Bits of one element; types that pack several into a byte have fewer than 8.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
# The reference reader takes headers of up to 100 MB; these many tensors, of which no file has so many, fit into less.
LONGEST_HEADER = 1 << 25
_MOST_TENSORS, _MOST_DIMENSIONS = 1 << 18, 8
_LONGEST_INDEX = 1 << 26


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: ``bytes`` of data that begin at ``offset`` from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    bytes: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of one file. Raises InputError, naming the file, where it is missing, truncated or no safetensors."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            first = stream.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else LONGEST_HEADER + 1
            if length > min(LONGEST_HEADER, size - 8):
                raise InputError(f"{path} is no complete safetensors file (bad header length); download it again")
            header = _json(stream.read(length))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; download it again") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no safetensors file (unreadable header); download it again") from error
    if not isinstance(header, dict):
        raise InputError(f"{path} is no safetensors file (the header is no JSON object); download it again")
    entries = {name: _entry(name, value, path, 8 + length) for name, value in header.items() if name != "__metadata__"}
    end = 8 + length
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.bytes)):
        if entry.offset < end:
            raise InputError(f"{path} is damaged: tensor {entry.name!r:.60} overlaps another; download it again")
        end = entry.offset + entry.bytes
    if end != size:
        raise InputError(f"{path} is damaged: its header describes {end} bytes and it has {size}; download it again")
    return entries


def _json(text: bytes) -> Any:
    """What a header or an index says. Raises ValueError for one that holds more than any model, or a name twice."""
    # Counted before it is parsed: small texts can become large objects.
    if text.count(b"{") > _MOST_TENSORS or text.count(b"[") > 2 * _MOST_TENSORS or text.count(b",") > 8 * _MOST_TENSORS:
        raise ValueError("too many parts")
    return json.loads(text, object_pairs_hook=_no_name_twice)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def _whole(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 62:
        raise ValueError
    return number


def _entry(name: str, value: Any, path: Path, data_start: int) -> TensorEntry:
    try:
        begin, end = map(_whole, value["data_offsets"])
        shape = tuple(map(_whole, value["shape"]))
        expected = (math.prod(shape) * DTYPE_BITS[value["dtype"]] + 7) // 8
        if len(shape) > _MOST_DIMENSIONS or end - begin != expected:
            raise ValueError
        return TensorEntry(name, value["dtype"], shape, path, data_start + begin, expected)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: tensor {name!r:.60} is inconsistent; download it again") from error


def read_model(folder: Path, *, quantized: bool = False) -> tuple[dict[str, Any], dict[str, TensorEntry]]:
    """The config and the tensors of a folder to build from.

    Raises InputError where the folder, its config or a file is missing or damaged, or where it is quantized already and
    nobody said that it may be ``quantized``.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"model folder {folder} {what}; give a folder in the Hugging Face layout")
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'} is missing or no JSON; give a model folder") from error
    entries = read_folder(folder)
    if "quantization_config" in config and not quantized:
        raise InputError(f"{folder} is quantized already; build from the 16-bit model")
    return config, entries


def read_folder(folder: Path) -> dict[str, TensorEntry]:
    """The tensors of a model folder, of all its shards. Raises InputError naming what is missing or damaged."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        files = [folder / "model.safetensors"] if (folder / "model.safetensors").is_file() else []
        files = files or sorted(folder.glob("*.safetensors"))
        if not files:
            raise InputError(f"{folder} holds no .safetensors file; give a folder in the Hugging Face layout")
        entries: dict[str, TensorEntry] = {}
        for file in files:
            entries |= read_header(file)
        return entries
    weight_map = _weight_map(index)
    shards = {shard: read_header(folder / shard) for shard in sorted(set(weight_map.values()))}
    missing = [name for name, shard in weight_map.items() if name not in shards[shard]]
    if missing:
        raise InputError(f"{index} lists tensor {missing[0]!r}, which {weight_map[missing[0]]} lacks; download again")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def _weight_map(index: Path) -> Mapping[str, str]:
    """The shard of each tensor. Raises InputError where the index is none, or names a file elsewhere."""
    try:
        if index.stat().st_size > _LONGEST_INDEX:
            raise ValueError
        weight_map = _json(index.read_bytes())["weight_map"]
        if not isinstance(weight_map, dict) or any(Path(shard).name != shard for shard in weight_map.values()):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{index} is no readable index of shards; download it again") from error
    return weight_map
