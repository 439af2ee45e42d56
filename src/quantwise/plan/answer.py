"""What ``quantwise plan`` answers: every precision of a model at a site, which to take, and what makes others fit.

The answer is a record, plain data, which the screen, ``--json`` and the page show alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from quantwise.core.errors import InputError
from quantwise.models.presets import PRESETS
from quantwise.plan.deployment import CONSTANTS, Constants, Deployment
from quantwise.plan.deployment_memory import most_on_gpu, needed, unknown_compute
from quantwise.plan.deployment_plan import Plan, plan_deployment
from quantwise.plan.device_cache import decoder_there
from quantwise.plan.fit import MARGINAL
from quantwise.plan.fixes import Change, Fix, Need, Rest, ServedCase, fixes
from quantwise.plan.layouts import layouts
from quantwise.plan.model import Model, find_model
from quantwise.plan.plan_record import plan_record
from quantwise.plan.served_changes import more_experts_away, usual_changes
from quantwise.plan.wanted import Wanted
from quantwise.plan.what_if import CACHES, what_if
from quantwise.scenarios.site import Site
from quantwise.scenarios.sites import sites

# Of one kind of GPU, in one machine.
_MOST_DEVICES = 8


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
    plans, refused = [], {}
    for one in asked:
        try:
            plans.append(plan_deployment(one, constants))
        except InputError as error:
            refused[one.name] = str(error)
    if not plans:
        raise InputError(next(iter(refused.values())))
    chosen = _chosen(plans)
    position = plans.index(chosen)
    plans[position] = chosen = plan_deployment(chosen.asked, constants, capacity=True)
    # Other schemes are rows of their own; only of the chosen one everything is tried.
    rows = [
        plan_record(p)
        | {"fixes": _fixes(model, p, p is chosen, (names, smaller), constants), "most_on_gpu": _most(p, constants)}
        for p in plans
    ]
    return {
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
        "what_if": _what_if(chosen, constants),
        "layouts": None if wanted.trace is None else layouts(chosen, wanted.trace, constants),
        "candidates": rows,
        "refused": refused,
        "quality": "unknown until measured: quantwise decide",
    }


def family(name: str) -> tuple[str, ...]:
    """The presets of a preset's family that have fewer parameters, larger first."""
    if name not in PRESETS:
        return ()
    stem, size = _stem_and_size(name)
    found = [(other, *_stem_and_size(other)) for other in PRESETS]
    smaller = [(amount, other) for other, own, amount in found if own == stem and size is not None and amount]
    return tuple(other for amount, other in sorted(smaller, reverse=True) if size is not None and amount < size)


def _stem_and_size(name: str) -> tuple[str, float | None]:
    """``qwen3-8b`` as (``qwen3``, 8.0); a name without a size as (name, None). Mixtures are families of their own."""
    stem, _, last = name.rpartition("-")
    unit = {"b": 1.0, "m": 1e-3}.get(last[-1:], 0.0)
    try:
        return stem, float(last[:-1]) * unit or None
    except ValueError:
        return name, None


def _chosen(plans: Sequence[Plan]) -> Plan:
    for answer_ in ("yes", "unknown", "marginal"):
        for plan in plans:
            if plan.fits == answer_:
                return plan
    return min(plans, key=lambda plan: plan.total[0])


def _fixes(
    model: Model, plan: Plan, thorough: bool, names: tuple[Sequence[str], Sequence[str]], constants: Constants
) -> list[dict[str, Any]]:
    if plan.fits in ("yes", "unknown") or plan.limit_bytes is None:
        return []
    asked = plan.asked
    case = ServedCase(
        model=model.decoder.name,
        scheme=asked.scheme,
        cache=asked.cache,
        context=asked.context,
        concurrency=asked.concurrency,
        ubatch=asked.ubatch,
        gpu_layers=asked.gpu_layers,
        tensor_parallel=asked.tensor_parallel,
        pipeline_parallel=asked.pipeline_parallel,
        site=asked.site.name,
        memory_bytes=asked.limit_bytes,
        experts_on_cpu=asked.experts_on_cpu,
    )
    limit = plan.limit_bytes
    # A model that is not on the GPU gains nothing from another one.
    kind = None if asked.on_host else asked.site.kind
    larger = [s for s in sites().values() if s.kind == kind and (s.limit_bytes or 0) > limit]
    layers = model.decoder.layers
    splits = asked.on_gpu and asked.runtime == "llamacpp" and asked.devices == 1
    changes = usual_changes(
        case,
        caches=CACHES[asked.runtime],
        schemes=names[0] if thorough else (),
        models=names[1] if thorough else (),
        sites=[site.name for site in sorted(larger, key=lambda s: s.limit_bytes or 0)][: None if thorough else 0],
        layers=len(layers) if splits else 0,
        devices=_most_devices(asked) if thorough else 0,
    )
    if splits and any(layer.experts for layer in layers):
        changes += more_experts_away(case, len(layers))
    need, least = (_need(model, asked, limit, constants, buffers=buffers) for buffers in (True, False))
    replays = asked.runtime == "llamacpp"
    return [_fix_record(fix) for fix in fixes(case, changes, need, MARGINAL, 1, least if replays else None)]


