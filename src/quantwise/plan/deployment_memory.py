"""The terms of a deployment's memory, on every device, and those of the device that binds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quantwise.plan.constants import LlamacppBuild
from quantwise.plan.decoder_weights import Weights
from quantwise.plan.deployment import CONSTANTS, Constants, Deployment
from quantwise.plan.fit import MARGINAL
from quantwise.plan.llamacpp.compute import LlamacppCompute
from quantwise.plan.llamacpp.memory import llamacpp_memory
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.llamacpp.tally import FileTally
from quantwise.plan.loadable import check_loads
from quantwise.plan.offload import fewest_experts_on_cpu, largest_gpu_layers, split_layers
from quantwise.plan.parallel import DeviceSplit
from quantwise.plan.runtime_memory import transformers_memory, vllm_memory
from quantwise.plan.stages import Stages, folder_stages, llamacpp_stages
from quantwise.plan.terms import READ_ONCE, Memory, Term


@dataclass(frozen=True, slots=True)
class Held:
    """``terms`` of every device, where GPUs share the model of the fullest one; ``stages`` are all of these.

    ``crossing`` bytes go over the bus for each generated token.
    """

    terms: tuple[Term, ...]
    crossing: int = 0
    stages: Stages | None = None


@dataclass(frozen=True, slots=True)
class HostShare:
    """What the machine around a GPU holds, (low, high) bytes, and what it has; names and limits are None if unknown."""

    name: str | None
    bytes: tuple[int, int]
    limit_bytes: int | None


def weights_of(asked: Deployment) -> Weights:
    """Raises InputError where scheme and runtime do not suit."""
    return asked.model.weights(asked.scheme, in_gguf=asked.runtime == "llamacpp")


def held(asked: Deployment, weights: Weights, constants: Constants = CONSTANTS, *, buffers: bool = True) -> Held:
    """All terms; without ``buffers`` those of llama.cpp's graph count nothing, which is sooner told.

    Raises InputError where cache type, runtime or the number of devices do not suit the model.
    """
    if asked.runtime == "llamacpp":
        return _llamacpp(asked, constants, buffers)
    if asked.devices > 1:
        stages = folder_stages(asked.runtime, asked.decoder, _split(asked), asked.demand, constants.vllm_on(asked))
        return Held(stages.fullest.terms, stages=stages)
    amount, device = loaded_bytes(asked, weights), asked.device
    if asked.runtime == "transformers":
        return Held(transformers_memory(asked.decoder, amount, asked.demand, device=device).terms)
    version = constants.vllm_on(asked)
    return Held(vllm_memory(asked.decoder, amount, asked.demand, version=version, device=device).terms)


def loaded_bytes(asked: Deployment, weights: Weights) -> int:
    """Bytes of the weights in memory, where nothing is copied: in Transformers not as they are stored."""
    return sum(by_tensor(asked).values()) if asked.runtime == "transformers" else weights.effective


def by_tensor(asked: Deployment) -> Mapping[str, int]:
    """Bytes of each tensor in memory, where nothing is copied; of all experts by the first one's name."""
    if asked.runtime == "transformers":
        return asked.model.loaded(asked.scheme, asked.device)
    return asked.model.stored(asked.scheme, in_gguf=asked.runtime == "llamacpp")


def _split(asked: Deployment) -> DeviceSplit:
    devices = asked.tensor_parallel, asked.pipeline_parallel
    loaded = asked.device if asked.runtime == "transformers" else None
    return asked.model.split(asked.scheme, devices, in_gguf=asked.runtime == "llamacpp", loaded=loaded)


@dataclass(frozen=True, slots=True)
class Needed:
    """The totals of a whole plan, (low, high) bytes: of the memory that binds, and what the host has of the rest."""

    bytes: tuple[int, int]
    host: HostShare | None


def needed(asked: Deployment, constants: Constants = CONSTANTS, *, buffers: bool = True) -> Needed:
    """The totals alone, sooner told; without ``buffers`` less than they are.

    Raises InputError as ``held`` does, and where the runtime does not load the scheme.
    """
    check_loads(asked)
    found = held(asked, weights_of(asked), constants, buffers=buffers)
    here = binding(asked, found.terms)
    return Needed((sum(term.low for term in here), sum(term.high for term in here)), host_share(asked, found))


def needed_bytes(asked: Deployment, constants: Constants = CONSTANTS) -> tuple[int, int]:
    """The total of the memory that binds, (low, high)."""
    return needed(asked, constants).bytes


def unknown_compute(asked: Deployment) -> str | None:
    """Why nobody can say how large the buffers are that a runtime computes in; None where the terms do."""
    if asked.runtime != "llamacpp" or not any(layer.state for layer in asked.decoder.layers):
        return None
    return "llama.cpp's compute buffer is not known for models with recurrent layers, so neither is the total"


def binding(asked: Deployment, terms: Sequence[Term]) -> list[Term]:
    """The terms of the memory that binds. A machine of one memory keeps both devices' bytes in it; pages that the
    system takes back when memory is short bind nothing.
    """
    here = [term for term in terms if asked.site.kind == "unified" or term.device == asked.device]
    return [term for term in here if term.name != READ_ONCE]


