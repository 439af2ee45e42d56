"""The allocator's replay, against a slow allocator that looks at every byte, and on graphs small enough to count."""

from __future__ import annotations

import random

import pytest

from quantwise.plan.llamacpp.replay import ALIGNMENT, Graph, Node, Shape, buffer_bytes


def shape(numbers: int) -> Shape:
    return (numbers, 1, 1, 1)


def graph(*outputs: Node) -> Graph:
    made = Graph()
    for node in outputs:
        made.expand(node)
    return made


def given(numbers: int) -> Node:
    return Node("none", shape(numbers))


def test_a_chain_needs_a_tensor_and_its_source() -> None:
    node = given(8)
    for _ in range(5):
        node = Node("mul_mat", shape(8), sources=(node,))
    # Two places of 32 bytes change roles.
    assert buffer_bytes(graph(node)) == 2 * 32


def test_an_operation_may_write_over_an_input_that_nobody_else_reads() -> None:
    weight = Node("none", shape(8), external=True)
    first = Node("mul_mat", shape(8), sources=(given(32),))
    second = Node("add", shape(8), sources=(first, weight))
    assert buffer_bytes(graph(second)) == 128 + 32
    # Read again later, it stays, and the sum goes where the input was.
    first = Node("mul_mat", shape(8), sources=(given(32),))
    second = Node("add", shape(8), sources=(first, weight))
    third = Node("mul_mat", shape(32), sources=(second, first))
    assert buffer_bytes(graph(third)) == 128 + 32 + 128


def test_another_layout_is_not_written_over() -> None:
    wide = Node("mul_mat", (8, 2, 1, 1), sources=(given(8),))
    turned = Node("view", (2, 8, 1, 1), sources=(wide,), strides=(32, 4, 64, 64), view_of=wide)
    alike = Node("view", (8, 2, 1, 1), sources=(wide,), view_of=wide)
    assert buffer_bytes(graph(Node("scale", (2, 8, 1, 1), sources=(turned,)))) == 32 + 64 + 64
    assert buffer_bytes(graph(Node("scale", (8, 2, 1, 1), sources=(alike,)))) == 32 + 64


def test_external_tensors_take_no_place_and_odd_sizes_are_padded() -> None:
    weight = Node("none", shape(1000), external=True)
    assert buffer_bytes(graph(Node("mul_mat", shape(9), sources=(weight, given(1))))) == ALIGNMENT + 2 * ALIGNMENT


def test_a_result_that_nobody_reads_keeps_its_place() -> None:
    unread = Node("dup", shape(8), sources=(given(8),))
    stored = Node("set_rows", shape(8), sources=(given(8), unread), view_of=unread)
    last = Node("mul_mat", shape(8), sources=(Node("mul_mat", shape(8), sources=(given(8),)),))
    # The two inputs' places are free when the chain begins; the store's is not.
    assert buffer_bytes(graph(stored, last)) == 3 * 32 + 32


def bytewise(nodes: list[Node], leaves: list[Node]) -> int:
    """First the leaves, then node after node at the best of all gaps, found by looking at every unit of 32 bytes."""
    used: dict[int, Node] = {}
    most = 0
    readers = {id(n): sum(n is s for other in nodes for s in other.sources) for n in nodes + leaves}

    def place(node: Node) -> None:
        nonlocal most
        size = -(-node.bytes // 32)
        end = max(used, default=-1) + 1
        gaps: list[tuple[int, int]] = []
        start = None
        for unit in range(end + 1):
            free = unit not in used and unit < end
            if free and start is None:
                start = unit
            elif not free and start is not None:
                gaps.append((unit - start, start))
                start = None
        fits = [gap for gap in gaps if gap[0] >= size]
        smallest = min((length for length, _ in fits), default=0)
        at = max(begin for length, begin in fits if length == smallest) if fits else end
        used.update(dict.fromkeys(range(at, at + size), node))
        most = max(most, at + size)

    for leaf in leaves:
        place(leaf)
    for node in nodes:
        place(node)
        for source in node.sources:
            readers[id(source)] -= 1
            if not readers[id(source)]:
                for unit in [u for u, owner in used.items() if owner is source]:
                    del used[unit]
    return 32 * most


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_slow_allocator(seed: int) -> None:
    draw = random.Random(seed)
    made = [given(draw.randrange(1, 200)) for _ in range(3)]
    for _ in range(25):
        sources = tuple(draw.sample(made, draw.randrange(1, 3)))
        made.append(Node("mul_mat", shape(draw.randrange(1, 200)), sources=sources))
    last = Node("mul_mat", shape(1), sources=tuple(made))
    whole = graph(last)
    assert buffer_bytes(whole) == bytewise(whole.nodes, whole.leaves)
