"""What ``quantwise plan`` answers: every precision of a model at a site, which to take, and what makes others fit.

The answer is a record, plain data, which the screen, ``--json`` and the page show alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from quantwise.core.errors import InputError
from quantwise.plan.deployment import CONSTANTS, Constants
from quantwise.plan.deployment_memory import most_on_gpu, weights_of
from quantwise.plan.deployment_plan import Plan, plan_deployment
from quantwise.plan.device_cache import decoder_there
from quantwise.plan.headline import headline
from quantwise.plan.layouts import layouts
from quantwise.plan.loading_fixes import loading_fixes, told_with
from quantwise.plan.model import Model
from quantwise.plan.plan_record import plan_record
from quantwise.plan.served_fixes import served_fixes
from quantwise.plan.speed import fewer_bits
from quantwise.plan.wanted import Wanted
from quantwise.plan.what_if import what_if


def answer(
    model: Model, wanted: Wanted, constants: Constants = CONSTANTS, *, smaller: Sequence[str] = ()
) -> dict[str, Any]:
    """The record of a plan: the keys of the chosen candidate, and ``candidates``, all of them.

    Chosen is the one of most bits that fits, else that is marginal, else the smallest; a model's own format is asked
    first. ``smaller`` are names of models, larger first, that may be proposed instead. Raises InputError where nothing
    that was named can be run.
    """
    names = wanted.names(model)
    asked = [wanted.deployment(model, name) for name in names]
    plans, refused, instead = list[Plan](), dict[str, str](), dict[str, list[dict[str, Any]]]()
    for one in asked:
        try:
            plans.append(plan_deployment(one, constants))
        except InputError as error:
            refused[one.name] = str(error)
            instead[one.name] = loading_fixes(one, constants)
    if not plans:
        name, why = next(iter(refused.items()))
        raise InputError(told_with(why, instead[name]))
    chosen = _chosen(plans)
    position = plans.index(chosen)
    plans[position] = chosen = plan_deployment(chosen.asked, constants, capacity=True)
    # Other schemes are rows of their own; only of the chosen one everything is tried.
    rows = [
        plan_record(p)
        | {
            "fixes": served_fixes(p, _of_fewer_bits(p, wanted) if p is chosen else None, smaller, constants),
            "most_on_gpu": _most(p, constants),
        }
        for p in plans
    ]
    found = {
        "model": model.decoder.name,
        "architecture": model.decoder.architecture,
        "parameters": chosen.weights.parameters,
        "active_parameters": chosen.weights.active_parameters,
        "trained_context": model.decoder.context,
        "site": wanted.site.name,
        "runtime": wanted.runtime,
        "context": wanted.context,
        "requests_at_a_time": wanted.concurrency,
        **rows[position],
        "fewer_bits": _fewer_bits(chosen, plans),
        "what_if": _what_if(chosen, constants),
        "layouts": None if wanted.trace is None else layouts(chosen, wanted.trace, constants),
        "candidates": rows,
        "refused": refused,
        "refused_fixes": instead,
        "quality": "unknown until measured: quantwise decide",
    }
    return {"headline": headline(found)} | found


def _chosen(plans: Sequence[Plan]) -> Plan:
    for answer_ in ("yes", "unknown", "marginal"):
        for plan in plans:
            if plan.fits == answer_:
                return plan
    return min(plans, key=lambda plan: plan.total[0])


def _of_fewer_bits(plan: Plan, wanted: Wanted) -> list[str]:
    """The plan's own scheme, and those of fewer bits that were named or are usual, from more bits to fewer."""
    asked, bits = plan.asked, {plan.asked.scheme: plan.weights.bits_per_weight}
    for name in (*wanted.schemes, *replace(wanted, schemes=()).names(asked.model)):
        with suppress(InputError):
            bits.setdefault(name, weights_of(replace(asked, scheme=name)).bits_per_weight)
    fewer = [name for name, found in bits.items() if found < plan.weights.bits_per_weight]
    return [asked.scheme, *sorted(fewer, key=lambda name: -bits[name])]


def _most(plan: Plan, constants: Constants) -> dict[str, Any] | None:
    """How much of a model that does not fit whole may be on the GPU; None where it fits, or that was settled."""
    asked = plan.asked
    settled = asked.is_partial or asked.devices > 1 or plan.compute is None
    if plan.fits in ("yes", "unknown") or settled or not asked.on_gpu or asked.runtime != "llamacpp":
        return None
    found = most_on_gpu(asked, constants)
    if found.gpu_layers is None and found.experts_on_cpu is None:
        return None
    return {"gpu_layers": found.gpu_layers, "of": found.of, "experts_on_cpu": found.experts_on_cpu}


def _fewer_bits(chosen: Plan, plans: Sequence[Plan]) -> dict[str, Any] | None:
    """Whether the candidate of fewest bits would be faster than the chosen one; None where that is it."""
    others = [plan for plan in plans if plan.weights.bits_per_weight < chosen.weights.bits_per_weight]
    if not others or chosen.fits == "no":
        return None
    least = min(others, key=lambda plan: plan.weights.bits_per_weight)
    return {"candidate": least.asked.name, "gains": list(fewer_bits(least.speed, chosen.speed))}


def _what_if(plan: Plan, constants: Constants) -> list[dict[str, Any]]:
    asked = plan.asked
    there = decoder_there(asked, plan.held.stages)
    try:
        found = what_if(asked.runtime, there, asked.demand, constants.vllm_on(asked))
    except InputError:
        return []
    return [{"change": one.change, "kv_cache_bytes": one.bytes, "times": round(one.times, 4)} for one in found]
