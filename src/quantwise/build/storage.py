"""How each format stores what a recipe makes: which grid a layer gets, its packed tensors, and the artifact's files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from quantwise.core.artifact import Degradation, FormatName
from quantwise.core.errors import InputError
from quantwise.core.layerwise import Assignment
from quantwise.core.recipe import Recipe
from quantwise.core.scheme import Scheme
from quantwise.formats.awq_layout import awq_config, pack_awq
from quantwise.formats.bitsandbytes import NestedScales, Nf4Layer, nf4_config, pack_nf4
from quantwise.formats.bitsandbytes_int8 import Int8Layer, int8_config, pack_int8
from quantwise.formats.checkpoint_limits import stays
from quantwise.formats.compressed_tensors import (
    IntegerLayer,
    is_static,
    pack,
    packed_parts,
    quantization_config,
    unpack,
)
from quantwise.formats.gptq_layout import gptq_config, pack_gptq
from quantwise.formats.safetensors_folder import ModelFolder, copy_side_files, write_config
from quantwise.formats.safetensors_header import TensorEntry
from quantwise.formats.safetensors_stream import write_model
from quantwise.grids import float8, int8_inputs
from quantwise.grids.float8 import Float8Grid
from quantwise.grids.grid import Grid
from quantwise.grids.integer import Steps, integer_grid
from quantwise.grids.llm_int8 import LlmInt8Grid
from quantwise.grids.nf4 import Nf4Grid, dynamic_numbers, normal_quantiles
from quantwise.quantize.quantizer import Quantized


@dataclass(frozen=True, slots=True)
class Made:
    """What the blocks gave: ``tensors`` by the name under which they are stored, instead of those ``replaced``.

    ``ignored`` are the linear layers of the whole model that stay in 16 bit, by their names in the module tree.
    ``mixture`` tells whether some layers are experts.
    """

    tensors: Mapping[str, TensorEntry]
    replaced: frozenset[str]
    ignored: Sequence[str]
    mixture: bool


class Storage(Protocol):
    """One recipe's place in one format."""

    @property
    def needs(self) -> frozenset[str]:
        """The statistics that ``pack`` reads from ``seen``."""
        ...

    @property
    def experts(self) -> bool:
        """Whether runtimes read experts from this format."""
        ...

    def grid(self, name: str, shape: torch.Size) -> Grid[Any] | str | None:
        """The grid of a matrix by its stored name without ``.weight``; or why it stays in 16 bit; or None where it does
        and ``write`` says so.
        """
        ...

    def pack(self, name: str, made: Quantized[Any], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors to store for a matrix, by their full names; ``seen`` are the statistics of its inputs."""
        ...

    def unpack(self, name: str, tensors: Callable[[str], Tensor]) -> Quantized[Any]:
        """What ``pack`` was given for a matrix, out of what it gave; ``tensors`` reads one by its full name.

        Raises InputError where a format is never read again.
        """
        ...

    def write(self, folder: Path, source: ModelFolder, made: Made) -> tuple[Degradation, ...]:
        """Write the artifact's files into the existing ``folder``."""
        ...


@dataclass(frozen=True, slots=True)
class _Folder:
    """Folders of safetensors in the Hugging Face layout, whose config.json says how layers are quantized."""

    recipe: Recipe
    source: ModelFolder
    dtype: torch.dtype = field(init=False)
    needs: ClassVar[frozenset[str]] = frozenset()
    experts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", self.source.sixteen_bit)

    def grid(self, name: str, shape: torch.Size) -> Grid[Any] | str | None:
        """As in the protocol."""
        scheme = self._scheme(name)
        return stays(scheme, *shape) or self._grid(scheme)

    def pack(self, name: str, made: Quantized[Any], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As in the protocol."""
        return {f"{name}.{part}": tensor for part, tensor in self._parts(self._scheme(name), made, seen).items()}

    def unpack(self, name: str, tensors: Callable[[str], Tensor]) -> Quantized[Any]:
        """As in the protocol."""
        raise InputError(f"{self.recipe.name}: what {self.recipe.scheme.format} stores is not read back; use GGUF")

    def write(self, folder: Path, source: ModelFolder, made: Made) -> tuple[Degradation, ...]:
        """As in the protocol."""
        write_model(folder, source, made.tensors, made.replaced)
        write_config(folder, source.config, self.dtype, quantization_config=self._config(made))
        copy_side_files(source.path, folder)
        return ()

    def _scheme(self, name: str) -> Scheme:
        return self.recipe.scheme

    def _grid(self, scheme: Scheme) -> Grid[Any]:
        return integer_grid(scheme, self.dtype)

    def _parts(self, scheme: Scheme, made: Quantized[Any], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError

    def _config(self, made: Made) -> dict[str, Any]:
        raise NotImplementedError


class CompressedTensors(_Folder):
    """Integer and FP8 schemes as the library compressed-tensors stores them."""

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """A fixed scale of inputs comes from their largest values."""
        return frozenset({"absmax"} if is_static(self.recipe.scheme) else ())

    @property
    def experts(self) -> bool:  # type: ignore[override]
        """Transformers unpacks them while it loads, but drops their zero points and scales of inputs."""
        return self.recipe.scheme.symmetric and not self.recipe.scheme.activations

    @cached_property
    def _assignment(self) -> Assignment:
        return Assignment.of(self.source.entries)

    def _scheme(self, name: str) -> Scheme:
        return self._assignment.scheme_of(name, self.recipe.scheme)

    def _grid(self, scheme: Scheme) -> Grid[Any]:
        if scheme.kind == "float8":
            return Float8Grid("tensor" if scheme.granularity == "tensor" else "channel", self.dtype)
        return integer_grid(scheme, self.dtype)

    def _parts(self, scheme: Scheme, made: Quantized[Any], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        fixed = None
        if is_static(scheme):
            measure = float8.input_scale if scheme.kind == "float8" else int8_inputs.fixed_scale
            fixed = measure(seen["absmax"])
        codes = float8.to_bytes(made.codes) if scheme.kind == "float8" else made.codes
        return pack(IntegerLayer(codes, made.steps.scale, made.steps.zero, fixed), scheme, self.dtype)

    def unpack(self, name: str, tensors: Callable[[str], Tensor]) -> Quantized[Any]:
        """As in the protocol."""
        scheme = self._scheme(name)
        layer = unpack({part: tensors(f"{name}.{part}") for part in packed_parts(scheme)}, scheme)
        steps = Steps(layer.scale, layer.zero, layer.codes.shape[1])
        return Quantized(layer.codes, steps, self._grid(scheme).decode(layer.codes, steps))

    def _config(self, made: Made) -> dict[str, Any]:
        # Transformers holds experts fused: it can only unpack theirs while it loads.
        unpack = {"dequantize": True} if made.mixture else {}
        return {**quantization_config(self.recipe.scheme, list(made.ignored), self._assignment), **unpack}


class GptqLayout(_Folder):
    """Integer schemes as GPTQ checkpoints. Zero points are stored as they are: minus one, some would not fit."""

    def _parts(self, scheme: Scheme, made: Quantized[Any], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        layer = IntegerLayer(made.codes, made.steps.scale, made.steps.zero)
        return pack_gptq(layer, scheme, self.dtype)

    def _config(self, made: Made) -> dict[str, Any]:
        return gptq_config(self.recipe.scheme, list(made.ignored))

    def write(self, folder: Path, source: ModelFolder, made: Made) -> tuple[Degradation, ...]:
        """Older readers look for the config in a file of its own."""
        text = json.dumps(self._config(made), indent=2, sort_keys=True) + "\n"
        (folder / "quantize_config.json").write_text(text)
        return _Folder.write(self, folder, source, made)


class AwqLayout(_Folder):
    """Four-bit integer schemes as AWQ checkpoints."""

    def _parts(self, scheme: Scheme, made: Quantized[Any], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        layer = IntegerLayer(made.codes, made.steps.scale, made.steps.zero)
        return pack_awq(layer, scheme, self.dtype)

    def _config(self, made: Made) -> dict[str, Any]:
        return awq_config(self.recipe.scheme, list(made.ignored))


class BitsAndBytes(_Folder):
    """NF4 and LLM.int8()."""

    @property
    def _nested(self) -> bool:
        return self.recipe.scheme.name == "nf4-dq"

    def _grid(self, scheme: Scheme) -> Grid[Any]:
        return Nf4Grid(self._nested) if scheme.kind == "nf4" else LlmInt8Grid()

    def _parts(self, scheme: Scheme, made: Quantized[Any], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if scheme.kind == "llm-int8":
            return pack_int8(Int8Layer(made.codes, made.steps.scale))
        rounded = made.steps.rounded
        nested = rounded and NestedScales(rounded.codes, dynamic_numbers(), rounded.largest, rounded.mean)
        return pack_nf4(Nf4Layer(made.codes, normal_quantiles(), made.steps.scale, nested), self.dtype)

    def _config(self, made: Made) -> dict[str, Any]:
        if self.recipe.scheme.kind == "llm-int8":
            return int8_config(list(made.ignored))
        return nf4_config(self.dtype, self._nested, list(made.ignored))


def _gguf(recipe: Recipe, source: ModelFolder) -> Storage:
    # GGUF is an extra of its own.
    from quantwise.build.gguf_storage import GgufFile, types_of_all

    # Which types a budget buys is known after the walk; that every matrix could take one is known now.
    return GgufFile(recipe, source, types_of_all(source, "q8_0") if recipe.budget else {})


STORAGES: Mapping[FormatName, Callable[[Recipe, ModelFolder], Storage]] = {
    "compressed-tensors": CompressedTensors,
    "gptq": GptqLayout,
    "awq": AwqLayout,
    "bitsandbytes": BitsAndBytes,
    "gguf": _gguf,
}


def storage_for(recipe: Recipe, source: ModelFolder) -> Storage:
    """The storage of a recipe. Raises InputError where its format cannot hold this model."""
    return STORAGES[recipe.scheme.format](recipe, source)