def _most_devices(asked: Deployment) -> int:
    """How many of the site's GPUs may be proposed; 0 where there are none, or a host has a part of the model."""
    if asked.site.kind != "gpu" or asked.is_partial or asked.on_host:
        return 0
    return asked.site.devices if asked.site.devices > 1 else _MOST_DEVICES


def _need(
    model: Model, asked: Deployment, limit: int, constants: Constants, *, buffers: bool
) -> Callable[[ServedCase], Need | None]:
    """What a case needs, at most; without ``buffers`` less than that."""
    known = {model.decoder.name: model}

    def need(case: ServedCase) -> Need | None:
        site = sites().get(case.site, asked.site) if case.site != asked.site.name else asked.site
        has = case.memory_bytes or (limit if case.site == asked.site.name else site.limit_bytes)
        if has is None:
            return None
        if case.model not in known:
            known[case.model] = find_model(case.model)
        other = known[case.model]
        try:
            turned = replace(
                asked,
                model=other,
                site=site,
                scheme=case.scheme,
                cache=case.cache,
                context=case.context,
                concurrency=case.concurrency,
                ubatch=case.ubatch,
                gpu_layers=case.gpu_layers,
                tensor_parallel=case.tensor_parallel,
                pipeline_parallel=case.pipeline_parallel,
                experts_on_cpu=case.experts_on_cpu,
                host=_host(asked.host, case.host_bytes),
                limit_bytes=has,
            )
            # Off the GPU its memory is no limit; the host's is, where one is known.
            if turned.on_host and turned.host is None and not asked.on_host:
                return None
            return _needed(turned, constants, buffers)
        except InputError:
            return None

    return need


def _needed(turned: Deployment, constants: Constants, buffers: bool) -> Need | None:
    limit = turned.limit
    if limit is None or unknown_compute(turned):
        return None
    found = needed(turned, constants, buffers=buffers)
    rest = None if found.host is None else Rest(found.host.bytes[1], found.host.limit_bytes)
    return Need(found.bytes[1], limit, rest, host=turned.on_host)


def _host(known: Site | None, memory: int | None) -> Site | None:
    """The host, of another memory where one is given."""
    return known if memory is None else replace(known or Site(kind="cpu"), memory_bytes=memory, usable=1.0)


def _fix_record(fix: Fix[ServedCase]) -> dict[str, Any]:
    return {
        "what": str(fix),
        "kind": fix.kind,
        "changes": [_change_record(change) for change in fix.changes],
        "saves_bytes": fix.saves_bytes,
        "total_bytes": fix.total_bytes,
        "limit_bytes": fix.limit_bytes,
        "host_bytes": None if fix.beside is None else fix.beside.total_bytes,
        "host_limit_bytes": None if fix.beside is None else fix.beside.limit_bytes,
    }


def _change_record(change: Change) -> dict[str, Any]:
    """A knob as the command has it: the host's memory is given as the host."""
    known = change.knob == "host_bytes"
    return {
        "knob": "host" if known else change.knob,
        "value": f"{change.value}B" if known else change.value,
        "loses": change.loses,
    }


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


def _what_if(plan: Plan, constants: Constants) -> list[dict[str, Any]]:
    asked = plan.asked
    there = decoder_there(asked, plan.held.stages)
    try:
        found = what_if(asked.runtime, there, asked.demand, constants.vllm_on(asked))
    except InputError:
        return []
    return [{"change": one.change, "kv_cache_bytes": one.bytes, "times": round(one.times, 4)} for one in found]
