"""A plan as plain data: the keys that the screen, ``--json`` and the page read."""

from __future__ import annotations

from typing import Any

from quantwise.plan.deployment_memory import host_share
from quantwise.plan.deployment_plan import Plan
from quantwise.plan.running_cost import decode_cost, prompt_cost


def plan_record(plan: Plan) -> dict[str, Any]:
    """The keys of one candidate."""
    capacity, speed = plan.capacity, plan.speed
    return {
        "candidate": plan.asked.name,
        "scheme": plan.asked.scheme,
        "cache": plan.asked.cache,
        "weights_bytes": plan.weights_bytes,
        "weights_raw_bytes": plan.weights.raw,
        "weights_effective_bytes": plan.weights.effective,
        "weights_active_bytes": plan.weights.active,
        "bits_per_weight": plan.weights.bits_per_weight,
        "kv_cache_bytes": plan.cache_bytes,
        "compute_bytes": None if plan.compute is None else list(plan.compute),
        "overhead_bytes": plan.overhead[1],
        "total_bytes": plan.total[1],
        "total_bytes_at_least": plan.total[0],
        "limit_bytes": plan.limit_bytes,
        "fits": plan.fits,
        "concurrency": None
        if capacity is None
        else {"theoretical": capacity.theoretical, "promised": capacity.promised},
        "decode_tokens_per_s": _interval(speed.decode_per_request),
        "decode_tokens_per_s_total": _interval(speed.decode_total),
        "prefill_tokens_per_s": _interval(speed.prefill),
        "decode_bound_by": speed.bound,
        "operations_bind_from_requests": speed.flips_at,
        "multiplied_in": speed.multiplied,
        "speed_source": plan.speed_source,
        "cost": _cost(plan),
        "bus_bytes_per_token": plan.held.crossing,
        "devices": _devices(plan),
        "host": _host(plan),
        "on_host": plan.asked.on_host,
        "terms": [
            {"name": t.name, "device": t.device, "bytes": [t.low, t.high], "source": t.source}
            for t in plan.held.terms
            if plan.compute is not None or t.name != "compute"
        ],
        "notes": [*plan.notes, *speed.notes],
    }


def _interval(given: tuple[float, float] | None) -> list[float] | None:
    return None if given is None else [round(given[0], 3), round(given[1], 3)]


def _cost(plan: Plan) -> dict[str, Any]:
    """Per device of the site; a host beside it costs more, which no site says."""
    asked = plan.asked
    decode, prompt = (cost(asked.site, plan.speed, asked.devices) for cost in (decode_cost, prompt_cost))
    return {
        "decode_dollars_per_million_tokens": _interval(decode.dollars),
        "prompt_dollars_per_million_tokens": _interval(prompt.dollars),
        "decode_joules_per_token": _interval(decode.joules),
        "prompt_joules_per_token": _interval(prompt.joules),
        "source": decode.source,
    }


def _host(plan: Plan) -> dict[str, Any] | None:
    """What the machine around a GPU holds of a model that is on both; None where it holds none."""
    found = host_share(plan.asked, plan.held)
    if found is None:
        return None
    return {
        "name": found.name,
        "layers": plan.asked.layers_behind,
        "layers_of_experts": plan.asked.mixtures_behind,
        "bytes": list(found.bytes),
        "limit_bytes": found.limit_bytes,
    }


def _devices(plan: Plan) -> dict[str, Any] | None:
    """Of several devices, what each run of layers holds; None where there is one."""
    if plan.held.stages is None:
        return None
    split = plan.held.stages.split
    # A latent cache has no heads: every device keeps it whole.
    latent = any(layer.attention is not None and layer.attention.latent for layer in plan.asked.decoder.layers)
    return {
        "count": plan.asked.devices,
        "tensor_parallel": split.tensor,
        "pipeline_parallel": split.pipeline,
        "stages": [
            {"layers": layers, "weights_bytes": weights, "total_bytes": list(memory.on("gpu"))}
            for layers, weights, memory in zip(split.layers, split.weights_bytes, plan.held.stages.memory, strict=True)
        ],
        "kv_heads": None if latent else split.kv_heads,
        "devices_with_the_same_kv_heads": split.copies,
        "link_bytes_per_token": split.link_bytes,
        "messages_per_token": split.messages,
        "source": split.source,
    }
