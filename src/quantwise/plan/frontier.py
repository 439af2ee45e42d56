"""Several sizes of a family at one memory: which combinations of size, scheme, cache and context fit.

14B at 4 bit beside 8B at 8 bit: bytes alone do not say which answers better. Quality stays unknown until measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from quantwise.core.errors import InputError
from quantwise.plan.deployment import Constants
from quantwise.plan.deployment_memory import bound_memory, held, needed, needed_bytes, unknown_compute
from quantwise.plan.fit import MARGINAL
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
    }
    if why := unknown_compute(asked):
        bound = bound_memory(asked, held(asked, weights, constants).terms)
        least_bytes = bound.weights + bound.cache + bound.overhead[0]
        return row | {"fits": "no" if least_bytes > limit else "unknown", "why": why}
    if own < _least(wanted):
        why = f"{model.decoder.name} was trained for {own} tokens"
        return row | {"total_bytes": needed_bytes(asked, constants)[1], "fits": "no", "why": why}
    host = None if asked.host is None else asked.host.limit_bytes
    if asked.is_partial and host is None:
        why = "whether the host has room for the rest is unknown: name the machine with --host"
        return row | {"fits": "unknown", "why": why}

    def needs(context: int) -> int:
        return needed_bytes(replace(asked, context=context), constants)[1]

    def beside(context: int) -> int:
        share = needed(replace(asked, context=context), constants).host
        return 0 if share is None else share.bytes[1]

    longest, total = _longest(needs, (least, own), MARGINAL * limit)
    why = None
    if longest is not None and host is not None and asked.is_partial and beside(longest) > MARGINAL * host:
        longest, _ = _longest(beside, (least, longest), MARGINAL * host)
        total, why = needs(longest or least), f"{wanted.host.name if wanted.host else 'the host'} holds no more"
    return row | {"longest_context": longest, "total_bytes": total, "fits": "yes" if longest else "no", "why": why}


_CACHE_BITS = {"q8_0": 8.5, "q5_1": 6.0, "q4_0": 4.5, "fp8": 8.0, "int8-token-head": 8.25, "int8-token": 8.25,
               "int8-channel": 8.5, "int4-token": 4.5, "int4-channel": 5.0}  # fmt: skip


def _longest(needs: Callable[[int], int], between: tuple[int, int], budget: float) -> tuple[int | None, int]:
    """The longest context ``between`` two whose need is within the budget, and that; where not even the first one is,
    None and that one's need.

    Memory grows with the context, nearly as a line: where the line between a context that fits and one that does not
    meets the budget, the next is tried.
    """
    low, high = between
    held_low = needs(low)
    if held_low > budget:
        return None, held_low
    held_high = needs(high)
    if held_high <= budget:
        return high, held_high
    for tries in count():
        first, last = low // _STEP + 1, (high - 1) // _STEP
        if first > last:
            break
        # A line that bends is met slowly: then halves are taken.
        share = (budget - held_low) / (held_high - held_low) if tries < _LINES else 0.5
        context = _STEP * min(max(int(low + share * (high - low)) // _STEP, first), last)
        held_there = needs(context)
        if held_there <= budget:
            low, held_low = context, held_there
        else:
            high, held_high = context, held_there
    return low, held_low


def _beats(other: dict[str, Any], row: dict[str, Any]) -> bool:
    if other is row or other["model"] != row["model"] or not other["longest_context"]:
        return not row["longest_context"]
    mine = row["bits_per_weight"], row["cache_bits"], row["longest_context"] or 0
    theirs = other["bits_per_weight"], other["cache_bits"], other["longest_context"]
    return all(t >= m for t, m in zip(theirs, mine, strict=True)) and theirs != mine
