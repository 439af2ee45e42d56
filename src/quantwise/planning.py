"""The story of a plan: names become models and a site, and the planner answers; or trains, or weighs a family.

Nothing here loads torch, and of a hub only headers are asked for. What only some plans need is imported where they do,
because a plan is to answer at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantwise.core.errors import InputError
from quantwise.models import reference
from quantwise.plan.answer import answer
from quantwise.plan.deployment import own_constants
from quantwise.plan.fit import size
from quantwise.plan.machine_rates import rates_path, read_rates
from quantwise.plan.memory import available_bytes
from quantwise.plan.model import Model, find_model
from quantwise.plan.other_models import family
from quantwise.plan.refit import refit, save_refit
from quantwise.plan.serving_settings import RUNTIMES, RuntimeName
from quantwise.plan.text_file import read_text_file
from quantwise.plan.wanted import Wanted
from quantwise.scenarios.memory_size import memory_size
from quantwise.scenarios.reader import read_scenario, read_site
from quantwise.scenarios.site import Site

if TYPE_CHECKING:
    from quantwise.plan.training_job import TrainingJob

# A place in a text is a signed word of 32 bits in every runtime (llama.cpp: llama_pos), a batch likewise. What is
# beyond the others is a slip of the hand.
_MOST = {
    "context": (1 << 31) - 1,
    "concurrency": 100_000,
    "ubatch": 1 << 20,
    "gpu_layers": 1 << 20,
    "experts_on_cpu": 1 << 20,
    "memory_bytes": 1 << 60,
    "tensor_parallel": 1 << 20,
    "pipeline_parallel": 1 << 20,
}


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a person asks. None takes the scenario's, or the runtime's own. ``site`` and ``host`` are names or files;
    of a host its memory alone does, such as ``64GB``. ``Wanted`` has the same settings read and checked: apart,
    because here most may be missing and everything is a word.
    """

    models: tuple[str, ...] = ()
    scenario: str | None = None
    site: str | None = None
    context: int | None = None
    concurrency: int | None = None
    runtime: str = "llamacpp"
    schemes: tuple[str, ...] = ()
    cache: str = "f16"
    ubatch: int = 512
    gpu_layers: int | None = None
    experts_on_cpu: int = 0
    memory_bytes: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    host: str | None = None
    trace: str | None = None


def plan(request: PlanRequest, models: Sequence[Model] | None = None) -> dict[str, Any]:
    """The record of a plan: of one model, or of several sizes at one memory budget (``frontier``).

    ``models`` are those of the request where they were read before, for those who ask often. Raises InputError where a
    name, a size or a combination is wrong.
    """
    wanted = wanted_of(request)
    if request.trace is not None and len(request.models) > 1:
        raise InputError("a trace is served by one model; name one")
    models = models_of(request) if models is None else models
    _check_offload(models, request, wanted.site)
    if len(models) > 1:
        from quantwise.plan.frontier import frontier

        return _with_units(_with_outdated(frontier(models, wanted, own_constants()), request, wanted), request)
    name = request.models[0] if request.models else ""
    found = _with_outdated(answer(models[0], wanted, own_constants(), smaller=family(name)), request, wanted)
    found = _with_units(found, request)
    return _with_failure(_with_beginning(found, Path(name)), wanted.site)


