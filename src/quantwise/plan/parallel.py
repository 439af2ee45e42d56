"""A model over several devices: bytes on each, what crosses their links, and what that does to speed.

Tensor parallel splits every matrix (Shoeybi et al., Megatron-LM, arXiv 1909.08053): query heads, key-value heads,
columns of the feed-forward layer and the vocabulary. Where there are fewer key-value heads than devices, each device
keeps one and several keep the same: caches then shrink no further (vLLM does so; it wants one number to divide the
other). The latent cache of DeepSeek's attention has no heads and is kept whole by every device. Two sums a layer cross
the links.

Pipeline parallel gives each device a run of layers: one hidden state crosses from stage to stage, one request is no
faster, and several at a time keep all stages busy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder
from quantwise.plan.speed import Interval, ServedDecoder, Speed, speed, without_times
from quantwise.plan.work import bytes_of, cache_numbers, work_of
from quantwise.scenarios.site import Site

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|blk)\.(\d+)\.")
_KEYS_VALUES = re.compile(r"\.(k_proj|v_proj|attn_k|attn_v|k_b_proj|v_b_proj)\.")
_FUSED = re.compile(r"\.(qkv_proj|query_key_value|attn_qkv|c_attn)\.")
_WHOLE = re.compile(r"\.(kv_a_proj_with_mqa|q_a_proj|attn_kv_a_mqa|attn_q_a|gate|ffn_gate_inp|router)\.weight$")
_OUTPUT = re.compile(r"^(lm_head|output|embed_out)\.|(^|\.)(norm|final_layernorm|output_norm|ln_f)\.")
# Seconds that one small sum over the devices takes beside its bytes. NVIDIA's aiconfigurator (systems/rtx_5090.yaml,
# 2026) takes 10 us; through a host it is several times that. Not measured here.
MESSAGE_SECONDS: Interval = (10e-6, 50e-6)
# Hidden states cross in 16 bit.
_STATE_BYTES = 2
PROMPT = 512


@dataclass(frozen=True, slots=True)
class DeviceSplit:
    """What each device holds and sends. ``weights_bytes`` and ``layers`` are by pipeline stage, of one device in it.

    ``cache_numbers`` are those that one token leaves on one device, of the stage that keeps most. ``kv_heads`` are
    those of a device in its widest layer, ``copies`` how many devices keep the same ones. ``link_bytes`` cross the
    busiest link in one direction, ``messages`` are waited for, both for one token.
    """

    tensor: int
    pipeline: int
    layers: tuple[int, ...]
    weights_bytes: tuple[int, ...]
    cache_numbers: int
    kv_heads: int
    copies: int
    link_bytes: int
    messages: int
    source: str = "arXiv 1909.08053; key-value heads as in vLLM; ring sums send 2 (n - 1) / n of their bytes"


def split_devices(decoder: Decoder, stored: Mapping[str, int], tensor: int = 1, pipeline: int = 1) -> DeviceSplit:
    """Split a decoder whose tensors take ``stored`` bytes over ``tensor * pipeline`` devices.

    Raises InputError where its heads or layers do not split so.
    """
    for name, count in (("tensor", tensor), ("pipeline", pipeline)):
        if count < 1:
            raise InputError(f"{name} parallel over {count} devices; give a whole number of at least 1")
    if pipeline > len(decoder.layers):
        raise InputError(f"{len(decoder.layers)} layers do not split into {pipeline} stages; take fewer stages")
    kinds = [layer.attention for layer in decoder.layers if layer.attention is not None]
    for kind in kinds:
        _check_heads(kind, tensor)
    runs = layer_runs(len(decoder.layers), pipeline)
    weights = [0] * pipeline
    for name, amount in stored.items():
        share = _share(decoder, name, tensor)
        for stage in _stages(decoder, name, runs):
            weights[stage] += math.ceil(amount * share)
    device = device_decoder(decoder, tensor)
    kept = [cache_numbers(_stage(device, run), 1) - sum(layer.state for layer in decoder.layers[run]) for run in runs]
    kv_heads = max((_kv_heads(kind, tensor) for kind in kinds), default=0)
    widest = max((kind.kv_heads for kind in kinds), default=0)
    sums = 2 * max(run.stop - run.start for run in runs) * pipeline if tensor > 1 else 0
    ring = 2 * (tensor - 1) / tensor
    per_stage = 2 * (runs[0].stop - runs[0].start) * ring * decoder.hidden if tensor > 1 else 0
    hop = decoder.hidden if pipeline > 1 else 0
    return DeviceSplit(
        tensor=tensor,
        pipeline=pipeline,
        layers=tuple(run.stop - run.start for run in runs),
        weights_bytes=tuple(weights),
        cache_numbers=max(kept),
        kv_heads=kv_heads,
        copies=max(1, tensor * kv_heads // widest) if widest else 1,
        link_bytes=math.ceil(_STATE_BYTES * (per_stage + hop)),
        messages=sums + pipeline - 1,
    )


def device_decoder(decoder: Decoder, tensor: int) -> Decoder:
    """The decoder as one of ``tensor`` devices sees it: its heads, and the cache that it keeps."""
    layers = tuple(
        layer
        if layer.attention is None
        else replace(
            layer,
            attention=replace(
                layer.attention, heads=layer.attention.heads // tensor, kv_heads=_kv_heads(layer.attention, tensor)
            ),
        )
        for layer in decoder.layers
    )
    return replace(decoder, layers=layers)


def parallel_speed(
    site: Site, served: ServedDecoder, stored: Mapping[str, int], plan: DeviceSplit, batch: int = 1
) -> Speed:
    """Speed of ``plan`` on devices of ``site``; where no link is known, the bus is taken for it.

    Tensor parallel: a step is that of the heaviest stage's share, and the messages. Pipeline: a request passes all
    stages, each of which has its share of the batch at a time. Unknown where neither link nor bus is known.
    """
    link = site.link or site.bus
    at_once = max(1, batch // plan.pipeline)
    device = device_decoder(served.decoder, plan.tensor)
    work, total = work_of(served.decoder), bytes_of(served.decoder, stored)
    heaviest = max(plan.weights_bytes) / max(1, total.total)
    runs = layer_runs(len(served.decoder.layers), plan.pipeline)
    longest = max(runs, key=lambda run: run.stop - run.start)
    mine = replace(
        served,
        decoder=_stage(device, longest),
        work=replace(work, dense=round(work.dense * heaviest), expert=round(work.expert * heaviest)),
        output=round(served.decoder.vocab * served.decoder.hidden * heaviest),
        stored=replace(total, dense=round(total.dense * heaviest), expert=round(total.expert * heaviest)),
    )
    alone = speed(site, mine, at_once, PROMPT)
    if link is None and plan.tensor * plan.pipeline > 1:
        return replace(without_times(alone, f"how {site.name} is linked is unknown"), batch=batch)
    if alone.decode_seconds is None:
        return replace(alone, batch=batch)
    step = _passed(alone.decode_seconds, plan, link, at_once)
    prompt = None if alone.prefill_seconds is None else _passed(alone.prefill_seconds, plan, link, PROMPT)
    busy = min(batch, at_once * plan.pipeline)
    return replace(
        alone,
        batch=batch,
        decode_seconds=step,
        decode_per_request=(1 / step[1], 1 / step[0]),
        decode_total=(busy / step[1], busy / step[0]),
        prefill_seconds=prompt,
        prefill=None if prompt is None else (PROMPT / prompt[1], PROMPT / prompt[0]),
        notes=(*alone.notes, *_told(plan, batch)),
    )


def _passed(of_stage: Interval, plan: DeviceSplit, link: float | None, tokens: int) -> Interval:
    """Seconds in which ``tokens`` tokens pass all stages, with what they send and wait for."""
    sent = plan.link_bytes * tokens / link if link else 0.0
    waits = plan.messages / plan.pipeline
    low, high = (plan.pipeline * (s + waits * w + sent) for s, w in zip(of_stage, MESSAGE_SECONDS, strict=True))
    return low, high


def _told(plan: DeviceSplit, batch: int) -> list[str]:
    told = []
    if plan.copies > 1:
        told.append(f"{plan.copies} devices keep the same key-value head: caches do not shrink beyond {plan.kv_heads}")
    if plan.pipeline > 1:
        told.append("stages wait for each other: one request is no faster than on one device with all the layers")
    if plan.pipeline > 1 and batch < plan.pipeline:
        told.append(f"requests at a time: {batch}; busy stages: {batch} of {plan.pipeline}")
    return told


def _check_heads(kind: Attention, tensor: int) -> None:
    if kind.heads % tensor:
        raise InputError(f"{kind.heads} heads do not split over {tensor} devices; take a divisor, or pipeline stages")
    if not kind.latent and kind.kv_heads % tensor and tensor % kind.kv_heads:
        raise InputError(
            f"{kind.kv_heads} key-value heads neither split over {tensor} devices nor repeat evenly; "
            "take a divisor or a multiple of them"
        )


def _kv_heads(kind: Attention, tensor: int) -> int:
    return max(1, kind.kv_heads // tensor)


def layer_runs(layers: int, pipeline: int) -> list[slice]:
    """Runs of layers, the longer ones first."""
    edges = [0]
    for stage in range(pipeline):
        edges.append(edges[-1] + layers // pipeline + (stage < layers % pipeline))
    return [slice(a, b) for a, b in pairwise(edges)]


def _stage(decoder: Decoder, run: slice) -> Decoder:
    return replace(decoder, layers=decoder.layers[run])


def _stages(decoder: Decoder, name: str, runs: list[slice]) -> list[int]:
    """The stages that hold a tensor: its layer's; the last one for the output; a tied embedding is on both ends."""
    if (found := _LAYER.search(name)) is not None:
        return [next((i for i, run in enumerate(runs) if run.start <= int(found.group(1)) < run.stop), len(runs) - 1)]
    if _OUTPUT.search(name):
        return [len(runs) - 1]
    return sorted({0, len(runs) - 1}) if decoder.tied and len(decoder.tensors.get(name, ())) > 1 else [0]


def _share(decoder: Decoder, name: str, tensor: int) -> float:
    """The share of a tensor that one of ``tensor`` devices keeps."""
    if tensor == 1 or len(decoder.tensors.get(name, ())) < 2 or _WHOLE.search(name):
        return 1.0
    found = _LAYER.search(name)
    index = int(found.group(1)) if found else len(decoder.layers)
    kind = decoder.layers[index].attention if index < len(decoder.layers) else None
    if kind is None or kind.latent:
        return 1 / tensor
    if _KEYS_VALUES.search(name):
        return _kv_heads(kind, tensor) / kind.kv_heads
    if _FUSED.search(name):
        return (kind.heads / tensor + 2 * _kv_heads(kind, tensor)) / (kind.heads + 2 * kind.kv_heads)
    return 1 / tensor
