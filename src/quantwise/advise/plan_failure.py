"""Which failure of the field a plan that does not fit would end in, told with the plan's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantwise.advise.failures import Case, failures, told
from quantwise.scenarios.site import Site

# Where a token reads less than this of all weights, it is experts that fill the memory.
_MOST_ACTIVE = 0.6


def plan_failure(record: Mapping[str, Any], site: Site) -> dict[str, str] | None:
    """``name`` of the failure and ``case``, a sentence, for the record of a plan at ``site``; None where it may fit."""
    if record["fits"] != "no":
        return None
    if "training" in record:
        name, case = "oom-while-training", _trained(record)
    else:
        name, case = _served(record, site), _case(record, site)
    failure = next(one for one in failures() if one.name == name)
    return {"name": name, "case": told(failure, case).case}


def _served(record: Mapping[str, Any], site: Site) -> str:
    limit, needed = record["limit_bytes"], record["total_bytes_at_least"]
    if needed <= limit:
        return "host-memory-short"
    if site.kind == "unified" and limit == site.limit_bytes and needed <= (site.memory_bytes or 0):
        return "apple-limit"
    cache, requests = record["kv_cache_bytes"], record["requests_at_a_time"]
    if needed - cache > limit:
        if record["on_host"]:
            return "host-memory-short"
        mixture = record["active_parameters"] < _MOST_ACTIVE * record["parameters"]
        return "experts-fill-memory" if mixture else "does-not-fit"
    one_has_room = needed - cache + cache // requests <= limit
    return "oom-under-load" if requests > 1 and one_has_room else "oom-at-long-context"


def _trained(record: Mapping[str, Any]) -> Case:
    """Of the least that a step needs; what a paged optimizer moves to the host is not in it."""
    terms, needed = record["terms"], record["total_bytes_at_least"]
    weights = terms["weights"] + terms["adapters"]
    states = terms["gradients"] + terms["optimizer"]
    least = record["peak_bytes"] + record["overhead_bytes_at_least"]
    states -= least - needed
    return Case(
        weights=weights,
        cache=0,
        rest=needed - weights,
        limit=record["limit_bytes"],
        method=record["training"]["method"],
        states=states,
        step=needed - weights - states,
    )


def _case(record: Mapping[str, Any], site: Site) -> Case:
    devices, (host, host_limit) = record["devices"], _on_host(record)
    return Case(
        weights=record["weights_bytes"],
        cache=record["kv_cache_bytes"],
        rest=None if record["compute_bytes"] is None else record["compute_bytes"][1] + record["overhead_bytes"],
        limit=record["limit_bytes"],
        context=record["context"],
        concurrency=record["requests_at_a_time"],
        weights_count=None if devices else record["parameters"],
        active=None if devices else record["weights_active_bytes"],
        bandwidth=site.bandwidth,
        bus=site.bus,
        link=site.link if devices else None,
        link_bytes=devices["link_bytes_per_token"] if devices else None,
        bound=None if record["decode_bound_by"] == "unknown" else record["decode_bound_by"],
        flips_at=record["operations_bind_from_requests"],
        host=host,
        host_limit=host_limit,
    )


def _on_host(record: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """What lies with the machine around a GPU, and what that has; None where nothing does, or nobody knows."""
    if record["on_host"]:
        return record["total_bytes"] or record["total_bytes_at_least"], record["limit_bytes"]
    host = record["host"]
    return (None, None) if host is None else (host["bytes"][1], host["limit_bytes"])
