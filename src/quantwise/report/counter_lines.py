"""What meters and a server's own counters told, in a sentence: whose energy it is, and how paged caches were used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantwise.report.notation import UNKNOWN, count, share

_METERS = {
    ("cpu", "gpu"): "processors and NVIDIA GPUs of this machine, with whatever else ran on them",
    ("cpu",): "processors of this machine alone: no NVIDIA GPU told anything",
    ("gpu",): "NVIDIA GPUs of this machine alone: its processors told nothing",
}


def energy_of(record: Mapping[str, Any]) -> str | None:
    """Whose energy ``joules_per_item`` is; None where no meter told anything."""
    return _METERS.get(tuple(record.get("energy_meters") or ()))


def cache_lines(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(candidate, what its server counted of its paged cache), of those whose server counts."""
    return [(str(c["name"]), _used(c["cache_use"])) for c in record.get("candidates") or () if c.get("cache_use")]


def _used(use: Mapping[str, Any]) -> str:
    found = f"{share(use.get('prefix_cache_hit_rate'))} of prompt tokens found there"
    on = use.get("prefix_caching")
    prefixes = UNKNOWN if on is None else f"on, {found}" if on else "off"
    return (
        f"at most {count(use.get('most_blocks_seen'))} of {count(use.get('blocks'))} blocks of "
        f"{count(use.get('block_tokens'))} tokens seen in use, prefix caching {prefixes}, "
        f"requests preempted {count(use.get('preemptions'))}"
    )
