"""Recipes with calibration data stored as GGUF: matrices of blocks packed by the walk, all others rounded by ggml."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quantwise.build.artifact_folder import GGUF_NAME
from quantwise.build.skeleton import Skeleton
from quantwise.build.storage import Made
from quantwise.core.artifact import Degradation
from quantwise.core.recipe import Recipe
from quantwise.formats.gguf.mixes import fitting
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
    """A GGUF file of ``types``, one for each tensor by its name in the folder; left out, they are those that
    llama-quantize gives a mix when it has an importance matrix.

    Raises InputError where llama.cpp cannot compute or tokenize as this model does.
    """

    recipe: Recipe
    source: ModelFolder
    types: Mapping[str, str] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        require_gguf(self.source.entries, self.source.config)
        read_tokenizer(self.source.path, self.source.config)
        if not self.types:
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

    def unpack(self, name: str, tensors: Callable[[str], Tensor]) -> Quantized[Any]:
        """As in the protocol."""
        stored = f"{name}.weight"
        grid = GgmlGrid(self.types[stored])
        codes, steps = grid.unpack(tensors(stored))
        return Quantized(codes, steps, grid.decode(codes, steps))

    def pack_outer(self, skeleton: Skeleton) -> dict[str, Tensor]:
        """The matrices outside of blocks (``outer``), rounded as ggml does, by their stored names."""
        found = {}
        for name in self.outer(skeleton):
            stored = skeleton.stored_name(name)
            packed = GgmlBlocks(self.types[stored]).encode(skeleton.read(name).numpy())
            found[stored] = torch.from_numpy(np.asarray(packed, np.uint8))
        return found

    def outer(self, skeleton: Skeleton) -> list[str]:
        """Parameter names of the embedding, and of an output matrix of its own, where they are quantized."""
        architecture = skeleton.architecture
        tied = bool(skeleton.source.config.get("tie_word_embeddings"))
        names = [f"{architecture.embeddings[0]}.weight", *([] if tied else [f"{architecture.output}.weight"])]
        return [name for name in names if self.types.get(skeleton.stored_name(name), "f32") not in _FLOATS]

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

    def header_bytes(self) -> int:
        """Bytes of the file before its first tensor: they do not depend on the types."""

        def stop(ggml: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
            raise _HeaderWritten

        with tempfile.TemporaryDirectory(prefix="quantwise-") as folder:
            file = Path(folder) / GGUF_NAME
            with contextlib.suppress(_HeaderWritten):
                write_gguf(file, self.source, self.recipe.scheme.name, stop, types=self.types)
            return file.stat().st_size


class _HeaderWritten(Exception):
    """No error: the first tensor is about to be written."""


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


def types_of_all(source: ModelFolder, kind: str) -> dict[str, str]:
    """The type of each tensor by its name in the folder where every matrix takes ``kind``, or what fits instead."""
    smallest = types_in(source.entries, source.config, "q8_0")
    return {
        name: "f32" if ggml == "f32" else fitting(kind, source.entries[name].shape[-1])
        for name, ggml in smallest.items()
    }
