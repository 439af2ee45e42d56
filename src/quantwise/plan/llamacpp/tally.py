"""What a GGUF file's tensors sum to by the place that they can lie in: a layer, its experts, before and behind them.

A thousand ways to split a model between devices are then sums over its layers, not over its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from quantwise.models.decoder import Decoder
from quantwise.plan.constants import LlamacppBuild
from quantwise.plan.llamacpp.file import (
    FileTensor,
    is_repacked,
    mapped_bytes,
    read_once_bytes,
    repacked_bytes,
    tied_bytes,
)

_LAYER = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Amounts:
    """Of some tensors: ``bytes``, those of second copies that the processor makes (``repacked``), those that one token
    reads (``read``: of an embedding a row, of experts those used), and those of ``matrices``.
    """

    bytes: int = 0
    repacked: int = 0
    read: int = 0
    matrices: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.bytes + other.bytes,
            self.repacked + other.repacked,
            self.read + other.read,
            self.matrices + other.matrices,
        )

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.bytes - other.bytes,
            self.repacked - other.repacked,
            self.read - other.read,
            self.matrices - other.matrices,
        )


@dataclass(frozen=True, slots=True)
class FileTally:
    """``layers`` without their experts, and ``experts``, by the layer's number. ``embedding`` is what the processor
    looks rows up in, ``outside`` all else: the output and its norm.

    ``tied`` is the embedding where it is the output matrix too, else 0. ``mapped``, ``read_once`` and
    ``repacked`` are those of a processor that has the whole file, as ``file.mapped_bytes`` and so on.
    """

    layers: Mapping[int, Amounts]
    experts: Mapping[int, Amounts]
    embedding: Amounts
    outside: Amounts
    tied: int
    mapped: int
    read_once: int
    repacked: int
    _layers_before: tuple[Amounts, ...] = field(init=False, repr=False)
    _experts_before: tuple[Amounts, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_layers_before", _before(self.layers))
        object.__setattr__(self, "_experts_before", _before(self.experts))

    def before(self, layer: int, experts: int) -> Amounts:
        """Of the layers before one, and of the experts of those before another."""
        layers, mixtures = self._layers_before, self._experts_before
        return layers[min(layer, len(layers) - 1)] + mixtures[min(experts, len(mixtures) - 1)]

    @property
    def all_layers(self) -> Amounts:
        """Of every layer, with its experts."""
        return self._layers_before[-1] + self._experts_before[-1]


def tally(decoder: Decoder, tensors: Sequence[FileTensor], build: LlamacppBuild) -> FileTally:
    """Of the tensors in the order of the file; ``decoder`` as llama.cpp computes it."""
    layers: dict[int, Amounts] = {}
    experts: dict[int, Amounts] = {}
    embedding = outside = Amounts()
    for tensor in tensors:
        found = _LAYER.match(tensor.name)
        if found is not None:
            to, number = experts if "_exps." in tensor.name else layers, int(found[1])
            to[number] = to.get(number, Amounts()) + _amounts(tensor, _read(tensor, decoder, number), build)
        elif tensor.name.startswith("token_embd"):
            embedding += _amounts(tensor, tensor.bytes // max(decoder.vocab, 1), build)
        else:
            outside += _amounts(tensor, tensor.bytes, build)
    return FileTally(
        layers=layers,
        experts=experts,
        embedding=embedding,
        outside=outside,
        tied=tied_bytes(tensors),
        mapped=mapped_bytes(tensors, build),
        read_once=read_once_bytes(tensors, build),
        repacked=repacked_bytes(tensors, build),
    )


def _before(layers: Mapping[int, Amounts]) -> tuple[Amounts, ...]:
    """Sums of the first 0, 1, 2 ... layers."""
    count = max(layers, default=-1) + 1
    return tuple(accumulate((layers.get(i, Amounts()) for i in range(count)), initial=Amounts()))


def _amounts(tensor: FileTensor, read: int, build: LlamacppBuild) -> Amounts:
    size = tensor.bytes
    return Amounts(size, size if is_repacked(tensor, build) else 0, read, size if len(tensor.shape) > 1 else 0)


def _read(tensor: FileTensor, decoder: Decoder, number: int) -> int:
    if "_exps." not in tensor.name or number >= len(decoder.layers):
        return tensor.bytes
    layer = decoder.layers[number]
    return tensor.bytes * layer.experts_used // max(layer.experts, 1)
