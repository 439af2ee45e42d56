"""A site: where a model runs. What is not known of it is None or missing, and is never guessed.

Rates are dense: vendors print twice as much where every other weight is zero ("with sparsity"), which no quantized
model here is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from quantwise.core.errors import InputError

RATE_TYPES = ("fp32", "fp16", "bf16", "fp8", "int8", "fp4", "int4")
"""Number types that a matrix unit may multiply: what both factors are, whatever it adds up in."""

SITE_KINDS = ("gpu", "unified", "cpu")


@dataclass(frozen=True, slots=True)
class Site:
    """Where it will run; ``devices`` of them alike, each with what stands here.

    ``memory_bytes`` None means the machine that the planner runs on; ``usable`` is the share of it that a model may
    take (1: all). ``bandwidth`` is of that memory, ``bus`` from the host's memory into it, ``link`` from one device to
    its neighbours: bytes per second, in one direction. ``rates`` are operations per second (a multiplication and an
    addition are two), dense, by number type; ``lacks`` names the types that the hardware does not multiply: they are
    expanded to another type first. A type in neither is unknown. ``watts`` is the most that a device draws,
    ``price_per_hour`` in US dollars for one device.

    ``source`` says where the figures come from, ``sources`` where single ones do, each with its date.
    """

    name: str = "this machine"
    memory_bytes: int | None = None
    kind: str | None = None
    usable: float = 1.0
    devices: int = 1
    bandwidth: float | None = None
    bus: float | None = None
    link: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    watts: float | None = None
    price_per_hour: float | None = None
    source: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError("site name must be a text")
        for name, value in (("memory_bytes", self.memory_bytes), ("devices", self.devices)):
            if value is not None and not _whole(value):
                raise InputError(f"site {name} must be a whole number of at least 1, not {value!r:.40}")
        if self.kind is not None and self.kind not in SITE_KINDS:
            raise InputError(f"site kind must be one of {', '.join(SITE_KINDS)}, not {self.kind!r:.40}")
        if not _positive(self.usable) or self.usable > 1:
            raise InputError(f"site usable must be a share above 0 and at most 1, not {self.usable!r:.40}")
        for name in ("bandwidth", "bus", "link", "watts", "price_per_hour"):
            if (amount := getattr(self, name)) is not None and not _positive(amount):
                raise InputError(f"site {name} must be a number above 0, not {amount!r:.40}")
        self._check_rates()
        for name, text in (("source", self.source), ("note", self.note)):
            if not isinstance(text, str):
                raise InputError(f"site {name} must be a text")
        self._check_sources()

    def _check_rates(self) -> None:
        if not isinstance(self.rates, Mapping):
            raise InputError("site rates must be a table of number types and operations per second")
        if not isinstance(self.lacks, tuple):
            raise InputError("site lacks must be a list of number types")
        for name in (*self.rates, *self.lacks):
            if name not in RATE_TYPES:
                raise InputError(f"unknown number type {name!r:.40} in a site; types: {', '.join(RATE_TYPES)}")
        for name, rate in self.rates.items():
            if not _positive(rate):
                raise InputError(f"site rate of {name} must be operations per second above 0, not {rate!r:.40}")
            if name in self.lacks:
                raise InputError(f"site has a rate of {name} and lacks it; keep one of the two")

    def _check_sources(self) -> None:
        if not isinstance(self.sources, Mapping):
            raise InputError("site sources must be a table of fields and texts")
        known = {f.name for f in fields(self)}
        for name, text in self.sources.items():
            if name not in known or not isinstance(text, str):
                raise InputError(f"site sources must name fields of the site and say a text, not {name!r:.40}")

    @property
    def limit_bytes(self) -> int | None:
        """Bytes that a model may take of one device."""
        return None if self.memory_bytes is None else int(self.memory_bytes * self.usable)

    def source_of(self, name: str) -> str:
        """Where the figure of a field comes from."""
        return self.sources.get(name, self.source)

    def to_json(self) -> dict[str, Any]:
        """Name, memory and what else is said; what is left at its default is left out."""
        record: dict[str, Any] = {"name": self.name, "memory_bytes": self.memory_bytes}
        for f in fields(self)[2:]:
            value = getattr(self, f.name)
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            if value != default:
                plain = list(value) if isinstance(value, tuple) else value
                record[f.name] = dict(plain) if isinstance(plain, Mapping) else plain
        return record


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
