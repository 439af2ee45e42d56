"""Which layers of a deep model need to be replayed: gaps between tensors repeat with the pattern of the layers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

_LONGEST = 8
_FEW = 12


def enough_layers(kinds: Sequence[Hashable]) -> list[int]:
    """Layers after whose replay nothing is new, out of the kind of every layer; all of a model of up to twelve.

    From the longest stretch in which kinds repeat, whole pairs of periods are left out: what one layer leaves behind
    may be taken by the next, so that two of the same kind can have two different buffers.
    """
    count = len(kinds)
    if count <= _FEW:
        return list(range(count))
    left_out = max((_repeated(kinds, period) for period in range(1, _LONGEST + 1)), key=len)
    return [layer for layer in range(count) if layer not in left_out]


def _repeated(kinds: Sequence[Hashable], period: int) -> range:
    """What may be left out of the longest stretch that repeats every ``period`` layers."""
    begin, longest, start = 0, 0, 0
    for layer in range(len(kinds) - period + 1):
        if layer < len(kinds) - period and kinds[layer] == kinds[layer + period]:
            continue
        if layer - start > longest:
            begin, longest = start, layer - start
        start = layer + 1
    step = math.lcm(2, period)
    spare = max(0, longest + period - max(3 * period, 6)) // step * step
    return range(begin + period, begin + period + spare)
