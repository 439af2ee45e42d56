"""Artifacts and candidates: what could be shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FormatName = Literal["safetensors", "compressed-tensors", "gptq", "awq", "bitsandbytes", "gguf", "server"]


@dataclass(frozen=True, slots=True)
class Degradation:
    """A numeric retreat inside a tool that must be seen: a damped Cholesky, a layer left in 16 bit."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """Bytes that a runtime can load, known by their content hash; or a running server, known by its address.

    ``location`` is a file, a folder or a URL. ``recipe`` is None for what a user brought. ``notes`` are what its making
    measured, as JSON values: the divergence expected of a mix of types and that of the whole, for example.
    """

    location: str
    format: FormatName
    hash: str
    bytes: int | None
    recipe: str | None = None
    bits_per_weight: float | None = None
    build_seconds: float | None = None
    degradations: tuple[Degradation, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Artifact + runtime + cache scheme, named before the artifact exists: ``gptq:int4-g64@transformers``.

    ``source`` is a recipe, a path or a URL. ``control`` marks the negative control, which is measured and never
    shipped.
    ``computes_as_stored`` is False where weights or cache are stored small and expanded first (a quality verdict only).
    ``stands_for`` names the baseline that has no room here, of a baseline that is compared with in its place.
    ``model`` is the name of its model where a question has several; ``q4:q8_0@llamacpp`` is then q8_0 of the model q4.
    """

    source: str
    runtime: str
    cache: str = "f16"
    baseline: bool = False
    control: bool = False
    computes_as_stored: bool = True
    stands_for: str = ""
    model: str = ""

    @property
    def name(self) -> str:
        """The candidate as a person writes it."""
        cache = "" if self.cache == "f16" else f",kv={self.cache}"
        model = f"{self.model}:" if self.model else ""
        return f"{model}{self.source}@{self.runtime}{cache}"

    @property
    def shippable(self) -> bool:
        """Whether a PASS could end in shipping it, so that it counts for multiplicity."""
        return not (self.baseline or self.control) and self.computes_as_stored
