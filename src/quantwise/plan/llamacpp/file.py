"""What a GGUF file holds, tensor by tensor, and which of it llama.cpp maps, copies or reads in another order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from quantwise.formats.gguf.header import GgufTensor
from quantwise.formats.gguf.mixes import MixedModel, ggml_types, tensor_bytes
from quantwise.models.decoder import Decoder
from quantwise.plan.constants import LlamacppBuild
from quantwise.plan.llamacpp.model import as_llamacpp


class FileTensor(Protocol):
    """One tensor: of a file's header (``formats.gguf.header``), or of a table (``plan.weight_table``)."""

    @property
    def name(self) -> str:
        """As in the file."""
        ...

    @property
    def type(self) -> str:
        """ggml's name in lower case, or ``stored`` where only its bytes are known."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Slowest dimension first."""
        ...

    @property
    def bytes(self) -> int:
        """Of its data."""
        ...


ALIGNMENT = 32
"""Of a tensor's data in the file, unless the file says otherwise (ggml/docs/gguf.md)."""


def tensors_of_mix(decoder: Decoder, mix: str, *, importance: bool = False) -> list[GgufTensor]:
    """The tensors of a file that is not written yet, as llama-quantize names their types for ``mix``."""
    decoder = as_llamacpp(decoder)
    shapes = decoder.tensors
    attention = next((layer.attention for layer in decoder.layers if layer.attention), None)
    shared = attention.heads // max(attention.kv_heads, 1) if attention else 1
    experts = max((layer.experts for layer in decoder.layers), default=0)
    model = MixedModel(len(decoder.layers), shared, experts, decoder.architecture)
    types = ggml_types(shapes, mix, model, importance=importance)
    return [GgufTensor(name, types[name], shape, tensor_bytes(shape, types[name])) for name, shape in shapes.items()]


def file_bytes(header: int, tensors: Sequence[FileTensor]) -> int:
    """Bytes of a file whose first tensor starts at ``header``; every tensor is padded."""
    return header + sum(_padded(tensor.bytes) for tensor in tensors)


def is_repacked(tensor: FileTensor, build: LlamacppBuild) -> bool:
    """Whether the processor reads a copy of it in an order of its own (ggml/src/ggml-cpu/repack.cpp).

    Only what is multiplied by is: two dimensions, or three for experts, and rows in groups of eight.
    """
    if not _repackable(tensor, build) or not tensor.name.endswith(".weight") or tensor.shape[-2] % 8:
        return False
    dimensions = 3 if tensor.name.endswith("_exps.weight") else 2
    return len(tensor.shape) == dimensions and not tensor.name.startswith(("token_embd", "position_embd"))


def repacked_bytes(tensors: Sequence[FileTensor], build: LlamacppBuild) -> int:
    """Bytes of the second copies, beside the mapped file. A tied output matrix is one of them where its type is."""
    copies = sum(tensor.bytes for tensor in tensors if is_repacked(tensor, build))
    tied = [t for t in _tied_output(tensors) if _repackable(t, build) and t.shape[-2] % 8 == 0]
    return copies + sum(tensor.bytes for tensor in tied)


def mapped_bytes(tensors: Sequence[FileTensor], build: LlamacppBuild) -> int:
    """Bytes from the first to the last tensor that is read where it lies in the file."""
    offset, first, last = 0, -1, 0
    for tensor in tensors:
        if not is_repacked(tensor, build):
            first, last = (offset if first < 0 else first), offset + tensor.bytes
        offset += _padded(tensor.bytes)
    return last - max(first, 0)


def read_once_bytes(tensors: Sequence[FileTensor], build: LlamacppBuild) -> int:
    """Of ``mapped_bytes`` those of tensors that are read only once, to be repacked: nothing reads these pages again."""
    found = since = 0
    started = False
    for tensor in tensors:
        if is_repacked(tensor, build):
            since += _padded(tensor.bytes)
        else:
            found += since if started else 0
            since, started = 0, True
    return found


def _tied_output(tensors: Sequence[FileTensor]) -> list[FileTensor]:
    if any(tensor.name == "output.weight" for tensor in tensors):
        return []
    return [tensor for tensor in tensors if tensor.name == "token_embd.weight"]


def tied_bytes(tensors: Sequence[FileTensor]) -> int:
    """Bytes of the embedding where it is the output matrix too: a GPU that computes the output has its own copy."""
    return sum(tensor.bytes for tensor in _tied_output(tensors))


def _repackable(tensor: FileTensor, build: LlamacppBuild) -> bool:
    if tensor.type != "stored":
        return tensor.type in build.repacked
    # Of all types, those that are repacked are the ones of 4.5 bit a weight, but for MXFP4.
    return bool(build.repacked) and 16 * tensor.bytes == 9 * math.prod(tensor.shape)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
