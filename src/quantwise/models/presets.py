"""Published models by name, for planning without their weights.

Each row is the config.json of the hub id beside it (the language model's part where there are several modalities). That
they are copied right is tested by the exact counts of parameters that the hub shows for their weights.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder
from quantwise.models.from_config import decoder_of
from quantwise.models.preset_rows import GROUPS, Group

_NEAREST = 8


@dataclass(frozen=True, slots=True)
class Preset:
    """``config`` as its ``source``, a hub id, publishes it: the keys that shapes follow from."""

    name: str
    source: str
    config: Mapping[str, Any]


def preset_decoder(name: str) -> Decoder:
    """The decoder of a preset. Raises InputError that lists names like it where there is none."""
    key = name.strip().lower()
    if key not in PRESETS:
        same = [known for known in PRESETS if known.split("-")[0] == key.split("-")[0]] or list(PRESETS)
        shown = ", ".join(same[:_NEAREST])
        raise InputError(f"unknown preset {name!r:.60}; there are {shown}{', ...' if len(same) > _NEAREST else ''}")
    return _decoder(key)


@functools.cache
def _decoder(key: str) -> Decoder:
    """A plan asks for the same presets again and again, to offer them instead."""
    return decoder_of(PRESETS[key].config, key, f"preset {key}")


def _presets(group: Group) -> Iterator[Preset]:
    keys = group.columns.split()
    for row in group.rows.strip().splitlines():
        name, source, *cells = row.split()
        values = {key: _cell(cell) for key, cell in zip(keys, cells, strict=True) if cell != "-"}
        yield Preset(name, source, {**group.config, **values})


def _cell(text: str) -> Any:
    if text == "llama3":
        return {"rope_type": text}
    if text.isdigit():
        return int(text)
    return {"yes": True, "no": False, "none": None}[text]


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {preset.name: preset for group in GROUPS for preset in _presets(group)}
)
