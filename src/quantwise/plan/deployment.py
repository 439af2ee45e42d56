"""One way to serve a model at a site: every term of memory, whether it fits, how many requests, and how fast.

Formulas live in their own files; here they meet one limit. A total is an interval, because compute buffers and what a
process takes are; a plan ``fits`` where its high end stays within nine tenths of the limit, is ``marginal`` where that
is not sure, and does not fit where its low end is above the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from quantwise.core.errors import InputError
from quantwise.core.scheme import Scheme, parse_scheme
from quantwise.models.decoder import Decoder
from quantwise.plan.capacity import Capacity, Layout, promise, theoretical_requests
from quantwise.plan.constants import VLLM_0_32, XLLAMACPP_2026_10, LlamacppBuild, VllmVersion
from quantwise.plan.decoder_weights import Weights
from quantwise.plan.fit import MARGINAL
from quantwise.plan.llamacpp.memory import llamacpp_memory
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.machine_rates import MachineRates, decode_time, read_by_type
from quantwise.plan.model import Model
from quantwise.plan.offload import split
from quantwise.plan.runtime_memory import transformers_memory, vllm_memory
from quantwise.plan.speed import Load, Speed, load_of, multiplied_in, speed
from quantwise.plan.terms import Device, Term
from quantwise.plan.weight_scheme import parse_weight_scheme
from quantwise.plan.what_if import Demand, cache_of
from quantwise.plan.work import cache_numbers
from quantwise.scenarios.site import Site

RuntimeName = Literal["llamacpp", "transformers", "vllm"]
RUNTIMES: tuple[RuntimeName, ...] = ("llamacpp", "transformers", "vllm")
Answer = Literal["yes", "marginal", "no", "unknown"]
PROMPT = 512


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is planned. ``scheme`` is a recipe, a scheme, or ``stored``: the files as they are.

    ``context`` tokens for each of ``concurrency`` requests. ``gpu_layers`` is llama.cpp's ``-ngl`` (None: all that
    a GPU takes), ``experts_on_cpu`` its ``--n-cpu-moe``. ``limit_bytes`` stands for the site's memory where given.
    ``machine`` is what was measured of this machine, where the site is that.
    """

    model: Model
    site: Site
    scheme: str
    runtime: RuntimeName = "llamacpp"
    cache: str = "f16"
    context: int = 4096
    concurrency: int = 1
    ubatch: int = 512
    gpu_layers: int | None = None
    experts_on_cpu: int = 0
    limit_bytes: int | None = None
    machine: MachineRates | None = None

    @property
    def decoder(self) -> Decoder:
        """The model's."""
        return self.model.decoder

    def __post_init__(self) -> None:
        for name in ("context", "concurrency", "ubatch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {getattr(self, name)}")
        if self.runtime not in RUNTIMES:
            raise InputError(f"unknown runtime {self.runtime!r:.40}; planned are: {', '.join(RUNTIMES)}")

    @property
    def name(self) -> str:
        """As a candidate is written."""
        return f"{self.scheme}@{self.runtime}" + (f",kv={self.cache}" if self.cache != "f16" else "")

    @property
    def limit(self) -> int | None:
        """Bytes of the memory that binds."""
        return self.site.limit_bytes if self.limit_bytes is None else self.limit_bytes

    @property
    def demand(self) -> Demand:
        """What the cache depends on."""
        return Demand(self.context, self.concurrency, self.cache)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU's memory is what binds."""
        return self.site.kind == "gpu" and self.gpu_layers != 0


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. ``terms`` are of every device; ``bound`` names the one whose memory is compared with the limit.

    ``compute``, ``overhead`` and ``total`` are of that device, (low, high) in bytes; ``weights_bytes`` and
    ``cache_bytes`` too. ``capacity`` is None where the limit is unknown, or it was not asked for.
    """

    asked: Deployment
    weights: Weights
    terms: tuple[Term, ...]
    bound: Device
    weights_bytes: int
    cache_bytes: int
    compute: tuple[int, int]
    overhead: tuple[int, int]
    limit_bytes: int | None
    capacity: Capacity | None
    speed: Speed
    speed_source: str
    crossing: int
    notes: tuple[str, ...]

    @property
    def total(self) -> tuple[int, int]:
        """Bytes on the device that binds, (low, high)."""
        fixed = self.weights_bytes + self.cache_bytes
        return fixed + self.compute[0] + self.overhead[0], fixed + self.compute[1] + self.overhead[1]

    @property
    def fits(self) -> Answer:
        """As the module says."""
        if self.limit_bytes is None:
            return "unknown"
        low, high = self.total
        if low > self.limit_bytes:
            return "no"
        return "yes" if high <= MARGINAL * self.limit_bytes else "marginal"


@dataclass(frozen=True, slots=True)
class Constants:
    """The versions of the runtimes that are planned for, or a user's own as refitted."""

    llamacpp: LlamacppBuild = XLLAMACPP_2026_10
    vllm: VllmVersion = VLLM_0_32


CONSTANTS = Constants()


def plan_deployment(asked: Deployment, constants: Constants = CONSTANTS, *, capacity: bool = False) -> Plan:
    """Plan one way to serve a model.

    With ``capacity`` the number of requests to promise is simulated, which takes a few tenths of a second. Raises
    InputError where scheme, cache type or runtime do not suit the model.
    """
    weights = asked.model.weights(asked.scheme, in_gguf=asked.runtime == "llamacpp")
    terms, crossing = _terms(asked, weights, constants)
    here = _binding(asked, terms)
    found_speed, speed_source = _speed(asked, weights)
    found = Plan(
        asked=asked,
        weights=weights,
        terms=terms,
        bound="gpu" if asked.on_gpu else "cpu",
        weights_bytes=_sum(here, ("weights", "repacked"))[1],
        cache_bytes=_sum(here, ("cache",))[1],
        compute=_sum(here, ("compute", "outputs", "work")),
        overhead=_sum(here, ("process", "context")),
        limit_bytes=asked.limit,
        capacity=None,
        speed=found_speed,
        speed_source=speed_source,
        crossing=crossing,
        notes=_notes(asked, weights),
    )
    return replace(found, capacity=_capacity(found)) if capacity else found


