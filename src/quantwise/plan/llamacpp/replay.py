"""How large ggml makes the buffer that a graph computes in: its allocator, replayed on the graph's shapes.

A tensor gets its place when it is computed and gives it back after its last reader; some operations write over their
input. The place is the smallest gap that suffices, else the end. What has been the furthest end is the buffer. Written
after the rules of ggml/src/ggml-alloc.c and of ``ggml_build_forward_expand`` (ggml/src/ggml.c), 2026, and checked
against sizes that llama.cpp logs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

ALIGNMENT = 32
"""Of every tensor in a buffer of the CPU, in bytes (ggml/src/ggml-impl.h)."""

Shape = tuple[int, int, int, int]
# What may take the place of an input of the same layout (``ggml_op_can_inplace``).
_OVERWRITES = frozenset({"scale", "add", "add_id", "mul", "div", "unary", "rms_norm", "clamp", "soft_max"})


@dataclass(slots=True, eq=False)
class Node:
    """A tensor of a graph: its ``shape``, fastest dimension first, bytes of a number (``width``), ``strides`` in bytes.

    ``view_of`` is the tensor whose bytes a view reads. ``external`` tensors (weights, caches) lie in buffers of
    their own. Inputs are leaves: their operation is ``none``.
    """

    operation: str
    shape: Shape
    width: int = 4
    sources: tuple[Node, ...] = ()
    strides: tuple[int, ...] = ()
    view_of: Node | None = None
    external: bool = False
    children: int = field(default=0, init=False)
    views: int = field(default=0, init=False)
    place: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.strides:
            self.strides = contiguous(self.shape, self.width)

    @property
    def bytes(self) -> int:
        """Of a contiguous tensor."""
        return math.prod(self.shape) * self.width

    @property
    def is_contiguous(self) -> bool:
        """Whether its numbers lie one behind the other."""
        return self.strides == contiguous(self.shape, self.width)


def contiguous(shape: Shape, width: int) -> tuple[int, ...]:
    """Strides in bytes of a tensor without gaps."""
    first, second, third, _ = shape
    row = width * first
    return width, row, row * second, row * second * third


class Graph:
    """Nodes in the order in which ggml computes them: sources first, left to right."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.leaves: list[Node] = []
        self._seen: set[int] = set()

    def expand(self, node: Node) -> None:
        """Add a node and all that it needs."""
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        for source in node.sources:
            if id(source) not in self._seen:
                self.expand(source)
        (self.leaves if node.operation == "none" else self.nodes).append(node)


class _Gaps:
    """Free ranges below an end without limit, as [offset, size], by offset. ``most`` is the furthest end so far."""

    def __init__(self) -> None:
        self._free: list[list[int]] = [[0, 1 << 62]]
        self.most = 0

    def take(self, size: int) -> int:
        """The offset of the smallest gap that holds ``size`` bytes; of equal ones the last."""
        fitting = [i for i, (_, room) in enumerate(self._free[:-1]) if room >= size]
        best = min(reversed(fitting), key=lambda i: self._free[i][1], default=len(self._free) - 1)
        offset, room = self._free[best]
        self._free[best] = [offset + size, room - size]
        if room == size:
            del self._free[best]
        self.most = max(self.most, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        """Free a range, joined with the gaps that it touches."""
        at = next(i for i, (start, _) in enumerate(self._free) if start > offset)
        self._free.insert(at, [offset, size])
        for i in (at, at - 1):
            if i >= 0 and sum(self._free[i]) == self._free[i + 1][0]:
                self._free[i][1] += self._free[i + 1][1]
                del self._free[i + 1]


class _Replay:
    def __init__(self, graph: Graph) -> None:
        self.gaps = _Gaps()
        for leaf in graph.leaves:
            self._allocate(leaf)
        for node in graph.nodes:
            if node.view_of is not None:
                node.view_of.views += 1
            for source in node.sources:
                source.children += 1
        for node in graph.nodes:
            self._allocate(node)
            for source in node.sources:
                self._release(source)

    def _allocate(self, node: Node) -> None:
        if node.external or node.view_of is not None or node.place is not None:
            return
        if node.operation in _OVERWRITES and self._overwrite(node):
            return
        node.place = self.gaps.take(_padded(node.bytes))

    def _overwrite(self, node: Node) -> bool:
        """Whether a source that nobody else reads leaves its place to the node."""
        for source in node.sources:
            owner = source.view_of or source
            if owner.place is None or (source.shape, source.strides) != (node.shape, node.strides):
                continue
            if source.children != 1 or source.views:
                continue
            if source.view_of is not None and (owner.views != 1 or owner.children):
                continue
            node.place, owner.place = owner.place, None
            if (spare := _padded(owner.bytes) - _padded(node.bytes)) > 0:
                self.gaps.give(node.place + _padded(node.bytes), spare)
            return True
        return False

    def _release(self, source: Node) -> None:
        source.children -= 1
        if source.children or source.views:
            return
        owner = source
        if source.view_of is not None:
            owner = source.view_of
            owner.views -= 1
        if owner.place is not None and not owner.children and not owner.views:
            self.gaps.give(owner.place, _padded(owner.bytes))
            owner.place = None


def buffer_bytes(graph: Graph) -> int:
    """Bytes of the buffer that holds every tensor of the graph for as long as it is needed."""
    return _Replay(graph).gaps.most


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