def _with_beginning(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """The record, and a note where a .gguf file would bring its beginning token twice."""
    if path.suffix.lower() != ".gguf" or not path.is_file():
        return record
    from quantwise.formats.gguf.beginning_token import beginning_twice

    said = beginning_twice(path)
    return record if said is None else record | {"notes": [*record.get("notes", ()), said]}


def _with_outdated(record: dict[str, Any], request: PlanRequest, wanted: Wanted) -> dict[str, Any]:
    """The record, and a note where its speeds are of this machine as it is not any more."""
    beside = wanted.host is not None and request.host is None
    machine = read_rates(rates_path()) if beside else wanted.machine
    said = None if machine is None else machine.outdated()
    return record if said is None else record | {"notes": [*record.get("notes", ()), said]}


def _with_units(record: dict[str, Any], request: PlanRequest) -> dict[str, Any]:
    """The record, and a note where ``--memory`` alone was given in GB: graphics cards are sold by the GiB."""
    memory, giga = request.memory_bytes or 0, 10**9
    if request.site is not None or memory == 0 or memory % giga:
        return record
    amount = f"{memory // giga}"
    note = (f"{amount} GB are {size(memory)}; a graphics card sold as {amount} GB has {amount} GiB: "
            f"--memory {amount}GiB")  # fmt: skip
    return record | {"notes": [*record.get("notes", ()), note]}


def _check_offload(models: Sequence[Model], request: PlanRequest, site: Site) -> None:
    """Raise InputError where layers or experts are to lie somewhere and there is nothing to choose."""
    if site.kind == "cpu" and (request.gpu_layers or request.experts_on_cpu):
        flag = "--gpu-layers" if request.gpu_layers else "--experts-on-cpu"
        raise InputError(f"{site.name} has no GPU, so {flag} changes nothing there; leave it away, or name a --site")
    names = ", ".join(model.decoder.name for model in models)
    if request.experts_on_cpu and not any(layer.experts for model in models for layer in model.decoder.layers):
        raise InputError(f"{names} has no experts to keep in main memory; leave --experts-on-cpu away")
    most = max(len(model.decoder.layers) for model in models)
    if request.experts_on_cpu > most:
        raise InputError(f"{names} has {most} layers, so --experts-on-cpu is at most {most}, not "
                         f"{request.experts_on_cpu:,}")  # fmt: skip


def train(request: PlanRequest, job: TrainingJob) -> dict[str, Any]:
    """The record of what training one model takes. Raises InputError as ``plan`` does."""
    if request.trace is not None:
        raise InputError("a trace is of requests, not of training; leave --trace or --train away")
    if request.tensor_parallel * request.pipeline_parallel > 1:
        raise InputError("training is planned for one device; leave --tensor-parallel and --pipeline-parallel away")
    from quantwise.plan.training_answer import training_answer

    name = request.models[0] if request.models else ""
    wanted = wanted_of(request)
    found = _with_outdated(training_answer(model_of(request).decoder, job, wanted, family(name)), request, wanted)
    return _with_failure(_with_units(found, request), wanted.site)


def _with_failure(record: dict[str, Any], site: Site) -> dict[str, Any]:
    """The record, and as ``failure`` what a plan that does not fit would end in."""
    if record["fits"] != "no":
        return record | {"failure": None}
    from quantwise.advise.plan_failure import plan_failure

    return record | {"failure": plan_failure(record, site)}


def model_of(request: PlanRequest) -> Model:
    """The one model that is asked about; without a name the reference model."""
    return find_model(request.models[0] if request.models else str(reference.path()))


def models_of(request: PlanRequest) -> list[Model]:
    """All models that are asked about. Raises InputError where one is named twice, or cannot be found."""
    if twice := next((name for name in request.models if request.models.count(name) > 1), None):
        raise InputError(f"{twice} is named twice; name every model once")
    return [find_model(name) for name in request.models] or [model_of(request)]


def measure(tell: Callable[[str], None]) -> None:
    """Measure this machine, and keep that for every later plan. ``tell`` hears where, and what is missing."""
    from quantwise.plan.measure_machine import keep_rates, measure_machine

    path = rates_path()
    keep_rates(measure_machine(tell=tell), path)
    tell(f"this machine was measured; kept in {path}")


def _check_sizes(request: PlanRequest) -> None:
    for name, most in _MOST.items():
        value = getattr(request, name)
        if value is not None and value > most:
            told = f"{value:,}" if value < 10**20 else f"a number of {len(str(value))} digits"
            raise InputError(f"{name.removesuffix('_bytes').replace('_', '-')} must be at most {most:,}, not {told}")


def wanted_of(request: PlanRequest) -> Wanted:
    """Settings, scenario and site as one; this machine as it was measured, where it was."""
    _check_sizes(request)
    scenario = read_scenario(request.scenario or "laptop")
    site, machine = read_site(request.site) if request.site else scenario.site, None
    if request.memory_bytes is not None and not request.site and site.memory_bytes is None:
        # A budget without a site is what people say of a graphics card.
        site = Site(name="a GPU", kind="gpu", memory_bytes=request.memory_bytes)
    if request.runtime not in RUNTIMES:
        raise InputError(f"unknown runtime {request.runtime!r:.40}; planned are: {', '.join(RUNTIMES)}")
    runtime: RuntimeName = next(known for known in RUNTIMES if known == request.runtime)
    limit = request.memory_bytes
    if limit is None and site.memory_bytes is None:
        limit, machine = available_bytes(), read_rates(rates_path())
        site = machine.site() if machine is not None else replace(site, kind=site.kind or "cpu")
    return Wanted(
        context=scenario.context if request.context is None else request.context,
        concurrency=scenario.concurrency if request.concurrency is None else request.concurrency,
        site=site,
        runtime=runtime,
        schemes=request.schemes,
        cache=request.cache,
        ubatch=request.ubatch,
        gpu_layers=request.gpu_layers,
        experts_on_cpu=request.experts_on_cpu,
        limit_bytes=limit,
        machine=machine,
        tensor_parallel=request.tensor_parallel,
        pipeline_parallel=request.pipeline_parallel,
        host=_host_of(request, site),
        trace=request.trace,
        least_context=request.context or (scenario.context if request.scenario else None),
    )


def _host_of(request: PlanRequest, site: Site) -> Site | None:
    """The machine around a GPU: the one that is named, else this one where it was measured and it matters."""
    if request.host is not None:
        memory = memory_size(request.host)
        host = read_site(request.host) if memory is None else _plain_host(memory)
        if site.kind != "gpu" or host.kind == "gpu":
            raise InputError(f"a host is the machine around a GPU: {host.name} is none for {site.name}")
        return host
    if site.kind != "gpu" or (request.gpu_layers is None and request.experts_on_cpu == 0):
        return None
    rates = read_rates(rates_path())
    return None if rates is None else rates.site(available_bytes())


def _plain_host(memory: int) -> Site:
    """A machine of which only the memory is said, so its speed is unknown."""
    return Site(name=f"a host of {size(memory)}", kind="cpu", memory_bytes=memory)


def refit_from(path: Path, request: PlanRequest) -> dict[str, Any]:
    """Refit a runtime's figures from its start-up log, and keep them for every later plan. Returns what changed.

    Raises InputError where the log cannot be read, is none, or is of another model.
    """
    text = read_text_file(path, "a runtime's start-up log")
    made = refit(text, model_of(request).decoder, str(path))
    return asdict(made) | {"kept_in": str(save_refit(made))}
