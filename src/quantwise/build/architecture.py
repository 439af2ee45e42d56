"""What one family of decoder-only models is made of: which modules are linear layers or norms, and who feeds whom.

A path is relative to its decoder block, ``*`` stands for a number of an expert.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

TensorClass = Literal["embeddings", "attention", "feed-forward", "norms", "output"]


@dataclass(frozen=True, slots=True)
class Group:
    """Linear layers (``sinks``) that read one tensor, and the module that makes it.

    Dividing a channel of the producer and multiplying that column of every sink (and of ``routers``, which stay in 16
    bit) leaves the model as it is. A norm is divided in its weight and bias; a linear producer in its ``rows``:
    all of them, those of the values in a fused qkv, or the second half of a fused gate and up. Where query heads share
    values, several channels of the sink read one row.
    """

    producer: str
    sinks: tuple[str, ...]
    routers: tuple[str, ...] = ()
    rows: Literal["all", "values", "second half"] = "all"


@dataclass(frozen=True, slots=True)
class Architecture:
    """Where the parts of one family of models lie.

    ``norm_offset`` is what a norm adds to its stored weight. ``stored`` maps pieces of module names to the names in
    the folder, where these differ. ``experts`` is the path of a module that holds all experts' matrices fused.
    """

    blocks: str
    embeddings: tuple[str, ...]
    final_norm: str
    attention: tuple[str, ...]
    feed_forward: tuple[str, ...]
    norms: tuple[str, ...]
    groups: tuple[Group, ...]
    routers: tuple[str, ...] = ()
    experts: str | None = None
    norm_offset: float = 0.0
    stored: tuple[tuple[str, str], ...] = ()
    output: str = "lm_head"
    base: str = field(default="model")

    def linear(self, path: str) -> bool:
        """Whether a path within a block is one of the linear layers that recipes quantize."""
        return _any(path, (*self.attention, *self.feed_forward))

    def placed(self, path: str) -> bool:
        """Whether a path within a block is known here."""
        return self.linear(path) or _any(path, (*self.norms, *self.routers))

    def tensor_class(self, module: str) -> TensorClass | None:
        """What a module of the whole model is, by its full name; None where it has no place."""
        if module in self.embeddings:
            return "embeddings"
        if module == self.output:
            return "output"
        if module == self.final_norm:
            return "norms"
        match = re.fullmatch(rf"{re.escape(self.blocks)}\.\d+\.(.+)", module)
        if match is None:
            return None
        if _any(match[1], self.norms):
            return "norms"
        if _any(match[1], self.attention):
            return "attention"
        return "feed-forward" if _any(match[1], (*self.feed_forward, *self.routers)) else None

    def groups_in(self, modules: Iterable[str], config: Mapping[str, Any]) -> list[Group]:
        """The groups of one block whose ``modules`` (paths) are given, with experts written out, in the order in which
        the block computes.
        """
        present = list(modules)
        before = bool(config.get("do_layer_norm_before", True))  # OPT-350m norms after its layers
        groups = [group for group in self.groups if before or group.producer not in self.norms]
        return [found for group in groups for found in _write_out(group, present)]


def _any(path: str, patterns: Sequence[str]) -> bool:
    return any(_match(pattern, path) is not None for pattern in patterns)


def _match(pattern: str, path: str) -> re.Match[str] | None:
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"(\d+)"), path)


def _write_out(group: Group, present: Sequence[str]) -> list[Group]:
    """``group`` once for each producer that is there, with the sinks that are there."""
    found = []
    for producer in present:
        match = _match(group.producer, producer)
        if match is None:
            continue
        own = [sink.replace("*", match[1]) if match.groups() else sink for sink in group.sinks]
        sinks = tuple(path for path in present if _any(path, own))
        routers = tuple(path for path in present if _any(path, group.routers))
        if sinks:
            found.append(replace(group, producer=producer, sinks=sinks, routers=routers))
    return found
