"""A quantized model folder: the tensors of its packed layers, every other tensor in 16 bit, config and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from quantwise.formats.safetensors_folder import (
    ModelFolder,
    copy_side_files,
    in_sixteen_bit,
    write_config,
    write_tensors,
)


def write_quantized(
    target: Path, source: ModelFolder, layers: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any]
) -> None:
    """Write ``source`` into the existing folder ``target`` with ``layers`` in place of their weights.

    ``layers`` maps a module's name to its stored tensors by the last part of their names; ``config`` becomes the
    ``quantization_config``. Raises KeyError where a layer has no weight in ``source``.
    """
    dtype = source.sixteen_bit
    replaced = {f"{name}.weight" for name in layers}
    if missing := replaced - set(source):
        raise KeyError(f"no such weights: {sorted(missing)}")
    tensors = {name: in_sixteen_bit(source[name], dtype) for name in source if name not in replaced}
    for name, stored in layers.items():
        tensors |= {f"{name}.{part}": tensor.contiguous() for part, tensor in stored.items()}
    write_tensors(target, tensors)
    write_config(target, source.config, dtype, quantization_config=dict(config))
    copy_side_files(source.path, target)
