"""What each of several GPUs holds: the terms of every run of layers, of one device in it.

vLLM and Transformers split as ``parallel`` says. llama.cpp gives layer ``i`` of ``n``, the output counted as one more,
to device ``i * devices // (n + 1)`` where all have the same memory (src/llama-model.cpp, 2026); no log of several GPUs
could be held against its buffers here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quantwise.models.decoder import Decoder
from quantwise.plan.constants import LlamacppBuild, VllmVersion
from quantwise.plan.llamacpp.cache import layer_cache
from quantwise.plan.llamacpp.compute import LlamacppCompute
from quantwise.plan.llamacpp.file import FileTensor, tied_bytes
from quantwise.plan.llamacpp.memory import compute_terms, process_term
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.parallel import DeviceSplit, device_decoder, layer_runs, split_devices
from quantwise.plan.runtime_memory import transformers_memory, vllm_memory
from quantwise.plan.terms import Memory, Term, exactly
from quantwise.plan.what_if import Demand

_LAYER = re.compile(r"blk\.(\d+)\.")
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


def folder_stages(
    runtime: str, decoder: Decoder, stored: Mapping[str, int], demand: Demand, devices: tuple[int, int],
    version: VllmVersion,
) -> Stages:  # fmt: skip
    """Of vLLM or Transformers; ``stored`` is the bytes of each tensor, ``devices`` (tensor, pipeline) parallel.

    Raises InputError where heads or layers do not split so, and as the runtimes' caches do.
    """
    tensor, pipeline = devices
    found = split_devices(decoder, stored, tensor, pipeline)
    stages = []
    for run, weights in zip(layer_runs(len(decoder.layers), pipeline), found.weights_bytes, strict=True):
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
    decoder: Decoder, tensors: Sequence[FileTensor], settings: LlamacppSettings, build: LlamacppBuild,
    compute: LlamacppCompute, devices: int,
) -> Stages:  # fmt: skip
    """Of llama.cpp with all layers on ``devices`` GPUs; ``decoder`` as llama.cpp computes it."""
    count = len(decoder.layers)
    found = split_devices(decoder, {tensor.name: tensor.bytes for tensor in tensors}, 1, devices)
    places = [layer * devices // (count + 1) for layer in range(count + 1)]
    weights, caches = [0] * devices, [0] * devices
    for tensor in tensors:
        if not tensor.name.startswith("token_embd"):
            at = _LAYER.match(tensor.name)
            weights[places[int(at[1]) if at else count]] += tensor.bytes
    weights[-1] += tied_bytes(tensors)
    for layer in range(count):
        caches[places[layer]] += sum(layer_cache(decoder, settings, layer))
    looked_up = sum(tensor.bytes for tensor in tensors if tensor.name.startswith("token_embd"))
    handed = 4 * settings.ubatch * (decoder.hidden + settings.cells)
    shared = (
        exactly("weights", "cpu", looked_up, "rows of the embedding, mapped"),
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
