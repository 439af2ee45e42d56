"""Several sizes of a family at one memory: which combinations of size, scheme, cache and context fit.

14B at 4 bit beside 8B at 8 bit: bytes alone do not say which answers better. Quality stays unknown until measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from quantwise.core.errors import InputError
from quantwise.plan.deployment import Constants, Deployment
from quantwise.plan.deployment_memory import needed_bytes, unknown_compute
from quantwise.plan.fit import MARGINAL
from quantwise.plan.model import Model
from quantwise.plan.wanted import Wanted
from quantwise.plan.what_if import CACHES

# Contexts that are tried for each combination, up to what the model was trained for.
_CONTEXTS = tuple(1024 << i for i in range(12))


def frontier(models: Sequence[Model], wanted: Wanted, constants: Constants) -> dict[str, Any]:
    """The record: a row for every model, scheme and cache type whose weights and least context fit at all.

    ``longest_context`` is the longest of 1,024, 2,048, 4,096 ... (or the model's own) that fits within nine tenths of
    the memory. A row is on the frontier where no other row of its model has as many bits of weights, as many bits of
    cache and a longer context. Raises InputError where the site's memory is unknown, or no model can be planned.
    """
    limit = wanted.limit_bytes or wanted.site.limit_bytes
    if limit is None:
        raise InputError("a frontier needs a memory budget; give --memory, such as --memory 12GB, or a --site")
    rows: list[dict[str, Any]] = []
    refused = ""
    for model in models:
        for scheme in wanted.names(model):
            for cache in CACHES[wanted.runtime]:
                try:
                    rows.append(_row(model, scheme, cache, wanted, limit, constants))
                except InputError as error:
                    refused = refused or f"{model.decoder.name}: {error}"
    if not rows:
        raise InputError(refused)
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
        "frontier": rows,
        "quality": "unknown until measured: quantwise decide",
    }


def _row(model: Model, scheme: str, cache: str, wanted: Wanted, limit: int, constants: Constants) -> dict[str, Any]:
    asked = replace(wanted.deployment(model, scheme), cache=cache, context=_CONTEXTS[0], limit_bytes=limit)
    if why := unknown_compute(asked):
        raise InputError(why)
    own = model.decoder.context
    contexts = [context for context in _CONTEXTS if context < own] + [own]
    least = needed_bytes(replace(asked, context=contexts[0]), constants)[1]
    weights = model.weights(scheme, in_gguf=wanted.runtime == "llamacpp")
    longest, total = _longest(asked, contexts, MARGINAL * limit, constants)
    return {
        "model": model.decoder.name,
        "parameters": weights.parameters,
        "scheme": scheme,
        "cache": cache,
        "bits_per_weight": weights.bits_per_weight,
        "cache_bits": _CACHE_BITS.get(cache, 16.0),
        "weights_bytes": weights.effective,
        "longest_context": longest,
        "total_bytes": total or least,
        "fits": "yes" if longest else "no",
    }


_CACHE_BITS = {"q8_0": 8.5, "q5_1": 6.0, "q4_0": 4.5, "fp8": 8.0, "int8-token-head": 8.25, "int8-token": 8.25,
               "int8-channel": 8.5, "int4-token": 4.5, "int4-channel": 5.0}  # fmt: skip


def _longest(
    asked: Deployment, contexts: Sequence[int], budget: float, constants: Constants
) -> tuple[int | None, int | None]:
    """The longest context within the budget and its total; memory grows with the context, so halving finds it."""
    low, high, total = -1, len(contexts), None
    while high - low > 1:
        middle = (low + high) // 2
        needs = needed_bytes(replace(asked, context=contexts[middle]), constants)[1]
        if needs <= budget:
            low, total = middle, needs
        else:
            high = middle
    return (contexts[low], total) if low >= 0 else (None, None)


def _beats(other: dict[str, Any], row: dict[str, Any]) -> bool:
    if other is row or other["model"] != row["model"] or not other["longest_context"]:
        return not row["longest_context"]
    mine = row["bits_per_weight"], row["cache_bits"], row["longest_context"] or 0
    theirs = other["bits_per_weight"], other["cache_bits"], other["longest_context"]
    return all(t >= m for t, m in zip(theirs, mine, strict=True)) and theirs != mine
