"""Recipes with calibration data stored as GGUF: matrices of blocks packed by the walk, all others rounded by ggml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantwise.build.artifact_folder import GGUF_NAME
from quantwise.build.storage import Made
from quantwise.core.artifact import Degradation
from quantwise.core.recipe import Recipe
from quantwise.formats.gguf.tensors import require_gguf, types_in
from quantwise.formats.gguf.tokenizer import read_tokenizer
from quantwise.formats.gguf.writer import write_gguf
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.formats.safetensors_header import TensorEntry
from quantwise.formats.safetensors_stream import read_entry
from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.grids.ggml_grid import GgmlGrid
from quantwise.quantize.quantizer import Quantized

_FLOATS = ("f32", "f16", "bf16")


@dataclass(slots=True)
class GgufFile:
    """A GGUF file of the types that llama-quantize gives a mix when it has an importance matrix.

    Raises InputError where llama.cpp cannot compute or tokenize as this model does.
    """

    recipe: Recipe
    source: ModelFolder
    types: Mapping[str, str] = field(init=False)
    needs: frozenset[str] = frozenset()
    experts: bool = True

    def __post_init__(self) -> None:
        require_gguf(self.source.entries, self.source.config)
        read_tokenizer(self.source.path, self.source.config)
        scheme = self.recipe.scheme.name
        self.types = types_in(self.source.entries, self.source.config, scheme, importance=True)

    def grid(self, name: str, shape: torch.Size) -> GgmlGrid | None:
        """As in the protocol."""
        kind = self.types[f"{name}.weight"]
        return None if kind in _FLOATS else GgmlGrid(kind)

    def pack(self, name: str, made: Quantized[Any], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As in the protocol: uint8 (rows, bytes of one row), rows as in the folder."""
        stored = f"{name}.weight"
        return {stored: GgmlGrid(self.types[stored]).pack(made.codes, made.steps)}

    def write(self, folder: Path, source: ModelFolder, made: Made) -> tuple[Degradation, ...]:
        """As in the protocol."""
        return write_gguf(
            folder / GGUF_NAME,
            source,
            self.recipe.scheme.name,
            lambda ggml, values: GgmlBlocks(ggml).encode(values),
            types=self.types,
            made=_Read(made.tensors),
        )


class _Read(Mapping[str, Tensor]):
    """Tensors of files, each read when it is asked for."""

    def __init__(self, entries: Mapping[str, TensorEntry]) -> None:
        self._entries = entries

    def __getitem__(self, name: str) -> Tensor:
        return read_entry(self._entries[name])

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
