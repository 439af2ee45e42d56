"""One way to serve a model at a site: every term of memory, whether it fits, how many requests, and how fast.

Formulas live in their own files; here they meet one limit. A total is an interval, because compute buffers and what a
process takes are; a plan ``fits`` where its high end stays within nine tenths of the limit, is ``marginal`` where that
is not sure, and does not fit where its low end is above the limit. Of several GPUs the fullest one meets the limit of
one. Where a GPU holds a part and the machine around it the rest, both have to fit, and the worse answer counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from quantwise.plan.capacity import Capacity, Layout, promise, theoretical_requests
from quantwise.plan.decoder_weights import Weights
from quantwise.plan.deployment import CONSTANTS, Constants, Deployment
from quantwise.plan.deployment_memory import (
    Held,
    binding,
    bound_memory,
    held,
    host_share,
    unknown_compute,
    weights_of,
)
from quantwise.plan.deployment_speed import deployment_speed
from quantwise.plan.fit import MARGINAL, size
from quantwise.plan.loadable import check_loads
from quantwise.plan.request_limits import limit_notes, most_requests
from quantwise.plan.speed import Speed
from quantwise.plan.terms import READ_ONCE, Device
from quantwise.plan.weight_scheme import parse_weight_scheme
from quantwise.plan.what_if import cache_of

Answer = Literal["yes", "marginal", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. ``bound`` names the one whose memory is compared with the limit.

    ``compute``, ``overhead`` and ``total`` are of that device, (low, high) in bytes; ``weights_bytes`` and
    ``cache_bytes`` too; ``held`` has all devices. ``capacity`` is None where the limit is unknown, or it was not asked
    for.
    """

    asked: Deployment
    weights: Weights
    held: Held
    bound: Device
    weights_bytes: int
    cache_bytes: int
    compute: tuple[int, int] | None
    overhead: tuple[int, int]
    limit_bytes: int | None
    capacity: Capacity | None
    speed: Speed
    speed_source: str
    notes: tuple[str, ...]

    @property
    def total(self) -> tuple[int, int | None]:
        """Bytes on the device that binds, (low, high); high is None where what it computes in is unknown."""
        fixed = self.weights_bytes + self.cache_bytes
        if self.compute is None:
            return fixed + self.overhead[0], None
        return fixed + self.compute[0] + self.overhead[0], fixed + self.compute[1] + self.overhead[1]

    @property
    def fits(self) -> Answer:
        """As the module says."""
        found = [_fits(self.total, self.limit_bytes)]
        if (host := host_share(self.asked, self.held)) is not None:
            high = None if self.compute is None else host.bytes[1]
            found.append(_fits((host.bytes[0], high), host.limit_bytes))
        return next(answer for answer in _WORST_FIRST if answer in found)


# Of what is needed: less than that nobody sees.
_SHOWN = 0.05
_WORST_FIRST: tuple[Answer, ...] = ("no", "unknown", "marginal", "yes")


def _fits(total: tuple[int, int | None], limit: int | None) -> Answer:
    low, high = total
    if limit is None:
        return "unknown"
    if low > limit:
        return "no"
    if high is None:
        return "unknown"
    return "yes" if high <= MARGINAL * limit else "marginal"


def plan_deployment(asked: Deployment, constants: Constants = CONSTANTS, *, capacity: bool = False) -> Plan:
    """Plan one way to serve a model.

    With ``capacity`` the number of requests to promise is simulated, which takes a few tenths of a second. Raises
    InputError where scheme, cache type, runtime, site or the number of devices do not go together with the model.
    """
    check_loads(asked)
    weights = weights_of(asked)
    found_held = held(asked, weights, constants)
    bound = bound_memory(asked, found_held.terms)
    found_speed, speed_source = deployment_speed(asked, weights, found_held, constants)
    found = Plan(
        asked=asked,
        weights=weights,
        held=found_held,
        bound=asked.device,
        weights_bytes=bound.weights,
        cache_bytes=bound.cache,
        compute=None if unknown_compute(asked) else bound.compute,
        overhead=bound.overhead,
        limit_bytes=asked.limit,
        capacity=None,
        speed=found_speed,
        speed_source=speed_source,
        notes=_notes(asked, weights, found_held),
    )
    counted = _capacity(found, constants) if capacity else None
    return replace(found, capacity=counted, notes=(*found.notes, *limit_notes(asked, counted, constants)))


