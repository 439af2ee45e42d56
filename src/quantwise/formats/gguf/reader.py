"""A GGUF file read back into the tensors of the folder that it was made from: names, order of rows, experts one by one.

Values are decoded, whatever their type, and every step of ``tensors.arrange`` is undone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from quantwise.core.errors import InputError
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.gguf.tensors import layout, restored
from quantwise.formats.safetensors_header import TensorEntry


def read_values(
    path: Path, entries: Mapping[str, TensorEntry], config: Mapping[str, Any]
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Name and values of every tensor of the folder (``entries``) that the file stands for, in the folder's shapes.

    An output matrix tied to the embedding is not among them. One tensor at a time is in memory. Raises InputError where
    the file is damaged, or is one of another model.
    """
    read_gguf_header(path)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for target in layout(entries, config):
        tensor = stored.get(target.name)
        if tensor is None or tuple(int(n) for n in reversed(tensor.shape)) != target.shape:
            raise InputError(f"{path} has no {target.name} of shape {target.shape}; it is the file of another model")
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        for part, name in zip(values if target.stacked else [values], target.sources, strict=True):
            yield name, restored(target, part, config).reshape(entries[name].shape)
