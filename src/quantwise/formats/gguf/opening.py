"""The beginning of a GGUF file that is to be written: its keys, its tokenizer, and the place of every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from quantwise.formats.gguf.architectures import gguf_architecture
from quantwise.formats.gguf.layout import Target, expert_count
from quantwise.formats.gguf.mixes import tensor_bytes
from quantwise.formats.gguf.parameters import Value, gguf_parameters, head_dim
from quantwise.formats.gguf.rope import factor_tensors
from quantwise.formats.gguf.tensors import layout
from quantwise.formats.gguf.tokenizer import GgufTokenizer, read_tokenizer
from quantwise.formats.safetensors_header import TensorEntry


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that was begun: ``parts`` are its tensors in order, with their ``types`` by name, behind the ``factors``
    of a scaled rotary embedding.
    """

    writer: gguf.GGUFWriter
    tokenizer: GgufTokenizer
    factors: Mapping[str, tuple[float, ...]]
    parts: tuple[Target, ...]
    types: Mapping[str, str]

    def write_header(self) -> None:
        """Write everything before the data."""
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_ti_data_to_file()

    @property
    def data_bytes(self) -> int:
        """Bytes of the data, each tensor's padded."""
        sizes = [4 * len(numbers) for numbers in self.factors.values()]
        sizes += [tensor_bytes(part.shape, self.types[part.name]) for part in self.parts]
        return sum(gguf.GGUFWriter.ggml_pad(size, gguf.GGUF_DEFAULT_ALIGNMENT) for size in sizes)


def open_file(
    path: Path,
    folder: Path,
    entries: Mapping[str, TensorEntry],
    config: dict[str, Any],
    scheme: str,
    kinds: Mapping[str, str],
) -> OpenFile:
    """Describe the file at ``path`` that is made of a folder's ``entries``, in the ggml types ``kinds`` by their names.

    Nothing is written yet. Raises InputError where llama.cpp cannot compute or tokenize as this model does.
    """
    parts = layout(entries, config)
    parameters = gguf_parameters(config, expert_count(parts))
    tokenizer = read_tokenizer(folder, config)
    stored = {part.name: _one_type(part, kinds) for part in parts}
    factors = factor_tensors(config, gguf_architecture(config), head_dim(config))
    writer = gguf.GGUFWriter(path, gguf_architecture(config).name, use_temp_file=False)
    for key, value in parameters.items():
        _add(writer, key, value)
    # A file of mixed types of our own has no name there.
    kind = gguf.LlamaFileType.__members__.get(f"MOSTLY_{scheme.upper()}", gguf.LlamaFileType.GUESSED)
    writer.add_file_type(int(kind))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    tokenizer.add_to(writer)
    for name, numbers in factors.items():
        writer.add_tensor_info(name, (len(numbers),), np.dtype(np.float32), 4 * len(numbers))
    for part in parts:
        number = gguf.GGMLQuantizationType[stored[part.name].upper()]
        held = tensor_bytes(part.shape, stored[part.name])
        writer.add_tensor_info(part.name, part.shape, np.dtype(np.float32), held, number)
    return OpenFile(writer, tokenizer, factors, tuple(parts), stored)


def _one_type(part: Target, kinds: Mapping[str, str]) -> str:
    found = {kinds[name] for name in part.sources}
    if len(found) > 1:
        raise ValueError(f"the experts of {part.name} lie in one tensor, which cannot take the types {sorted(found)}")
    return found.pop()


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    full = f"{writer.arch}.{key}"
    match value:
        case bool():
            writer.add_bool(full, value)
        case int():
            writer.add_uint32(full, value)
        case float():
            writer.add_float32(full, value)
        case _:
            writer.add_string(full, value)
