"""Several sizes of a family at one memory: which combinations of size, scheme, cache and context fit.

14B at 4 bit beside 8B at 8 bit: bytes alone do not say which answers better. Quality stays unknown until measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from quantwise.core.errors import InputError
from quantwise.plan.deployment import Constants, Deployment
from quantwise.plan.deployment_memory import Needed, bound_memory, held, needed, unknown_compute
from quantwise.plan.fit import MARGINAL, size
from quantwise.plan.model import Model
from quantwise.plan.wanted import Wanted
from quantwise.plan.what_if import CACHES

# Contexts are told in steps of so many tokens, in which llama.cpp counts its cells.
_STEP = 256
# Where nobody says how long a context must be at least.
_LEAST = 1024
# A line is taken this often before halves are.
_LINES = 8


def frontier(models: Sequence[Model], wanted: Wanted, constants: Constants) -> dict[str, Any]:
    """The record: a row for every model, scheme and cache type.

    ``longest_context`` is the longest, in steps of 256 tokens and up to what the model was trained for, that fits
    within nine tenths of the memory; None where not even ``wanted.least_context`` does. A row is on the frontier where
    no other row of its model has as many bits of weights, as many bits of cache and a longer context. Where nobody
    knows what a runtime computes a model in, its rows are unknown and ``why`` says so. ``refused`` has a reason for
    each model that the runtime does not take at all. Raises InputError where the site's memory is unknown, or no model
    can be planned.
    """
    limit = wanted.limit_bytes or wanted.site.limit_bytes
    if limit is None:
        raise InputError("a frontier needs a memory budget; give --memory, such as --memory 12GB, or a --site")
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for model in models:
        found, reason = _rows(model, wanted, limit, constants)
        rows += found
        if not found:
            refused[model.decoder.name] = reason
    if not rows:
        raise InputError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))
    for row in rows:
        row["on_frontier"] = not any(_beats(other, row) for other in rows)
    rows.sort(key=lambda row: (-row["parameters"], -row["bits_per_weight"], -row["cache_bits"]))
    return {
        "models": [model.decoder.name for model in models],
        "site": wanted.site.name,
        "runtime": wanted.runtime,
        "requests_at_a_time": wanted.concurrency,
        "devices": wanted.tensor_parallel * wanted.pipeline_parallel,
        "limit_bytes": limit,
        "least_context": _least(wanted),
        "frontier": rows,
        "refused": refused,
        "notes": [],
        "quality": "unknown until measured: quantwise decide",
    }


def _least(wanted: Wanted) -> int:
    return wanted.least_context or _LEAST


def _rows(model: Model, wanted: Wanted, limit: int, constants: Constants) -> tuple[list[dict[str, Any]], str]:
    """The rows of one model, and why the first of the others is none."""
    found, refused = [], ""
    for scheme in wanted.names(model):
        for cache in CACHES[wanted.runtime]:
            try:
                found.append(_row(model, scheme, cache, wanted, limit, constants))
            except InputError as error:
                refused = refused or str(error)
    return found, refused


def _row(model: Model, scheme: str, cache: str, wanted: Wanted, limit: int, constants: Constants) -> dict[str, Any]:
    own = model.decoder.context
    least = min(_least(wanted), own)
    asked = replace(wanted.deployment(model, scheme), cache=cache, context=least, limit_bytes=limit)
    weights = model.weights(scheme, in_gguf=wanted.runtime == "llamacpp")
    row = {
        "model": model.decoder.name,
        "parameters": weights.parameters,
        "scheme": scheme,
        "cache": cache,
        "bits_per_weight": weights.bits_per_weight,
        "cache_bits": _CACHE_BITS.get(cache, 16.0),
        "weights_bytes": weights.effective,
        "longest_context": None,
        "total_bytes": None,
        "host_bytes": None,
    }
    if why := unknown_compute(asked):
        bound = bound_memory(asked, held(asked, weights, constants).terms)
        least_bytes = bound.weights + bound.cache + bound.overhead[0]
        return row | {"fits": "no" if least_bytes > limit else "unknown", "why": why}
    if own < _least(wanted):
        why = f"{model.decoder.name} was trained for {own} tokens"
        return row | {"total_bytes": needed(asked, constants).bytes[1], "fits": "no", "why": why}
    longest, total, host = _longest(asked, own, MARGINAL * limit, constants)
    row |= {"longest_context": longest, "total_bytes": total, "host_bytes": host}
    if host is None or asked.host is not None:
        room = None if asked.host is None else asked.host.limit_bytes
        short = not longest and host is not None and room is not None and host > MARGINAL * room
        why = f"the host's part takes {size(host or 0)}" if short else None
        return row | {"fits": "yes" if longest else "no", "why": why}
    # Nobody knows whether the host has that much.
    why = f"the host has to hold {size(host)} of it: name the machine with --host"
    return row | {"longest_context": None, "fits": "unknown" if longest else "no", "why": why}


_CACHE_BITS = {"q8_0": 8.5, "q5_1": 6.0, "q4_0": 4.5, "fp8": 8.0, "int8-token-head": 8.25, "int8-token": 8.25,
               "int8-channel": 8.5, "int4-token": 4.5, "int4-channel": 5.0}  # fmt: skip


def _longest(asked: Deployment, own: int, budget: float, constants: Constants) -> tuple[int | None, int, int | None]:
    """The longest context up to the model's ``own`` within the budget and what a known host has, its total, and what of
    it the host holds (None: nothing); where not even that of ``asked`` is, None and what that one takes.

    Memory grows with the context, nearly as a line: where the line between a context that fits and one that does not
    meets the budget, the next is tried.
    """

    def needs(context: int) -> Needed:
        return needed(replace(asked, context=context), constants)

    low, high = asked.context, own
    held_low = needs(low)
    if not _has_room(held_low, budget):
        return None, *_told(held_low)
    held_high = needs(high)
    if _has_room(held_high, budget):
        return high, *_told(held_high)
    for tries in count():
        first, last = low // _STEP + 1, (high - 1) // _STEP
        if first > last:
            break
        # A line that bends is met slowly, and a host's room not at all: then halves are taken.
        more = held_high.bytes[1] - held_low.bytes[1]
        line = tries < _LINES and held_high.bytes[1] > budget
        share = (budget - held_low.bytes[1]) / more if line else 0.5
        context = _STEP * min(max(int(low + share * (high - low)) // _STEP, first), last)
        held_there = needs(context)
        if _has_room(held_there, budget):
            low, held_low = context, held_there
        else:
            high, held_high = context, held_there
    return low, *_told(held_low)


def _has_room(found: Needed, budget: float) -> bool:
    host = found.host
    if host is not None and host.limit_bytes is not None and host.bytes[1] > MARGINAL * host.limit_bytes:
        return False
    return found.bytes[1] <= budget


def _told(found: Needed) -> tuple[int, int | None]:
    return found.bytes[1], None if found.host is None else found.host.bytes[1]


def _beats(other: dict[str, Any], row: dict[str, Any]) -> bool:
    if other is row or other["model"] != row["model"] or not other["longest_context"]:
        return not row["longest_context"]
    mine = row["bits_per_weight"], row["cache_bits"], row["longest_context"] or 0
    theirs = other["bits_per_weight"], other["cache_bits"], other["longest_context"]
    return all(t >= m for t, m in zip(theirs, mine, strict=True)) and theirs != mine
