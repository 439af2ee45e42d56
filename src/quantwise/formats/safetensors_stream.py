"""A safetensors file written tensor by tensor, so that it may be larger than memory."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from quantwise.core.errors import InputError
from quantwise.formats.safetensors_folder import ModelFolder, require_finite
from quantwise.formats.safetensors_header import DTYPE_BITS, TensorEntry

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
# Data begins at a multiple of this many bytes, and no tensor of wider elements follows one of narrower.
_ALIGNMENT = 8


def write_stream(file: Path, tensors: Mapping[str, tuple[str, Sequence[int]]], read: Callable[[str], Tensor]) -> None:
    """Write ``tensors`` (name to type, as the format spells it, and shape), each as ``read`` gives it.

    Equal tensors give equal bytes, in whatever order they are named. Raises OSError where the disk refuses, ValueError
    where ``read`` gives another type or shape than was announced.
    """
    order = sorted(tensors, key=lambda name: (-DTYPE_BITS[tensors[name][0]], name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in order:
        dtype, shape = tensors[name]
        end = at + (math.prod(shape) * DTYPE_BITS[dtype] + 7) // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)))
        stream.write(text)
        for name in order:
            tensor = read(name).contiguous()
            if (_NAMES[tensor.dtype], tuple(tensor.shape)) != (tensors[name][0], tuple(tensors[name][1])):
                raise ValueError(f"tensor {name!r} is not what its header says")
            stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)


def read_entry(entry: TensorEntry) -> Tensor:
    """The tensor of a file. Raises InputError where it cannot be read."""
    try:
        with safe_open(entry.file, framework="pt") as stream:
            tensor: Tensor = stream.get_tensor(entry.name)
            return tensor
    except (SafetensorError, OSError) as error:
        raise InputError(f"{entry.file} cannot be read at tensor {entry.name!r}: {error}") from error


def write_model(
    target: Path, source: ModelFolder, changed: Mapping[str, TensorEntry], replaced: frozenset[str] = frozenset()
) -> None:
    """Write the tensors of ``source`` in its 16-bit type, without those ``replaced``, and with those ``changed`` (by
    name, in files), into ``target/model.safetensors``. Raises InputError where one of ``source`` is not finite.
    """
    dtype = source.sixteen_bit
    wide = ("F64", "F32", "F16", "BF16")
    kept = {name: entry for name, entry in source.entries.items() if name not in replaced and name not in changed}
    table: dict[str, tuple[str, Sequence[int]]] = {
        name: (_NAMES[dtype] if entry.dtype in wide else entry.dtype, entry.shape) for name, entry in kept.items()
    }
    table |= {name: (entry.dtype, entry.shape) for name, entry in changed.items()}

    def read(name: str) -> Tensor:
        if name in changed:
            return read_entry(changed[name])
        tensor = source[name].to(dtype) if kept[name].dtype in wide else source[name]
        # Rounding to 16 bit may have overflown.
        require_finite(name, tensor)
        return tensor

    write_stream(target / "model.safetensors", table, read)
