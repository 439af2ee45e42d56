"""The tensors of a model by name, where experts that differ in their number alone are kept as one row.

A mixture of 256 experts has 45,000 tensors, and about a thousand rows: what is counted over a model is counted by rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]

_FIRST = ".experts.0."


@dataclass(frozen=True, slots=True)
class Alike:
    """``count`` tensors of one shape. ``name`` is the first one's; the others have ``.experts.1.`` and so on in it."""

    name: str
    shape: Shape
    count: int = 1

    @property
    def numbers(self) -> int:
        """In all of them."""
        return self.count * math.prod(self.shape)

    @property
    def names(self) -> Iterator[str]:
        """Of all of them."""
        if self.count == 1:
            yield self.name
            return
        before, _, after = self.name.partition(_FIRST)
        for number in range(self.count):
            yield f"{before}.experts.{number}.{after}"


class TensorTable(Mapping[str, Shape]):
    """Shapes by name, as any mapping; ``rows`` in the order of their first names."""

    def __init__(self, rows: Iterable[Alike]) -> None:
        # Of two rows of one name the later counts, as in any mapping.
        self._by_first = {row.name: row for row in rows}
        self.rows = tuple(self._by_first.values())

    @classmethod
    def of(cls, tensors: Mapping[str, Shape]) -> TensorTable:
        """A table of the same tensors. Experts are one row where they have one shape and are numbered from 0 on."""
        if isinstance(tensors, cls):
            return tensors
        experts: dict[str, dict[str, Shape]] = {}
        for name, shape in tensors.items():
            first = first_expert(name)
            if first is not None:
                experts.setdefault(first, {})[name] = shape
        rows: list[Alike] = []
        for name, shape in tensors.items():
            first = first_expert(name)
            others = {} if first is None else experts[first]
            row = Alike(first or name, shape, len(others))
            if first is None or set(others.values()) != {shape} or set(row.names) != others.keys():
                rows.append(Alike(name, shape))
            elif name == next(iter(others)):
                rows.append(row)
        return cls(rows)

    def __getitem__(self, name: str) -> Shape:
        row = self._by_first.get(name)
        if row is not None:
            return row.shape
        first = first_expert(name)
        row = None if first is None else self._by_first.get(first)
        if row is None or int(name.partition(".experts.")[2].partition(".")[0]) >= row.count:
            raise KeyError(name)
        return row.shape

    def __iter__(self) -> Iterator[str]:
        for row in self.rows:
            yield from row.names

    def __len__(self) -> int:
        return sum(row.count for row in self.rows)

    @property
    def numbers(self) -> int:
        """In all tensors."""
        return sum(row.numbers for row in self.rows)


def first_expert(name: str) -> str | None:
    """The name of the first expert's tensor of the same kind; None for what belongs to no numbered expert."""
    before, found, rest = name.partition(".experts.")
    number, dot, after = rest.partition(".")
    # No model has a million experts, and a number may have as many digits as a hostile header likes.
    if not found or not dot or len(number) > 6 or not number.isdecimal() or str(int(number)) != number:
        return None
    return f"{before}{_FIRST}{after}"
