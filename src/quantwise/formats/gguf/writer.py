"""A Hugging Face folder written as one GGUF file that stock llama.cpp loads.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quantwise.core.artifact import Degradation
from quantwise.core.errors import InputError
from quantwise.core.scheme import FIXED_SCHEMES
from quantwise.formats.gguf.mixes import tensor_bytes
from quantwise.formats.gguf.opening import open_file
from quantwise.formats.gguf.parameters import approximations
from quantwise.formats.gguf.tensors import arrange, retreats, types_in
from quantwise.formats.safetensors_folder import ModelFolder

_F16_LARGEST = 65504.0


class Encode(Protocol):
    """Values (..., columns) to the array stored for a ggml type."""

    def __call__(self, ggml: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
        """Encode."""
        ...


def write_gguf(
    path: Path,
    source: ModelFolder,
    scheme: str,
    encode: Encode,
    *,
    types: Mapping[str, str] | None = None,
    made: Mapping[str, Tensor] | None = None,
) -> tuple[Degradation, ...]:
    """Write ``source`` to ``path``; tensors are read, encoded and written one by one.

    ``types`` is the ggml type of each tensor by its name in the folder; without it, what llama-quantize assigns to a
    file of the name ``scheme``. ``made`` stands for tensors of the folder, by name: uint8 (rows, bytes of one row) is
    what was quantized already, in the folder's order of rows; anything else are new values, encoded here. Raises
    InputError where llama.cpp cannot compute or tokenize as this model does.
    """
    config = source.config
    made = made or {}
    kinds = types or types_in(source.entries, config, scheme)
    opened = open_file(path, source.path, source.entries, config, scheme, kinds)
    writer, stored = opened.writer, opened.types
    try:
        opened.write_header()
        for numbers in opened.factors.values():
            writer.write_tensor_data(np.array(numbers, np.float32))
        for part in opened.parts:
            arrays = []
            for name in part.sources:
                tensor = made[name] if name in made else source[name]
                rows = arrange(part, _array(name, tensor, stored[part.name], source.entries[name].shape), config)
                arrays.append(rows if rows.dtype == np.uint8 else encode(stored[part.name], rows))
            writer.write_tensor_data(np.stack(arrays) if part.stacked else arrays[0])
    finally:
        writer.close()
    # What was mixed otherwise ("auto") wanted no type that it did not get.
    missed = retreats(source.entries, config, scheme, kinds) if scheme in FIXED_SCHEMES else ()
    return (*opened.tokenizer.degradations, *approximations(config), *missed)


def _array(name: str, tensor: Tensor, ggml: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Packed rows as they are, which must be the bytes of ``shape``; anything else in float32."""
    if tensor.dtype != torch.uint8:
        values: npt.NDArray[np.float32] = tensor.float().numpy()
        if ggml == "f16" and float(np.abs(values).max(initial=0.0)) > _F16_LARGEST:
            raise InputError(f"tensor {name!r} has values beyond float16; build bf16 instead")
        return values
    if tensor.numel() != tensor_bytes(shape, ggml):
        raise ValueError(f"{name} was packed to rows of {tensor.shape[-1]} bytes, which are not those of {ggml}")
    packed: npt.NDArray[np.uint8] = tensor.numpy()
    return packed
