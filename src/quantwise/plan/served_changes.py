"""What may be changed of a model that is served, and how much each change loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from quantwise.plan.fix import Change, ServedCase

_LEAST_CONTEXT = 2048


def usual_changes(
    case: ServedCase,
    *,
    caches: Sequence[str] = (),
    schemes: Sequence[str] = (),
    models: Sequence[str] = (),
    sites: Sequence[str] = (),
    layers: int = 0,
    devices: int = 0,
) -> list[Change]:
    """What may usually be changed. ``caches``, ``schemes`` and ``models`` go from larger to smaller, ``sites`` from
    cheap to dear; of the first three those after the case's own are taken, of sites all others. ``layers`` above 0 lets
    that many move to the CPU, and no more than must; ``devices`` lets that many of the site's work together. Contexts
    go down to a quarter and not below 2048 tokens; requests at a time to one.

    Costs count how much is lost: an 8-bit cache 1, fewer bits 4 and more; half the requests 2; half the context 3;
    up to a quarter of the layers on the CPU 3, because each token waits for them; half the ubatch 1 (slower prompts);
    twice the devices 8, stages of them 9.
    """
    told = [
        Change("cache", name, "setting", 1 if _eight_bit(name) else 3 + i, "answers may differ: measure the task")
        for i, name in enumerate(_after(caches, case.cache), 1)
    ]
    ubatches = [case.ubatch >> i for i in (1, 2) if case.ubatch >> i >= 64]
    told += [Change("ubatch", n, "setting", i, "prompts are read more slowly") for i, n in enumerate(ubatches, 1)]
    requests = [case.concurrency >> i for i in range(1, case.concurrency.bit_length())]
    told += [Change("concurrency", n, "setting", 2 * i, "others wait longer") for i, n in enumerate(requests, 1)]
    contexts = [case.context >> i for i in (1, 2) if case.context >> i >= _LEAST_CONTEXT]
    told += [Change("context", n, "setting", 3 * i, "longer texts are cut off") for i, n in enumerate(contexts, 1)]
    told += _fewer_layers(case, layers) if layers else []
    for kind, names, own in (("scheme", schemes, case.scheme), ("model", models, case.model)):
        loses = "quality is unknown until measured"
        told += [_named(kind, name, i, loses) for i, name in enumerate(_after(names, own), 1)]
    told += _more_devices(case, devices)
    other = [name for name in sites if name != case.site]
    return told + [_named("site", name, i, "another machine") for i, name in enumerate(other, 1)]


def _fewer_layers(case: ServedCase, layers: int) -> list[Change]:
    """Down by quarters, the last one but for one layer, and to none. The output counts as one layer more."""
    held = layers + 1 if case.gpu_layers is None else min(case.gpu_layers, layers + 1)
    steps = sorted({min(held, layers) * left // 4 for left in range(4)} | {1}, reverse=True)
    steps = [step for step in steps if step < held]
    tops = [held, *steps]
    return [
        Change("gpu_layers", step, "setting", 3 * i, "the rest runs on the CPU", below=top)
        for i, (step, top) in enumerate(zip(steps, tops, strict=False), 1)
    ]


def own_context(case: ServedCase, trained: int) -> list[Change]:
    """Back to what the model was trained for, where more was asked for: that costs nothing, so it comes first."""
    if case.context <= trained:
        return []
    return [Change("context", trained, "setting", 0, "nothing: the model was trained for no more")]


def more_experts_away(case: ServedCase, layers: int) -> list[Change]:
    """Experts of so many layers with the host: up by quarters, from the first layer on, and no more than must.

    Of each further quarter the cost is 2: a token needs few of them.
    """
    steps = sorted({-(-layers * part // 4) for part in range(1, 5)} if layers else ())
    steps = [step for step in steps if step > case.experts_on_cpu]
    tops = [case.experts_on_cpu, *steps]
    return [
        Change("experts_on_cpu", step, "setting", 2 * i, "these experts run on the CPU", below=top)
        for i, (step, top) in enumerate(zip(steps, tops, strict=False), 1)
    ]


def _more_devices(case: ServedCase, most: int) -> list[Change]:
    """Twice as many, and so on: each with a share of every layer, or else of the layers."""
    own = case.tensor_parallel * case.pipeline_parallel
    knobs = (("tensor_parallel", case.tensor_parallel), ("pipeline_parallel", case.pipeline_parallel))
    return [
        Change(knob, now << i, "devices", 8 * i + stages, f"{(own << i) - own} more of these GPUs")
        for stages, (knob, now) in enumerate(knobs)
        for i in range(1, (most // own).bit_length())
    ]


def _named(kind: str, name: str, cost: int, loses: str) -> Change:
    knob: Literal["scheme", "model", "site"] = "scheme" if kind == "scheme" else "model" if kind == "model" else "site"
    return Change(knob, name, knob, cost, loses)


def _after(names: Sequence[str], own: str) -> Sequence[str]:
    """What comes after the case's own name; everything where that is not listed."""
    return names[names.index(own) + 1 :] if own in names else names


def _eight_bit(cache: str) -> bool:
    return "8" in cache.split("/")[0]