def needed_bytes(asked: Deployment, constants: Constants = CONSTANTS) -> tuple[int, int]:
    """The total of ``plan_deployment`` alone, (low, high), which is sooner told."""
    weights = asked.model.weights(asked.scheme, in_gguf=asked.runtime == "llamacpp")
    terms, _ = _terms(asked, weights, constants)
    here = _binding(asked, terms)
    return sum(term.low for term in here), sum(term.high for term in here)


def _binding(asked: Deployment, terms: Sequence[Term]) -> list[Term]:
    """The terms of the memory that binds. A machine of one memory keeps both devices' bytes in it."""
    bound: Device = "gpu" if asked.on_gpu else "cpu"
    return [term for term in terms if asked.site.kind == "unified" or term.device == bound]


def _terms(asked: Deployment, weights: Weights, constants: Constants) -> tuple[tuple[Term, ...], int]:
    if asked.runtime == "llamacpp":
        return _llamacpp(asked, constants.llamacpp)
    device: Device = "gpu" if asked.on_gpu else "cpu"
    if asked.runtime == "transformers":
        return transformers_memory(asked.decoder, weights.effective, asked.demand, device=device).terms, 0
    return vllm_memory(asked.decoder, weights.effective, asked.demand, version=constants.vllm, device=device).terms, 0


def _llamacpp(asked: Deployment, build: LlamacppBuild) -> tuple[tuple[Term, ...], int]:
    settings = LlamacppSettings(
        context=asked.context,
        slots=asked.concurrency,
        cache=asked.cache,
        ubatch=asked.ubatch,
        gpu_layers=_gpu_layers(asked),
        experts_on_cpu=asked.experts_on_cpu,
    )
    tensors, compute = asked.model.tensors(asked.scheme), asked.model.compute(settings, build)
    if settings.gpu_layers == 0:
        return llamacpp_memory(asked.model.in_gguf, tensors, settings, build, compute=compute).terms, 0
    found = split(asked.model.in_gguf, tensors, settings, build, compute=compute)
    return found.memory.terms, found.crossing


def _gpu_layers(asked: Deployment) -> int:
    if asked.site.kind not in ("gpu", "unified"):
        return 0
    most = len(asked.decoder.layers) + 1
    return most if asked.gpu_layers is None else min(asked.gpu_layers, most)


def _sum(terms: Sequence[Term], names: tuple[str, ...]) -> tuple[int, int]:
    here = [term for term in terms if term.name in names]
    return sum(term.low for term in here), sum(term.high for term in here)


def _speed(asked: Deployment, weights: Weights) -> tuple[Speed, str]:
    """By the roofline; of one request in llama.cpp on this machine by its kernels, where they were measured."""
    decoder = asked.decoder
    scheme = _scheme(asked.scheme)
    multiplied = multiplied_in(scheme, asked.runtime, asked.site) if scheme else "bf16"
    numbers = max(1, cache_numbers(decoder, asked.context))
    each = cache_of(asked.runtime, decoder, replace(asked.demand, concurrency=1)) / numbers
    load: Load = load_of(decoder, weights.effective, multiplied, max(1, asked.context // 2), each)
    found = speed(asked.site, load, asked.concurrency, min(PROMPT, asked.context))
    if asked.machine is None or asked.runtime != "llamacpp" or asked.concurrency > 1:
        return found, "roofline, not measured"
    own = asked.model.in_gguf
    read = read_by_type(own, ((t.name, t.type, t.bytes) for t in asked.model.tensors(asked.scheme)))
    time = decode_time(asked.machine, own, read, max(1, asked.context // 2), asked.cache)
    if time is None:
        return found, "roofline, not measured"
    rate = 1 / time.interval[1], 1 / time.interval[0]
    return replace(found, decode_seconds=time.interval, decode_per_request=rate, decode_total=rate), time.source


def _scheme(name: str) -> Scheme | None:
    recipe = parse_weight_scheme(name).recipe
    return recipe.scheme if recipe else parse_scheme("q4_k_m") if "q" in name else None


def _capacity(found: Plan) -> Capacity | None:
    asked = found.asked
    if found.limit_bytes is None:
        return None
    request = cache_of(asked.runtime, asked.decoder, replace(asked.demand, concurrency=1))
    if request < 1:
        return None
    limit = found.limit_bytes
    layout: Layout = "contiguous"
    if asked.runtime == "vllm":
        limit, layout = int(limit * VLLM_0_32.utilization), "paged"
    scratch = found.compute[1] + found.overhead[1]
    return promise(
        theoretical_requests(limit, found.weights_bytes, scratch, request), max(2, asked.context), layout=layout
    )


def _notes(asked: Deployment, weights: Weights) -> tuple[str, ...]:
    notes = []
    if not weights.exact:
        notes.append("weights are a sum over tensors whose names were not held against a written file")
    if asked.context > asked.decoder.context:
        notes.append(f"{asked.decoder.name} was trained for {asked.decoder.context} tokens, not {asked.context}")
    if asked.gpu_layers is not None and asked.on_gpu and asked.gpu_layers <= len(asked.decoder.layers):
        notes.append("the speed is that of a model wholly on the GPU; layers on the processor make it slower")
    return tuple(notes)
