"""The answer of a plan in a line, as the screen, ``--json`` and the page say it alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantwise.plan.fit import size


def headline(record: Mapping[str, Any]) -> str:
    """What the chosen candidate takes of which memory, of the ``record`` of an answer."""
    fits, candidate, limit = record["fits"], record["candidate"], record["limit_bytes"]
    if fits == "unknown":
        return f"{candidate} takes {_unknown(record)}"
    total, least = record["total_bytes"], size(record["total_bytes_at_least"])
    if fits == "yes":
        return f"{candidate} fits: {size(total)} of {size(limit)}"
    if fits == "marginal":
        return f"{candidate} may fit: {least} to {size(total)} of {size(limit)}"
    return f"{_refusal(record)}: {candidate}, the smallest, takes {_taken(record)}"


def _unknown(record: Mapping[str, Any]) -> str:
    total, limit = record["total_bytes"], record["limit_bytes"]
    if limit is None:
        where = "the host's memory is unknown: name it with --host" if record["on_host"] else "the memory is unknown"
        return f"{'unknown' if total is None else size(total)}; {where}"
    if total is None:
        return f"more than {size(record['total_bytes_at_least'])} of {size(limit)}; how much more is unknown"
    return f"{size(total)} of {size(limit)}; whether the host has {size(record['host']['bytes'][1])} is unknown"


def _refusal(record: Mapping[str, Any]) -> str:
    """Settings that would do are told below, so nothing is as bad as that."""
    asked = any(fix["kind"] == "setting" for fix in record["fixes"])
    return "nothing fits as it was asked for" if asked else "nothing here fits"


def _taken(record: Mapping[str, Any]) -> str:
    """Of the memory that has no room: the site's, or the host's."""
    host, least = record["host"], record["total_bytes_at_least"]
    if least > record["limit_bytes"] or host is None:
        total = least if record["total_bytes"] is None else record["total_bytes"]
        return f"{size(total)} of {size(record['limit_bytes'])}"
    return f"{size(host['bytes'][1])} of {size(host['limit_bytes'])} on the host"
