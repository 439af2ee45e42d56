"""The fixes of a plan that a model is served by: every case is planned whole before it is proposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from quantwise.core.errors import InputError
from quantwise.plan.deployment import Constants, Deployment
from quantwise.plan.deployment_memory import needed, unknown_compute
from quantwise.plan.deployment_plan import Plan
from quantwise.plan.fit import MARGINAL
from quantwise.plan.fix import Change, Fix, Need, Rest, ServedCase
from quantwise.plan.fixes import fixes
from quantwise.plan.model import Model, find_model
from quantwise.plan.other_models import plannable
from quantwise.plan.served_changes import more_experts_away, own_context, usual_changes
from quantwise.plan.what_if import CACHES
from quantwise.scenarios.site import Site
from quantwise.scenarios.sites import sites

# Of one kind of GPU, in one machine.
_MOST_DEVICES = 8
# A site that has hardly more is the same card under another name.
_LARGER = 1.1


def served_fixes(
    plan: Plan, schemes: Sequence[str] | None, smaller: Sequence[str], constants: Constants
) -> list[dict[str, Any]]:
    """What would make a plan fit, the cheapest first, as records; none where it does, or nobody knows.

    ``schemes``, its own first and then fewer bits, and the models ``smaller`` are tried, and so are devices and sites;
    None leaves it at settings, and memory enough. What cannot be planned to its end has a model that can.
    """
    if plan.fits in ("yes", "unknown") or plan.limit_bytes is None:
        return []
    asked, model = plan.asked, plan.asked.model
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
    changes = _changes(case, plan, schemes, smaller)
    known = {model.decoder.name: model}
    need, least = (_need(known, asked, plan.limit_bytes, constants, buffers=buffers) for buffers in (True, False))
    replays = asked.runtime == "llamacpp"

    def search(tried: ServedCase) -> list[Fix[ServedCase]]:
        return fixes(tried, changes, need, MARGINAL, 1, least if replays else None)

    found = search(case)
    if not found and unknown_compute(asked):
        found = _after_another_model(case, changes, search)
    return [_fix_record(fix) for fix in found]


def _after_another_model(
    case: ServedCase, changes: Sequence[Change], search: Callable[[ServedCase], list[Fix[ServedCase]]]
) -> list[Fix[ServedCase]]:
    """Where two changes do not do: the smallest model, in a type that it can have, and what makes that fit."""
    firsts = [change for change in changes if change.knob == "model"][-1:]
    firsts += [change for change in changes if change.knob == "scheme" and case.scheme == "stored"][-1:]
    other = case
    for change in firsts:
        other = change.applied(other)
    return [replace(fix, changes=(*firsts, *fix.changes), saves_bytes=0) for fix in search(other)]


def _changes(case: ServedCase, plan: Plan, schemes: Sequence[str] | None, smaller: Sequence[str]) -> list[Change]:
    asked, limit, layers = plan.asked, plan.limit_bytes or 0, plan.asked.decoder.layers
    splits = asked.on_gpu and asked.runtime == "llamacpp" and asked.devices == 1
    models = smaller if schemes is not None else ()
    if unknown_compute(asked):
        models = plannable(MARGINAL * limit - (plan.total[0] - plan.weights_bytes), plan.weights.bits_per_weight)
        # Models that are files of one type are proposed with a type.
        schemes = ("q4_k_m",) if asked.model.is_file else schemes
    if not models and schemes is None and asked.devices == 1 and _weights_alone_are_too_many(plan, splits=splits):
        return []
    # A model that is not on the GPU gains nothing from another one.
    kind = None if asked.on_host else asked.site.kind
    larger = [s for s in sites().values() if s.kind == kind and (s.limit_bytes or 0) > _LARGER * limit]
    trained = asked.decoder.context
    changes = own_context(case, trained) + usual_changes(
        # Half of a context that is too long for the model is too long as well.
        replace(case, context=min(case.context, trained)),
        caches=CACHES[asked.runtime],
        schemes=schemes or (),
        models=models,
        sites=[site.name for site in sorted(larger, key=lambda s: s.limit_bytes or 0)] if models or schemes else [],
        layers=len(layers) if splits else 0,
        devices=0 if schemes is None else _most_devices(asked),
    )
    if splits and any(layer.experts for layer in layers):
        changes += more_experts_away(case, len(layers))
    return changes


def _weights_alone_are_too_many(plan: Plan, *, splits: bool) -> bool:
    """Whether no setting can help, since wherever the weights lie they have no room."""
    host = plan.asked.host if splits else None
    if splits and (host is None or host.limit_bytes is None):
        return False
    there = (plan.limit_bytes or 0) + ((host.limit_bytes or 0) if host else 0)
    return sum(term.low for term in plan.held.terms if term.name == "weights") > MARGINAL * there


def _most_devices(asked: Deployment) -> int:
    """How many of the site's GPUs may be proposed; 0 where there are none, or a host has a part of the model."""
    if asked.site.kind != "gpu" or asked.is_partial or asked.on_host:
        return 0
    return asked.site.devices if asked.site.devices > 1 else _MOST_DEVICES


def _need(
    known: dict[str, Model], asked: Deployment, limit: int, constants: Constants, *, buffers: bool
) -> Callable[[ServedCase], Need | None]:
    """What a case needs, at most; without ``buffers`` less than that. ``known`` are models that were read."""

    def need(case: ServedCase) -> Need | None:
        """None where the case cannot be planned, or the memory that binds is unknown."""
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
    if limit is None:
        return None
    if unknown_compute(turned):
        # Never known to fit; known not to where even the buffers' absence leaves too much.
        least = needed(turned, constants, buffers=False)
        here, there = least.bytes[0], least.host
        if there is not None and there.limit_bytes is not None and there.bytes[0] > there.limit_bytes:
            return Need(here, limit, Rest(there.bytes[0], there.limit_bytes))
        return Need(here, limit, host=turned.on_host) if here > limit else None
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
