"""Named terms of memory: how many bytes, on which device, and where the figure comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantwise.plan.constants import ByteInterval

Device = Literal["cpu", "gpu"]
READ_ONCE = "read once"
"""The term of pages of a file that a process has mapped and does not read again: resident while there is room, and
taken back by the system without loss where there is none.
"""


@dataclass(frozen=True, slots=True)
class Term:
    """Bytes between ``low`` and ``high`` on one device, what they are for, and where the figure comes from."""

    name: str
    device: Device
    low: int
    high: int
    source: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Every term of a server."""

    terms: tuple[Term, ...]

    def on(self, device: Device) -> tuple[int, int]:
        """Bytes of one device, (low, high)."""
        here = [term for term in self.terms if term.device == device]
        return sum(term.low for term in here), sum(term.high for term in here)

    def of(self, name: str, device: Device | None = None) -> tuple[int, int]:
        """Bytes of one term, (low, high), on one device or on all."""
        here = [term for term in self.terms if term.name == name and device in (None, term.device)]
        return sum(term.low for term in here), sum(term.high for term in here)


def exactly(name: str, device: Device, amount: int, source: str) -> Term:
    """A term that is known to the byte."""
    return Term(name, device, amount, amount, source)


def between(name: str, device: Device, found: ByteInterval) -> Term:
    """A term that is known to lie in an interval."""
    return Term(name, device, found.low, found.high, found.source)
