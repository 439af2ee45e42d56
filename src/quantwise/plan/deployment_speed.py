"""How fast a deployment is, and what says so: a roofline, on one device or several, or measured kernels."""

from __future__ import annotations

from dataclasses import replace

from quantwise.core.packing import NARROW_ROWS
from quantwise.core.scheme import Scheme, parse_scheme
from quantwise.plan.decoder_weights import Weights
from quantwise.plan.deployment import CONSTANTS, Constants, Deployment
from quantwise.plan.deployment_memory import Held, by_tensor, loaded_bytes
from quantwise.plan.layer_bytes import is_packed
from quantwise.plan.machine_rates import decode_time, read_by_type
from quantwise.plan.offload_speed import away_part, offload_speed
from quantwise.plan.parallel import parallel_speed
from quantwise.plan.speed import ServedDecoder, Speed, multiplied_in, speed, without_times
from quantwise.plan.weight_scheme import parse_weight_scheme
from quantwise.plan.what_if import cache_of
from quantwise.plan.work import cache_numbers, scaled

PROMPT = 512
_ROOFLINE = "roofline, not measured"


def deployment_speed(
    asked: Deployment, weights: Weights, held: Held, constants: Constants = CONSTANTS
) -> tuple[Speed, str]:
    """By the roofline; of one request in llama.cpp on this machine by its kernels, where they were measured."""
    if asked.on_host and asked.host is not None:
        return deployment_speed(replace(asked, site=asked.host, gpu_layers=None, host=None), weights, held, constants)
    served = _served(asked, weights, constants)
    if held.stages is not None:
        own = replace(served, decoder=asked.computed)
        found = parallel_speed(asked.site, own, by_tensor(asked), held.stages.split, asked.concurrency)
        return found, _ROOFLINE
    prompt = min(PROMPT, asked.context)
    if asked.is_partial or asked.on_host:
        return _offloaded(asked, served, prompt)
    found = speed(asked.site, served, asked.concurrency, prompt)
    if (rows := _rows_of_kernel(asked)) is not None and asked.concurrency > rows:
        return without_times(
            found,
            f"with more than {rows} requests at a time Transformers widens packed weights in every step; how long that "
            "takes is not planned, and it may be slower than 16 bit",
        ), _ROOFLINE
    if asked.machine is None or asked.runtime != "llamacpp" or asked.concurrency > 1:
        return found, _ROOFLINE
    gguf = asked.model.in_gguf
    read = read_by_type(gguf, ((t.name, t.type, t.bytes) for t in asked.model.tensors(asked.scheme)))
    time = decode_time(asked.machine, gguf, read, served.context, asked.cache)
    if time is None:
        return found, _ROOFLINE
    rate = 1 / time.interval[1], 1 / time.interval[0]
    return replace(found, decode_seconds=time.interval, decode_per_request=rate, decode_total=rate), time.source


def _offloaded(asked: Deployment, served: ServedDecoder, prompt: int) -> tuple[Speed, str]:
    host = asked.host
    if host is None or host.bandwidth is None:
        found = speed(asked.site, served, asked.concurrency, prompt)
        lacks = (
            "what the processor adds is unknown: name the machine around the GPU with --host, or measure this one with "
            "--measure-machine"
            if host is None
            else f"the bandwidth of {host.name} is unknown, so is what it adds"
        )
        return without_times(found, lacks), _ROOFLINE
    away = away_part(served, asked.layers_behind, asked.mixtures_behind)
    found = offload_speed(asked.site, host, served, away, asked.concurrency, prompt)
    return found, f"rooflines of {asked.site.name} and {host.name}, not measured together"


def _served(asked: Deployment, weights: Weights, constants: Constants) -> ServedDecoder:
    """What is served to one request whose context is half full."""
    decoder, scheme = asked.decoder, _scheme(asked.scheme)
    multiplied = multiplied_in(scheme, asked.runtime, asked.site) if scheme else "bf16"
    numbers = max(1, cache_numbers(decoder, asked.context))
    one = replace(asked.demand, concurrency=1)
    each = cache_of(asked.runtime, asked.computed, one, constants.vllm_on(asked)) / numbers
    work = asked.model.work
    return ServedDecoder(
        decoder, work, scaled(work, loaded_bytes(asked, weights)), multiplied, max(1, asked.context // 2), each
    )


def _rows_of_kernel(asked: Deployment) -> int | None:
    """Up to how many requests Transformers decodes with a kernel for few bits; None without one."""
    scheme = _scheme(asked.scheme)
    if asked.runtime != "transformers" or asked.device == "gpu" or scheme is None or not is_packed(scheme):
        return None
    return NARROW_ROWS[scheme.bits]


def _scheme(name: str) -> Scheme | None:
    recipe = parse_weight_scheme(name).recipe
    return recipe.scheme if recipe else parse_scheme("q4_k_m") if "q" in name else None
