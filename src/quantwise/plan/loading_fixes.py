"""What is planned instead where a runtime does not load what was asked: another runtime that does, or another scheme.

Each is planned whole before it is proposed, as every other fix is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from quantwise.core.errors import InputError
from quantwise.plan.deployment import Constants, Deployment
from quantwise.plan.deployment_plan import Plan, plan_deployment
from quantwise.plan.fit import size
from quantwise.plan.serving_settings import RUNTIMES, RuntimeName
from quantwise.plan.wanted import usual_schemes

_LOSES = {
    "runtime": "speed and memory are that runtime's",
    "scheme": "quality is unknown until measured",
    "context": "nothing: the model cannot hold more",
}


def loading_fixes(asked: Deployment, constants: Constants) -> list[dict[str, Any]]:
    """Fixes of a deployment that is refused, as records like those of `served_fixes`: of each other runtime, then the
    scheme of this one that is nearest in bits; only where none of these is, both at once. Only what may fit.
    """
    others = [name for name in RUNTIMES if name != asked.runtime]
    found = [plan for name in others if (plan := _fitting(asked, constants, runtime=name))]
    wanted = found[0].weights.bits_per_weight if found else None
    found += _nearest(asked, asked.runtime, wanted, constants)
    if asked.context > asked.decoder.context:
        with_own = _fitting(asked, constants, context=asked.decoder.context)
        found += [] if with_own is None else [with_own]
    if not found:
        found = [plan for name in others for plan in _nearest(asked, name, None, constants)]
    return [_record(asked, plan) for plan in found]


def told_with(why: str, fixes: Sequence[dict[str, Any]]) -> str:
    """The reason of a refusal in a line, and what is planned instead, as flags."""
    return f"{why}; what can be planned: {' or '.join(fix['what'] for fix in fixes)}" if fixes else why


def _nearest(asked: Deployment, runtime: RuntimeName, bits: float | None, constants: Constants) -> list[Plan]:
    """Of the usual schemes of a runtime the one that is nearest in bits, and where those are unknown of most bits."""
    names = usual_schemes(asked.model, runtime, on_gpu=asked.site.kind == "gpu")
    others = (name for name in names if name != asked.scheme)
    plans = [plan for name in others if (plan := _fitting(asked, constants, runtime=runtime, scheme=name))]
    if bits is None:
        return plans[:1]
    return sorted(plans, key=lambda plan: abs(plan.weights.bits_per_weight - bits))[:1]


def _fitting(asked: Deployment, constants: Constants, **changes: Any) -> Plan | None:
    with suppress(InputError):
        plan = plan_deployment(replace(asked, **changes), constants)
        return None if plan.fits == "no" else plan
    return None


def _record(asked: Deployment, plan: Plan) -> dict[str, Any]:
    turned = {knob: getattr(plan.asked, knob) for knob in _LOSES if getattr(plan.asked, knob) != getattr(asked, knob)}
    low, high = plan.total
    total, limit = low if high is None else high, plan.limit_bytes
    of = "" if limit is None else f" of {size(limit)}"
    return {
        "what": f"{' '.join(f'--{knob} {value}' for knob, value in turned.items())} ({size(total)}{of})",
        "kind": "runtime" if "runtime" in turned else "setting" if "context" in turned else "scheme",
        "changes": [{"knob": knob, "value": value, "loses": _LOSES[knob]} for knob, value in turned.items()],
        "saves_bytes": 0,
        "total_bytes": total,
        "limit_bytes": limit,
        "host_bytes": None,
        "host_limit_bytes": None,
    }
