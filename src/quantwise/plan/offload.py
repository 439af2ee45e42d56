"""A model split between a GPU and the processor by llama.cpp: which layer lies where, and what crosses the bus.

``-ngl N`` counts from the last layer and the output comes last of all: N above the number of layers puts everything on
the GPU but the embedding's rows, which the processor looks up. ``--n-cpu-moe K`` keeps the experts of the first K
layers on the processor. Buffers of GPUs could not be compared with logs here.

The processor's share is repacked where the file's tally says so: beside a GPU whose driver pins host memory nothing is
(``deployment_memory``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantwise.models.decoder import Decoder
from quantwise.plan.constants import XLLAMACPP_2026_10, LlamacppBuild
from quantwise.plan.llamacpp.cache import layer_caches
from quantwise.plan.llamacpp.compute import LlamacppCompute, llamacpp_compute
from quantwise.plan.llamacpp.memory import compute_terms, process_term
from quantwise.plan.llamacpp.model import as_llamacpp
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.llamacpp.tally import Amounts, FileTally
from quantwise.plan.terms import Device, Memory, Term, exactly


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
    file: FileTally,
    settings: LlamacppSettings,
    build: LlamacppBuild = XLLAMACPP_2026_10,
    *,
    compute: LlamacppCompute | None = None,
    kept: Sequence[int] | None = None,
) -> LayerSplit:
    """The memory and the traffic of ``settings.gpu_layers`` and ``settings.experts_on_cpu``.

    ``compute`` spares the replay of the graph where it is known, ``kept`` (bytes by layer) the count of the cache.
    Raises InputError as the cache does.
    """
    decoder = as_llamacpp(decoder)
    compute = compute or llamacpp_compute(decoder, settings, build)
    kept = [sum(one) for one in layer_caches(decoder, settings)] if kept is None else kept
    first, output_on_gpu = _first_on_gpu(decoder, settings), settings.gpu_layers > 0
    cpu, gpu = _amounts(file, first, settings)
    copied = file.tied if output_on_gpu else 0
    caches: dict[Device, int] = {"cpu": sum(kept[:first]), "gpu": sum(kept[first:])}
    # Where all stays with the processor, a tied output matrix may be copied too.
    repacked = cpu.repacked if output_on_gpu else file.repacked
    terms = [
        Term("weights", "cpu", cpu.bytes, cpu.bytes, "the tensors that stay there, mapped"),
        Term("repacked", "cpu", repacked, repacked, "ggml/src/ggml-cpu/repack.cpp, AVX2"),
        Term("cache", "cpu", caches["cpu"], caches["cpu"], "its layers' share"),
        *compute_terms(compute, "gpu" if output_on_gpu else "cpu"),
        process_term(decoder, build),
    ]
    if output_on_gpu:
        terms += [
            exactly("weights", "gpu", gpu.bytes + copied, "its tensors, a tied output copied"),
            Term("cache", "gpu", caches["gpu"], caches["gpu"], "its layers' share"),
            Term("context", "gpu", build.device.low, build.device.high, build.device.source),
        ]
    return LayerSplit(
        gpu_layers=settings.gpu_layers,
        experts_on_cpu=settings.experts_on_cpu,
        memory=Memory(tuple(terms)),
        crossing=_crossing(decoder, settings, 1),
        prompt_crossing=_crossing(decoder, settings, settings.reserved_tokens)
        + _copied_for_prompts(file, cpu, settings),
        read_cpu=cpu.read + (0 if output_on_gpu else file.tied),
        read_gpu=gpu.read + copied,
    )


def largest_gpu_layers(
    decoder: Decoder,
    file: FileTally,
    settings: LlamacppSettings,
    gpu_bytes: int,
    build: LlamacppBuild = XLLAMACPP_2026_10,
    *,
    compute: LlamacppCompute | None = None,
    kept: Sequence[int] | None = None,
) -> int:
    """The most layers (``-ngl``) whose highest estimate fits into ``gpu_bytes``; 0 where not even the output does."""
    decoder = as_llamacpp(decoder)
    compute = compute or llamacpp_compute(decoder, settings, build)

    def needed(layers: int) -> int:
        wanted = replace(settings, gpu_layers=layers)
        return split_layers(decoder, file, wanted, build, compute=compute, kept=kept).memory.on("gpu")[1]

    # Every further layer takes more.
    return bisect_right(range(1, len(decoder.layers) + 2), gpu_bytes, key=needed)


def fewest_experts_on_cpu(
    decoder: Decoder,
    file: FileTally,
    settings: LlamacppSettings,
    gpu_bytes: int,
    build: LlamacppBuild = XLLAMACPP_2026_10,
    *,
    compute: LlamacppCompute | None = None,
    kept: Sequence[int] | None = None,
) -> int | None:
    """The fewest layers whose experts must stay on the processor so that all else fits; None where nothing does."""
    decoder = as_llamacpp(decoder)
    compute = compute or llamacpp_compute(decoder, settings, build)
    count = len(decoder.layers)

    def spared(behind: int) -> int:
        wanted = replace(settings, gpu_layers=count + 1, experts_on_cpu=behind)
        return -split_layers(decoder, file, wanted, build, compute=compute, kept=kept).memory.on("gpu")[1]

    # Every further layer's experts leave room.
    behind = bisect_left(range(count + 1), -gpu_bytes, key=spared)
    return behind if behind <= count else None


def _amounts(file: FileTally, first: int, settings: LlamacppSettings) -> tuple[Amounts, Amounts]:
    """What the processor has of a file, and the GPU, which has the layers from ``first`` on."""
    there = file.before(first, max(first, settings.experts_on_cpu))
    # Rows of the embedding are looked up by the processor; everything behind the layers follows the output.
    if settings.gpu_layers > 0:
        return there + file.embedding, file.all_layers - there + file.outside
    return there + file.embedding + file.outside, file.all_layers - there


def _first_on_gpu(decoder: Decoder, settings: LlamacppSettings) -> int:
    return max(0, len(decoder.layers) + 1 - settings.gpu_layers)


def _crossing(decoder: Decoder, settings: LlamacppSettings, tokens: int) -> int:
    """Hidden states in float32: once to the GPU, and there and back around every layer's experts that stay behind."""
    if settings.gpu_layers == 0:
        return 0
    state = 4 * decoder.hidden * tokens
    first = _first_on_gpu(decoder, settings)
    apart = sum(layer.experts > 0 for layer in decoder.layers[first : settings.experts_on_cpu])
    return state * (1 + 2 * apart) + 4 * decoder.vocab


def _copied_for_prompts(file: FileTally, cpu: Amounts, settings: LlamacppSettings) -> int:
    """Matrices of the processor that llama.cpp copies to the GPU for a batch of 32 tokens or more."""
    if settings.gpu_layers == 0 or settings.reserved_tokens < 32:
        return 0
    return cpu.matrices - file.embedding.matrices
