"""A model split between a GPU and the processor by llama.cpp: which layer lies where, and what crosses the bus.

``-ngl N`` counts from the last layer and the output comes last of all: N above the number of layers puts everything on
the GPU but the embedding's rows, which the processor looks up. ``--n-cpu-moe K`` keeps the experts of the first K
layers on the processor. Buffers of GPUs could not be compared with logs here.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder
from quantwise.plan.constants import APPLE_SHARES, XLLAMACPP_2026_10, LlamacppBuild
from quantwise.plan.llamacpp.cache import layer_cache
from quantwise.plan.llamacpp.compute import LlamacppCompute, llamacpp_compute
from quantwise.plan.llamacpp.file import FileTensor, repacked_bytes, tied_bytes
from quantwise.plan.llamacpp.memory import compute_terms, process_term
from quantwise.plan.llamacpp.model import as_llamacpp
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.terms import Device, Memory, Term

_LAYER = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class LayerSplit:
    """A server on two devices.

    ``memory`` by term and device. ``crossing`` bytes go over the bus for each generated token, ``prompt_crossing`` for
    each batch of a prompt, when weights of the processor's layers are copied to the GPU too. ``read_cpu`` and
    ``read_gpu`` bytes of weights are read on each device for one token: of experts only those that are used.
    """

    gpu_layers: int
    experts_on_cpu: int
    memory: Memory
    crossing: int
    prompt_crossing: int
    read_cpu: int
    read_gpu: int


def split_layers(
    decoder: Decoder,
    tensors: Sequence[FileTensor],
    settings: LlamacppSettings,
    build: LlamacppBuild = XLLAMACPP_2026_10,
    *,
    compute: LlamacppCompute | None = None,
) -> LayerSplit:
    """The memory and the traffic of ``settings.gpu_layers`` and ``settings.experts_on_cpu``.

    ``compute`` spares the replay of the graph where it is known. Raises InputError as the cache does.
    """
    decoder = as_llamacpp(decoder)
    compute = compute or llamacpp_compute(decoder, settings, build)
    places = [(tensor, device_of(tensor, decoder, settings)) for tensor in tensors]
    here: dict[Device, list[FileTensor]] = {"cpu": [], "gpu": []}
    for tensor, device in places:
        here[device].append(tensor)
    output_on_gpu = settings.gpu_layers > 0
    copied = tied_bytes(tensors) if output_on_gpu else 0
    caches: dict[Device, int] = {"cpu": 0, "gpu": 0}
    for layer in range(len(decoder.layers)):
        caches[_layer_device(layer, decoder, settings)] += sum(layer_cache(decoder, settings, layer))
    weights = {device: sum(tensor.bytes for tensor in those) for device, those in here.items()}
    repacked = repacked_bytes(here["cpu"], build) if not output_on_gpu else _repacked(here["cpu"], build)
    terms = [
        Term("weights", "cpu", weights["cpu"], weights["cpu"], "the tensors that stay there, mapped"),
        Term("repacked", "cpu", repacked, repacked, "ggml/src/ggml-cpu/repack.cpp, AVX2"),
        Term("cache", "cpu", caches["cpu"], caches["cpu"], "its layers' share"),
        *compute_terms(compute, "gpu" if output_on_gpu else "cpu"),
        process_term(decoder, build),
    ]
    if output_on_gpu:
        terms += [
            Term(
                "weights", "gpu", weights["gpu"] + copied, weights["gpu"] + copied, "its tensors, a tied output copied"
            ),
            Term("cache", "gpu", caches["gpu"], caches["gpu"], "its layers' share"),
            Term("context", "gpu", build.device.low, build.device.high, build.device.source),
        ]
    return LayerSplit(
        gpu_layers=settings.gpu_layers,
        experts_on_cpu=settings.experts_on_cpu,
        memory=Memory(tuple(terms)),
        crossing=_crossing(decoder, settings, 1),
        prompt_crossing=_crossing(decoder, settings, settings.reserved_tokens) + _copied_for_prompts(here, settings),
        read_cpu=sum(_read(tensor, decoder) for tensor in here["cpu"]) + (0 if output_on_gpu else tied_bytes(tensors)),
        read_gpu=sum(_read(tensor, decoder) for tensor in here["gpu"]) + copied,
    )


def largest_gpu_layers(
    decoder: Decoder,
    tensors: Sequence[FileTensor],
    settings: LlamacppSettings,
    gpu_bytes: int,
    build: LlamacppBuild = XLLAMACPP_2026_10,
    *,
    compute: LlamacppCompute | None = None,
) -> int:
    """The most layers (``-ngl``) whose highest estimate fits into ``gpu_bytes``; 0 where not even the output does."""
    decoder = as_llamacpp(decoder)
    compute = compute or llamacpp_compute(decoder, settings, build)

    def needed(layers: int) -> int:
        wanted = replace(settings, gpu_layers=layers)
        return split_layers(decoder, tensors, wanted, build, compute=compute).memory.on("gpu")[1]

    # Every further layer takes more.
    return bisect_right(range(1, len(decoder.layers) + 2), gpu_bytes, key=needed)


def fewest_experts_on_cpu(
    decoder: Decoder,
    tensors: Sequence[FileTensor],
    settings: LlamacppSettings,
    gpu_bytes: int,
    build: LlamacppBuild = XLLAMACPP_2026_10,
    *,
    compute: LlamacppCompute | None = None,
) -> int | None:
    """The fewest layers whose experts must stay on the processor so that all else fits; None where nothing does."""
    decoder = as_llamacpp(decoder)
    compute = compute or llamacpp_compute(decoder, settings, build)
    count = len(decoder.layers)

    def spared(kept: int) -> int:
        wanted = replace(settings, gpu_layers=count + 1, experts_on_cpu=kept)
        return -split_layers(decoder, tensors, wanted, build, compute=compute).memory.on("gpu")[1]

    # Every further layer's experts leave room.
    kept = bisect_left(range(count + 1), -gpu_bytes, key=spared)
    return kept if kept <= count else None


def unified_bytes(memory: int) -> tuple[int, str]:
    """Bytes that the GPU of an Apple machine may take of ``memory`` by default, and who says so."""
    if memory < 1:
        raise InputError(f"memory must be above 0 bytes, not {memory}")
    found = next(share for share in APPLE_SHARES if memory < share.below)
    return int(memory * found.share), found.source


def device_of(tensor: FileTensor, decoder: Decoder, settings: LlamacppSettings) -> Device:
    """Where a tensor lies."""
    found = _LAYER.match(tensor.name)
    if found is None:
        # Rows of the embedding are looked up by the processor; everything behind the layers follows the output.
        return "gpu" if settings.gpu_layers > 0 and not tensor.name.startswith("token_embd") else "cpu"
    layer = int(found[1])
    if "_exps." in tensor.name and layer < settings.experts_on_cpu:
        return "cpu"
    return _layer_device(layer, decoder, settings)


def _layer_device(layer: int, decoder: Decoder, settings: LlamacppSettings) -> Device:
    return "gpu" if layer >= len(decoder.layers) + 1 - settings.gpu_layers else "cpu"


def _repacked(tensors: Sequence[FileTensor], build: LlamacppBuild) -> int:
    """As ``repacked_bytes`` where the output matrix is elsewhere."""
    return repacked_bytes([tensor for tensor in tensors if not tensor.name.startswith("token_embd")], build)


def _crossing(decoder: Decoder, settings: LlamacppSettings, tokens: int) -> int:
    """Hidden states in float32: once to the GPU, and there and back around every layer's experts that stay behind."""
    if settings.gpu_layers == 0:
        return 0
    state = 4 * decoder.hidden * tokens
    there = range(min(settings.experts_on_cpu, len(decoder.layers)))
    apart = sum(
        decoder.layers[layer].experts > 0 and _layer_device(layer, decoder, settings) == "gpu" for layer in there
    )
    return state * (1 + 2 * apart) + 4 * decoder.vocab


def _copied_for_prompts(here: dict[Device, list[FileTensor]], settings: LlamacppSettings) -> int:
    """Matrices of the processor that llama.cpp copies to the GPU for a batch of 32 tokens or more."""
    if settings.gpu_layers == 0 or settings.reserved_tokens < 32:
        return 0
    return sum(t.bytes for t in here["cpu"] if len(t.shape) > 1 and not t.name.startswith("token_embd"))


def _read(tensor: FileTensor, decoder: Decoder) -> int:
    """Bytes read for one token: a row of the embedding, the experts that are used, all of anything else."""
    if tensor.name.startswith("token_embd"):
        return tensor.bytes // max(decoder.vocab, 1)
    found = _LAYER.match(tensor.name)
    if found is None or "_exps." not in tensor.name:
        return tensor.bytes
    layer = decoder.layers[int(found[1])]
    return tensor.bytes * layer.experts_used // max(layer.experts, 1)
