"""What a build works on at a time: the blocks of a model, by the names in its headers, and their matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from quantwise.formats.safetensors_header import TensorEntry

# Projections that read one input; anything else reads its own.
_SHARED = {
    "q_proj": "qkv",
    "k_proj": "qkv",
    "v_proj": "qkv",
    "gate_proj": "up",
    "up_proj": "up",
    "w1": "up",
    "w3": "up",
}
_EXPERT = re.compile(r"\.experts\.\d+\.")
_BLOCK = re.compile(r"^(.*?\.)?(\d+)\.(.+)$")


class ModelParts:
    """Sizes of a model's parts, by the names in its headers: a block is what shares the first number."""

    def __init__(self, entries: Mapping[str, TensorEntry]) -> None:
        blocks: dict[int, dict[str, TensorEntry]] = {}
        outside: dict[str, TensorEntry] = {}
        for name, entry in entries.items():
            found = block_of(name)
            if found is None:
                outside[name] = entry
            else:
                blocks.setdefault(found[0], {})[found[1]] = entry
        self.entries, self.blocks = entries, list(blocks.values())
        self.largest = max(self.blocks, key=weights_of, default={})
        self.outside = max((math.prod(entry.shape) for entry in outside.values()), default=0)
        tables = [e.shape[1] for e in outside.values() if len(e.shape) == 2]
        self.hidden = max(tables, default=max((c for _, c in matrices_of(self.largest)), default=0))

    @property
    def weights(self) -> int:
        """How many numbers there are."""
        return sum(math.prod(entry.shape) for entry in self.entries.values())

    @property
    def bytes(self) -> int:
        """As stored."""
        return sum(entry.bytes for entry in self.entries.values())


def block_of(name: str) -> tuple[int, str] | None:
    """The number of the block that a tensor is of, and what stands behind it; None where there is none."""
    found = _BLOCK.match(name)
    return (int(found[2]), found[3]) if found else None


def weights_of(block: Mapping[str, TensorEntry]) -> int:
    """How many numbers there are."""
    return sum(math.prod(entry.shape) for entry in block.values())


def matrices_of(block: Mapping[str, TensorEntry]) -> list[tuple[int, int]]:
    """Rows and columns of what has two dimensions."""
    return [(entry.shape[0], entry.shape[1]) for entry in block.values() if len(entry.shape) == 2]


def choices_of(block: Mapping[str, TensorEntry]) -> int:
    """Matrices that ``auto`` gives a type of their own: experts share one."""
    return len({_EXPERT.sub(".experts.", name) for name, entry in block.items() if len(entry.shape) == 2})


def inputs_of(block: Mapping[str, TensorEntry]) -> list[int]:
    """The width of every distinct input of a block's matrices."""
    found = {}
    for name, entry in block.items():
        path = name.removesuffix(".weight").split(".")
        if len(entry.shape) == 2 and path[-1] != "gate":  # a router, which stays in 16 bit
            found[".".join((*path[:-1], _SHARED.get(path[-1], path[-1])))] = entry.shape[1]
    return list(found.values())
