"""The bytes of a GGUF header, taken apart from front to back without trusting one of its numbers.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: magic, version, counts of tensors and
keys; keys with typed values; for each tensor its name, dimensions, type and offset; padding; data. Every length is held
against what a model can have, so that a hostile header neither allocates much nor takes long.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

VERSIONS = (2, 3)
_STRING, _ARRAY, _BOOL = 8, 9, 7
# Formats of values by their type: integers and floats of 8 to 64 bits, and bool.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
# The largest vocabularies have 262,144 tokens and half a million merges, the largest models some thousand tensors.
_MOST_KEYS, _MOST_TENSORS, _MOST_STRINGS = 1 << 14, 1 << 16, 1 << 21
_LONGEST_NAME, _LONGEST_STRING, _LONGEST_ARRAY = 1 << 16, 1 << 24, 1 << 28
# Arrays with a value for each layer are kept; vocabularies are not, unless they are asked for.
_MOST_KEPT = 4096
_MOST_DIMENSIONS = 4
_CHUNK = 1 << 18


class Broken(Exception):
    """The header is none; the message says why in some words."""


class Short(Exception):
    """The bytes end before the header does."""


@dataclass(frozen=True, slots=True)
class Described:
    """One tensor as the header describes it: ``dimensions`` fastest first, ``offset`` into the data."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class WireHeader:
    """All of a header. ``keys`` are single values, ``arrays`` those that are short or wanted; it ends at ``end``."""

    keys: dict[str, Any]
    arrays: dict[str, list[Any]]
    tensors: list[Described]
    end: int


def parse(read: Callable[[int], bytes], wanted: frozenset[str] = frozenset()) -> WireHeader:
    """Parse what ``read`` gives, which returns at most as many bytes as it is asked for and fewer only at the end.

    ``wanted`` are keys of arrays that are kept however long. Raises Broken for a header that is none, Short where the
    bytes end too early.
    """
    source = _Source(read)
    if source.take(4) != b"GGUF":
        raise Broken("it begins otherwise")
    version = source.number("I")
    if version not in VERSIONS:
        big = " (its numbers have the big end first)" if version & 0xFFFF == 0 and version else ""
        raise Broken(f"version {version} of the format is not read here{big}; {VERSIONS} are: convert it anew")
    tensors, count = source.number("Q"), source.number("Q")
    if tensors > _MOST_TENSORS or count > _MOST_KEYS:
        raise Broken(f"it claims {tensors} tensors and {count} keys, which no model has")
    keys: dict[str, Any] = {}
    arrays: dict[str, list[Any]] = {}
    for _ in range(count):
        name = source.name("key")
        if name in keys or name in arrays:
            raise Broken(f"key {name!r:.60} comes twice")
        kind = source.number("I")
        if kind == _ARRAY:
            arrays[name] = source.array(keep=name in wanted)
        else:
            keys[name] = source.value(kind)
    described = [source.tensor() for _ in range(tensors)]
    return WireHeader(keys, {name: found for name, found in arrays.items() if found}, described, source.place)


class _Source:
    """A place in the bytes that only goes forward; a window of them is held."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._data, self._at, self._before = read, b"", 0, 0
        self._strings = 0

    @property
    def place(self) -> int:
        return self._before + self._at

    def _hold(self, count: int) -> None:
        if self._at + count <= len(self._data):
            return
        self._before += self._at
        rest = self._data[self._at :]
        self._data, self._at = rest + self._read(max(count - len(rest), _CHUNK)), 0
        if len(self._data) < count:
            raise Short

    def take(self, count: int) -> bytes:
        self._hold(count)
        self._at += count
        return self._data[self._at - count : self._at]

    def skip(self, count: int) -> None:
        while count > 0:
            step = min(count, _CHUNK)
            self._hold(step)
            self._at += step
            count -= step

    def number(self, kind: str) -> int:
        return int(struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0])

    def text(self, longest: int) -> str:
        length = self.number("Q")
        if length > longest:
            raise Broken(f"a text of {length} bytes is longer than any model has")
        # Vocabularies hold pieces of characters.
        return self.take(length).decode("utf-8", "replace")

    def name(self, what: str) -> str:
        name = self.text(_LONGEST_NAME)
        if not name:
            raise Broken(f"a {what} has no name")
        return name

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text(_LONGEST_STRING)
        if kind not in _SCALARS:
            raise Broken(f"it holds a value of unknown type {kind}")
        form = "<" + _SCALARS[kind]
        found = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return bool(found) if kind == _BOOL else found

    def array(self, *, keep: bool) -> list[Any]:
        """Its values where they are numbers and few, or where ``keep``; else nothing."""
        kind, count = self.number("I"), self.number("Q")
        if kind == _STRING:
            self._strings += count
            if self._strings > _MOST_STRINGS:
                raise Broken(f"it claims {self._strings} texts, which no vocabulary has")
            if keep:
                return [self.text(_LONGEST_STRING) for _ in range(count)]
            self._skip_texts(count)
            return []
        if kind not in _SCALARS:
            raise Broken(
                "it holds arrays within arrays" if kind == _ARRAY else f"it holds values of unknown type {kind}"
            )
        form = _SCALARS[kind]
        size = struct.calcsize(form)
        if count * size > _LONGEST_ARRAY:
            raise Broken(f"an array of {count} values is longer than any model has")
        if not keep and count > _MOST_KEPT:
            self.skip(count * size)
            return []
        found = struct.unpack(f"<{count}{form}", self.take(count * size))
        return [bool(value) for value in found] if kind == _BOOL else list(found)

    def _skip_texts(self, count: int) -> None:
        lengths = struct.Struct("<Q")
        for _ in range(count):
            if self._at + 8 > len(self._data):
                self._hold(8)
            (length,) = lengths.unpack_from(self._data, self._at)
            if length > _LONGEST_STRING:
                raise Broken(f"a text of {length} bytes is longer than any model has")
            self._at += 8
            if self._at + length > len(self._data):
                self._hold(length)
            self._at += length

    def tensor(self) -> Described:
        name = self.name("tensor")
        count = self.number("I")
        if not 1 <= count <= _MOST_DIMENSIONS:
            raise Broken(f"tensor {name!r:.60} has {count} dimensions")
        dimensions = struct.unpack(f"<{count}Q", self.take(8 * count))
        kind, offset = self.number("I"), self.number("Q")
        return Described(name, dimensions, kind, offset)