@dataclass(frozen=True, slots=True)
class BoundMemory:
    """Bytes of the memory that binds: ``weights`` with what is copied of them, intervals as (low, high)."""

    weights: int
    cache: int
    compute: tuple[int, int]
    overhead: tuple[int, int]


def bound_memory(asked: Deployment, terms: Sequence[Term]) -> BoundMemory:
    """``terms`` of all devices, of the one that binds, in four sums."""
    here = binding(asked, terms)
    return BoundMemory(
        weights=_sum(here, "weights", "repacked")[1],
        cache=_sum(here, "cache")[1],
        compute=_sum(here, "compute", "outputs", "work", "copies"),
        overhead=_sum(here, "process", "libraries", "context"),
    )


def _sum(terms: Sequence[Term], *names: str) -> tuple[int, int]:
    here = [term for term in terms if term.name in names]
    return sum(term.low for term in here), sum(term.high for term in here)


def host_share(asked: Deployment, found: Held) -> HostShare | None:
    """The host's part of what a GPU serves. Where the GPU holds all layers it is small (rows of the embedding, buffers,
    the process): None then, unless a host was named that may have no room for it.
    """
    host = asked.host
    if not asked.is_partial and (host is None or not asked.on_gpu):
        return None
    low, high = Memory(found.terms).on("cpu")
    if high == 0:
        return None
    return HostShare(None, (low, high), None) if host is None else HostShare(host.name, (low, high), host.limit_bytes)


@dataclass(frozen=True, slots=True)
class MostOnGpu:
    """The largest ``-ngl`` that fits, ``of`` how many; for a mixture the least ``--n-cpu-moe`` that does.

    None where there is none: the GPU has no room, or the host is known to have none for the rest.
    """

    gpu_layers: int | None
    of: int
    experts_on_cpu: int | None


def most_on_gpu(asked: Deployment, constants: Constants = CONSTANTS) -> MostOnGpu:
    """For llama.cpp, within nine tenths of both limits."""
    settings, build = llamacpp_settings(asked), constants.llamacpp
    own, compute, file = asked.model.in_gguf, asked.model.compute(settings, build), _tally(asked, build)
    room, kept = int(MARGINAL * (asked.limit or 0)), asked.model.kept(settings)
    layers: int | None = largest_gpu_layers(own, file, settings, room, build, compute=compute, kept=kept)
    experts = None
    if any(layer.experts for layer in own.layers):
        experts = fewest_experts_on_cpu(own, file, settings, room, build, compute=compute, kept=kept)
    if not layers or not _host_has_room(replace(asked, gpu_layers=layers, experts_on_cpu=0), constants):
        layers = None
    if experts is not None and not _host_has_room(replace(asked, gpu_layers=None, experts_on_cpu=experts), constants):
        experts = None
    return MostOnGpu(layers, len(own.layers) + 1, experts)


def _host_has_room(asked: Deployment, constants: Constants) -> bool:
    """Whether the host may take the rest; an unknown one may."""
    host = needed(asked, constants).host
    return host is None or host.limit_bytes is None or host.bytes[1] <= MARGINAL * host.limit_bytes


def llamacpp_settings(asked: Deployment) -> LlamacppSettings:
    """The server's settings; where nothing is said, all layers are on a GPU that is there."""
    most = len(asked.decoder.layers) + 1
    wanted = most if asked.gpu_layers is None else min(asked.gpu_layers, most)
    return LlamacppSettings(
        context=asked.context,
        slots=asked.concurrency,
        cache=asked.cache,
        ubatch=asked.ubatch,
        gpu_layers=wanted if asked.site.kind in ("gpu", "unified") else 0,
        experts_on_cpu=asked.experts_on_cpu,
    )


def _llamacpp(asked: Deployment, constants: Constants, buffers: bool) -> Held:
    settings, build = llamacpp_settings(asked), constants.llamacpp
    own, file = asked.model.in_gguf, _tally(asked, build)
    compute = asked.model.compute(settings, build) if buffers else _NO_BUFFERS
    if settings.gpu_layers == 0:
        return Held(llamacpp_memory(own, file, settings, build, compute=compute).terms)
    if asked.devices > 1:
        stages = llamacpp_stages(own, file, _split(asked), settings, build, compute)
        return Held(stages.fullest.terms, stages=stages)
    found = split_layers(own, file, settings, build, compute=compute, kept=asked.model.kept(settings))
    return Held(found.memory.terms, found.crossing)


def _tally(asked: Deployment, build: LlamacppBuild) -> FileTally:
    """The file's sums. Where a GPU's driver pins host memory (CUDA, HIP, Vulkan; not Metal) the processor repacks
    nothing, with ``-ngl 0`` neither: ``make_cpu_buft_list`` asks for the buffers of every GPU that is there before the
    processor's own orders, and a mapped file has them taken back to plain memory (src/llama-model.cpp, 2026;
    https://github.com/ggml-org/llama.cpp/issues/26334). ``--device none`` and ``--no-host`` would have it repack.
    """
    there = replace(build, repacked=frozenset()) if asked.site.kind == "gpu" else build
    return asked.model.tally(asked.scheme, there)


_NO_BUFFERS = LlamacppCompute(0, 0, 0, 0, 0, 0, 0, known=True, source="")
