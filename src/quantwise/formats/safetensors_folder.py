"""Model folders in the Hugging Face layout: tensors read one at a time, and 16-bit folders written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from quantwise.core.errors import InputError
from quantwise.formats.safetensors_header import read_model

# What a tokenizer, a chat template or a generation setting may be called.
_SIDE_FILES = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt", "LICENSE*")
_NOT_COPIED = {"config.json", "model.safetensors.index.json", "quantwise.json"}


class ModelFolder(Mapping[str, Tensor]):
    """The tensors of a folder by name, each read when it is asked for. Its files are checked when it is opened.

    Raises InputError where the folder, its config or a file is missing or damaged, or where it is quantized already and
    nobody said that it may be ``quantized``.
    """

    def __init__(self, path: Path, *, quantized: bool = False) -> None:
        self.path = path
        self.config, self.entries = read_model(path, quantized=quantized)

    def __getitem__(self, name: str) -> Tensor:
        """One tensor as stored. Raises KeyError where there is none, InputError where it cannot be read."""
        entry = self.entries[name]
        try:
            with safe_open(entry.file, framework="pt") as stream:
                tensor: Tensor = stream.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise InputError(f"{entry.file} cannot be read at tensor {name!r}: {error}; download it again") from error

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor; nothing is read."""
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        """Names in the order of the files."""
        return iter(self.entries)

    def __len__(self) -> int:
        """How many tensors."""
        return len(self.entries)

    @property
    def sixteen_bit(self) -> torch.dtype:
        """The 16-bit type of this model: float16 where it is stored so, else bfloat16."""
        stored = {entry.dtype for entry in self.entries.values() if len(entry.shape) > 1}
        return torch.float16 if stored == {"F16"} else torch.bfloat16

    @property
    def is_wider(self) -> bool:
        """Whether some tensor is rounded on its way to 16 bit."""
        return any(entry.dtype in ("F32", "F64") for entry in self.entries.values())

    @property
    def is_sixteen_bit(self) -> bool:
        """Whether no tensor has more than 16 bits."""
        return all(entry.dtype in ("F16", "BF16") for entry in self.entries.values())


def require_finite(name: str, tensor: Tensor) -> None:
    """Raise InputError where a floating-point tensor holds NaN or infinite values."""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise InputError(f"tensor {name!r} holds NaN or infinite values; repair the model before it is quantized")


def in_sixteen_bit(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating-point tensors in ``dtype``, others as they are; contiguous."""
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()


def side_files(folder: Path) -> list[Path]:
    """The tokenizer, chat template and generation settings."""
    found = {file for pattern in _SIDE_FILES for file in folder.glob(pattern) if file.is_file()}
    return sorted(file for file in found if file.name not in _NOT_COPIED)


def copy_side_files(source: Path, target: Path) -> None:
    """Copy them, unchanged."""
    for file in side_files(source):
        shutil.copyfile(file, target / file.name)


def write_config(target: Path, config: Mapping[str, Any], dtype: torch.dtype, **more: Any) -> None:
    """Write config.json with the model's dtype set, and ``more`` keys."""
    kept = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    changed = {**kept, "dtype": str(dtype).removeprefix("torch."), **more}
    (target / "config.json").write_text(json.dumps(changed, indent=2, sort_keys=True) + "\n")


def write_tensors(target: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one model.safetensors. Raises OSError where the disk refuses."""
    ordered = {name: tensors[name] for name in sorted(tensors)}
    file = target / "model.safetensors"
    try:
        save_file(ordered, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error
    file.chmod(0o644)
