"""What meters told, in a sentence: of which devices the energy is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_METERS = {
    ("cpu", "gpu"): "processors and NVIDIA GPUs of this machine, with whatever else ran on them",
    ("cpu",): "processors of this machine alone: no NVIDIA GPU told anything",
    ("gpu",): "NVIDIA GPUs of this machine alone: its processors told nothing",
}


def energy_of(record: Mapping[str, Any]) -> str | None:
    """Whose energy ``joules_per_item`` is; None where no meter told anything."""
    return _METERS.get(tuple(record.get("energy_meters") or ()))