def request_bytes(found: Plan, constants: Constants = CONSTANTS) -> int:
    """What one request of full context keeps in the memory that binds."""
    asked = found.asked
    if asked.devices == 1 and not asked.is_partial:
        return cache_of(asked.runtime, asked.computed, replace(asked.demand, concurrency=1), constants.vllm_on(asked))
    one = replace(asked, concurrency=1)
    return bound_memory(one, held(one, found.weights, constants).terms).cache


def cache_room(found: Plan, constants: Constants = CONSTANTS) -> int | None:
    """Bytes that weights and scratch leave for caches; None where they or the limit are unknown."""
    if found.limit_bytes is None or found.compute is None:
        return None
    limit = found.limit_bytes
    if found.asked.runtime == "vllm":
        limit = int(limit * constants.vllm_on(found.asked).utilization)
    return max(0, limit - found.weights_bytes - found.compute[1] - found.overhead[1])


def _capacity(found: Plan, constants: Constants) -> Capacity | None:
    asked, room = found.asked, cache_room(found, constants)
    if room is None:
        return None
    request, there = request_bytes(found, constants), _requests_on_host(found)
    counts = [theoretical_requests(room, 0, 0, request)] if request else []
    counts += [] if there is None else [there]
    if not counts:
        return None
    layout: Layout = "paged" if asked.runtime == "vllm" else "contiguous"
    theoretical, most = min(counts), most_requests(asked)
    served = theoretical if most is None else min(theoretical, most)
    return replace(promise(served, max(2, asked.context), layout=layout), theoretical=theoretical)


def _requests_on_host(found: Plan) -> int | None:
    """How many requests the host has room for, where a part of each cache lies there; None where nobody knows."""
    host = host_share(found.asked, found.held)
    kept = sum(term.high for term in found.held.terms if (term.name, term.device) == ("cache", "cpu"))
    each = kept // found.asked.concurrency
    if host is None or host.limit_bytes is None or each < 1:
        return None
    return theoretical_requests(host.limit_bytes, 0, host.bytes[1] - kept, each)


def _notes(asked: Deployment, weights: Weights, found: Held) -> tuple[str, ...]:
    why = unknown_compute(asked)
    notes = [] if why is None else [why]
    if not weights.exact:
        notes.append("weights are a sum over tensors whose names were not held against a written file")
    own = parse_weight_scheme(asked.scheme).recipe
    if own is not None and own.scheme.kind not in ("float", "ggml", "auto") and weights.bits_per_weight > 15:
        group = f": their rows do not split into groups of {own.scheme.group}" if own.scheme.group else ""
        notes.append(f"{asked.scheme} leaves nearly all weights of this model in 16 bit{group}")
    if asked.context > asked.decoder.context:
        notes.append(f"{asked.decoder.name} was trained for {asked.decoder.context} tokens, not {asked.context}")
    return (*notes, *_page_notes(asked, found), *_host_notes(asked, found))


def _page_notes(asked: Deployment, found: Held) -> list[str]:
    """Where a process shows clearly more memory than it needs."""
    pages = sum(term.high for term in found.terms if term.name == READ_ONCE and term.device == asked.device)
    if pages <= _SHOWN * sum(term.high for term in binding(asked, found.terms)):
        return []
    return [
        f"beside these, {size(pages)} of mapped file pages are read once, to be copied into another order: the process "
        "shows them while there is room, and the system takes them back where there is none"
    ]


def _host_notes(asked: Deployment, found: Held) -> list[str]:
    host = host_share(asked, found)
    if host is None:
        return []
    if host.limit_bytes is None:
        return [f"whether the host has {size(host.bytes[1])} for the rest is unknown: name the machine with --host"]
    told = f"{size(host.bytes[1])} of {size(host.limit_bytes)} at {host.name}"
    if host.bytes[0] > host.limit_bytes:
        return [f"the host's part does not fit: {told}"]
    return [f"the host's part may not fit: {told}"] if host.bytes[1] > MARGINAL * host.limit_bytes else []
