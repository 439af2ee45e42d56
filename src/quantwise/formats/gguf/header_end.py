"""Where the header of a GGUF file ends, from its first bytes: for files of which only a part is here.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: magic, version, counts of tensors and
keys; keys with typed values; for each tensor its name, dimensions, type and offset.
"""

from __future__ import annotations

import struct

from quantwise.core.errors import InputError

_STRING, _ARRAY = 8, 9
# Bytes of a value by its type: integers and floats of 8 to 64 bits, and bool.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_VERSIONS = (2, 3)
# Arrays within arrays; no writer goes beyond two.
_DEEPEST = 4


class _Short(Exception):
    """No error: more bytes are needed."""


def gguf_header_end(first: bytes) -> int | None:
    """Bytes up to the end of the last tensor's description, or None where ``first`` is too short to tell.

    Raises InputError where this is no GGUF file of version 2 or 3.
    """
    walk = _Walk(first)
    try:
        if walk.take(4) != b"GGUF":
            raise InputError("not a GGUF file (it begins otherwise); choose another file")
        if (version := walk.number("<I")) not in _VERSIONS:
            raise InputError(f"GGUF version {version} is not read here; versions {_VERSIONS} are: convert it anew")
        tensors, keys = walk.number("<Q"), walk.number("<Q")
        for _ in range(keys):
            walk.string()
            walk.value(walk.number("<I"))
        for _ in range(tensors):
            walk.string()
            walk.skip(8 * walk.number("<I") + 4 + 8)
        return walk.at
    except _Short:
        return None


class _Walk:
    """A place in the bytes that only goes forward."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self.data):
            raise _Short

    def take(self, count: int) -> bytes:
        self.skip(count)
        return self.data[self.at - count : self.at]

    def number(self, kind: str) -> int:
        self.skip(struct.calcsize(kind))
        return int(struct.unpack_from(kind, self.data, self.at - struct.calcsize(kind))[0])

    def string(self) -> None:
        self.skip(self.number("<Q"))

    def value(self, kind: int, depth: int = 0) -> None:
        if kind == _STRING:
            self.string()
        elif kind == _ARRAY and depth < _DEEPEST:
            inner, count = self.number("<I"), self.number("<Q")
            if inner in _SIZES:
                self.skip(_SIZES[inner] * count)
                return
            for _ in range(count):
                self.value(inner, depth + 1)
        elif kind in _SIZES:
            self.skip(_SIZES[kind])
        else:
            raise InputError(f"damaged: its header holds a value of unknown type {kind}; choose another file")
