"""What each of several GPUs holds: the terms of every run of layers, of one device in it.

vLLM and Transformers split as ``parallel`` says. llama.cpp gives layer ``i`` of ``n``, the output counted as one more,
to device ``i * devices // (n + 1)`` where all have the same memory (src/llama-model.cpp, 2026); no log of several GPUs
could be held against its buffers here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from quantwise.models.decoder import Decoder
from quantwise.plan.constants import LlamacppBuild, VllmVersion
from quantwise.plan.llamacpp.cache import layer_caches
from quantwise.plan.llamacpp.compute import LlamacppCompute
from quantwise.plan.llamacpp.memory import compute_terms, process_term
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.llamacpp.tally import FileTally
from quantwise.plan.parallel import DeviceSplit, device_decoder, layer_runs
from quantwise.plan.runtime_memory import transformers_memory, vllm_memory
from quantwise.plan.terms import Memory, Term, exactly
from quantwise.plan.what_if import Demand

# GGML_SCHED_MAX_COPIES: where stages work at the same time, what is handed on is kept this often.
_COPIES = 4


@dataclass(frozen=True, slots=True)
class Stages:
    """``memory`` by run of layers, of one device in it with the host's terms beside; ``split`` says who has what."""

    split: DeviceSplit
    memory: tuple[Memory, ...]

    @property
    def fullest(self) -> Memory:
        """The one that most bytes are needed for."""
        return max(self.memory, key=lambda stage: stage.on("gpu")[1])


def folder_stages(runtime: str, decoder: Decoder, found: DeviceSplit, demand: Demand, version: VllmVersion) -> Stages:
    """Of vLLM or Transformers, split as was ``found``. Raises InputError as the runtimes' caches do."""
    tensor = found.tensor
    stages = []
    for run, weights in zip(layer_runs(len(decoder.layers), found.pipeline), found.weights_bytes, strict=True):
        layers = decoder.layers[run]
        if runtime == "vllm":
            memory = vllm_memory(replace(decoder, layers=layers), 0, demand, parallel=tensor, version=version)
        else:
            narrow = tuple(replace(layer, feed_forward=math.ceil(layer.feed_forward / tensor)) for layer in layers)
            mine = device_decoder(replace(decoder, layers=narrow), tensor)
            memory = transformers_memory(mine, 0, demand, device="gpu")
        held = exactly("weights", "gpu", weights, found.source)
        stages.append(Memory((held, *(term for term in memory.terms if term.name != "weights"))))
    return Stages(found, tuple(stages))


def llamacpp_stages(
    decoder: Decoder, file: FileTally, found: DeviceSplit, settings: LlamacppSettings, build: LlamacppBuild,
    compute: LlamacppCompute,
) -> Stages:  # fmt: skip
    """Of llama.cpp with all layers on GPUs, split as was ``found`` but for what its own rule says of layers;
    ``decoder`` as llama.cpp computes it.
    """
    count, devices = len(decoder.layers), found.pipeline
    places = [layer * devices // (count + 1) for layer in range(count + 1)]
    weights, caches = [0] * devices, [0] * devices
    for layer, own in (*file.layers.items(), *file.experts.items()):
        weights[places[min(layer, count)]] += own.bytes
    weights[-1] += file.outside.bytes + file.tied
    for layer, kept in enumerate(layer_caches(decoder, settings)):
        caches[places[layer]] += sum(kept)
    handed = 4 * settings.ubatch * (decoder.hidden + settings.cells)
    shared = (
        exactly("weights", "cpu", file.embedding.bytes, "rows of the embedding, mapped"),
        *compute_terms(compute, "gpu"),
        Term("copies", "gpu", 0, _COPIES * handed, "ggml/src/ggml-backend.cpp: hidden states and masks, four times"),
        process_term(decoder, build),
        Term("context", "gpu", build.device.low, build.device.high, build.device.source),
    )
    stages = tuple(
        Memory(
            (
                exactly("weights", "gpu", weights[stage], "the tensors of its layers; the last has the output"),
                exactly("cache", "gpu", caches[stage], "its layers' share"),
                *shared,
            )
        )
        for stage in range(devices)
    )
    layers = tuple(places[:count].count(stage) for stage in range(devices))
    return Stages(replace(found, layers=layers, weights_bytes=tuple(weights)), stages)
