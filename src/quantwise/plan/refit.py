"""Constants found anew from a user's own start-up log, kept in a small file of theirs, and used by the planner.

The file is ``quantwise/plan-refits.json`` in XDG_CONFIG_HOME, or else in ``~/.config``. A refit replaces the one
before it of the same runtime.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.models.decoder import Decoder
from quantwise.plan.constants import LLAMACPP_BUILDS, VLLM_VERSIONS, ByteInterval, LlamacppBuild, VllmVersion
from quantwise.plan.llamacpp.compute import llamacpp_compute

if TYPE_CHECKING:
    from quantwise.plan.start_up_log import LlamacppLog, VllmLog

# Another start of the same server may differ by this share.
_SPREAD = 0.1
# Generations whose buffers differ by less are not told apart: the newest is taken.
_ALIKE = 0.003
_NUMBERS: Mapping[str, frozenset[str]] = {
    "llamacpp": frozenset({"outputs_of_batch", "mixed_inputs", "compute_factor", "device", "repacks"}),
    "vllm": frozenset({"activation_by_number", "outside"}),
}


@dataclass(frozen=True, slots=True)
class Refit:
    """``numbers`` by name, found in a log of ``runtime`` and its ``version``; ``predicted`` over ``logged`` bytes of
    what they explain, before and after.
    """

    runtime: str
    version: str
    numbers: Mapping[str, float]
    before: float
    after: float
    source: str


def refit(text: str, decoder: Decoder, source: str = "a start-up log") -> Refit:
    """Refit a runtime's constants from its log, of the model that it ran.

    Raises InputError where the text is no start-up log of llama.cpp or vLLM, or is of another model.
    """
    # Every plan reads what was refitted; the readers of logs are needed only here.
    from quantwise.plan.start_up_log import read_llamacpp_log, read_vllm_log, runtime_of_log

    runtime = runtime_of_log(text)
    if runtime is None:
        raise InputError(
            f"{source} is none of llama.cpp, which names buffer sizes and n_ctx, nor of vLLM, which says so; "
            "give all that llama-server --log-verbosity 4, or vllm serve, tells at its start"
        )
    if runtime == "llamacpp":
        return _of_llamacpp(read_llamacpp_log(text), decoder, source)
    return _of_vllm(read_vllm_log(text), decoder, source)


def _of_llamacpp(log: LlamacppLog, decoder: Decoder, source: str) -> Refit:
    for name, expected in (("n_embd", decoder.hidden), ("n_layer", len(decoder.layers))):
        found = log.numbers.get(name, expected)
        if found != expected:
            raise InputError(f"this log is of another model: {name} is {found} there, {decoder.name} has {expected}")
    logged = log.of("compute")

    def ratio(build: LlamacppBuild) -> float:
        return llamacpp_compute(decoder, log.settings, build).graph / logged if logged else 1.0

    before = ratio(LLAMACPP_BUILDS[0])
    builds = [build for build in _generations(LLAMACPP_BUILDS[0]) if _as_told(log, build)]
    off = {build: abs(ratio(build) - 1) for build in builds}
    best = next(build for build in builds if off[build] < min(off.values()) + _ALIKE)
    numbers = {
        "outputs_of_batch": float(best.outputs == "batch"),
        "mixed_inputs": float(best.mixed_inputs),
        "compute_factor": 1 / ratio(best),
        "repacks": float(any(device == "CPU_REPACK" for device, _ in log.buffers)),
    }
    if log.unaccounted:
        numbers["device"] = float(max(log.unaccounted.values()))
    return Refit("llamacpp", log.build, numbers, before, 1.0, source)


def _as_told(log: LlamacppLog, build: LlamacppBuild) -> bool:
    """Whether the rows of logits are those that the log names, where it does."""
    most = log.numbers.get("n_outputs_max")
    return most is None or (build.outputs == "slots") == (most <= log.settings.slots)


def _generations(build: LlamacppBuild) -> Iterator[LlamacppBuild]:
    yield build
    yield replace(build, mixed_inputs=False)
    yield replace(build, outputs="batch")
    yield replace(build, outputs="batch", mixed_inputs=False)


def _of_vllm(log: VllmLog, decoder: Decoder, source: str) -> Refit:
    known, activation = _known(log.version), log.activation
    if activation is None and log.usable is not None and log.weights is not None and log.available is not None:
        activation = max(0, log.usable - log.weights - log.available - (log.outside or known.outside.low))
    if log.on_cpu:
        raise InputError(
            "this log is of vLLM on a CPU, which measures no activations; nothing in it can be refitted, and its cache "
            "is as large as VLLM_CPU_KVCACHE_SPACE or --gpu-memory-utilization says"
        )
    if activation is None:
        raise InputError("this log of vLLM names neither its activations nor what it may use; give all of its start")
    tokens = log.batched_tokens or known.batched_tokens
    numbers = {"activation_by_number": activation / (tokens * decoder.hidden)}
    if log.outside is not None:
        numbers["outside"] = float(log.outside)
    low, high = (share * tokens * decoder.hidden for share in known.activation)
    before = (low + high) / 2 / activation if activation else 1.0
    return Refit("vllm", log.version, numbers, before, 1.0, source)


def llamacpp_build(refits: tuple[Refit, ...]) -> LlamacppBuild:
    """The newest known generation, with what a refit says instead."""
    build = LLAMACPP_BUILDS[0]
    found = next((r for r in refits if r.runtime == "llamacpp"), None)
    if found is None:
        return build
    numbers = found.numbers
    device = build.device
    if "device" in numbers:
        device = _about(numbers["device"], found.source)
    return replace(
        build,
        name=f"llama.cpp {found.version}".strip(),
        source=found.source,
        outputs="batch" if numbers.get("outputs_of_batch") else "slots",
        mixed_inputs=bool(numbers.get("mixed_inputs", build.mixed_inputs)),
        compute_factor=numbers.get("compute_factor", 1.0),
        repacked=build.repacked if numbers.get("repacks", 1.0) else frozenset(),
        device=device,
    )


def vllm_version(refits: tuple[Refit, ...]) -> VllmVersion:
    """The newest known version, with what a refit says instead."""
    found = next((r for r in refits if r.runtime == "vllm"), None)
    if found is None:
        return VLLM_VERSIONS[0]
    known = _known(found.version)
    each = found.numbers["activation_by_number"]
    outside = known.outside
    if "outside" in found.numbers:
        outside = _about(found.numbers["outside"], found.source)
    activation = ((1 - _SPREAD) * each, (1 + _SPREAD) * each)
    name = f"vLLM {found.version}".strip()
    return replace(known, name=name, source=found.source, activation=activation, outside=outside)


def _known(version: str) -> VllmVersion:
    """The figures of a release, or the newest where a log does not name it."""
    number = re.match(r"(\d+)\.(\d+)", version)
    if number is None:
        return VLLM_VERSIONS[0]
    return next(known for known in VLLM_VERSIONS if known.first <= (int(number[1]), int(number[2])))


def _about(amount: float, source: str) -> ByteInterval:
    return ByteInterval(int((1 - _SPREAD) * amount), int((1 + _SPREAD) * amount), source)


def refits_path() -> Path:
    """Where a user's refits lie."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "quantwise" / "plan-refits.json"


def save_refit(made: Refit, path: Path | None = None) -> Path:
    """Keep a refit in the file, instead of an older one of its runtime. Raises EnvironmentFailure where it cannot."""
    path = path or refits_path()
    kept = [other for other in load_refits(path) if other.runtime != made.runtime]
    rows = [
        {
            "runtime": r.runtime,
            "version": r.version,
            "numbers": dict(r.numbers),
            "before": r.before,
            "after": r.after,
            "source": r.source,
        }
        for r in (*kept, made)
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise EnvironmentFailure(f"{path} cannot be written: {error.strerror}; set XDG_CONFIG_HOME") from error
    return path


def load_refits(path: Path | None = None) -> tuple[Refit, ...]:
    """The refits of the file; none where there is no file. Raises InputError where it is damaged."""
    path = path or refits_path()
    if not path.is_file():
        return ()
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_read(row) for row in rows)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no file of refits ({type(error).__name__}); remove it") from error


def _read(row: Mapping[str, Any]) -> Refit:
    numbers = {str(name): float(value) for name, value in row["numbers"].items()}
    unknown = set(numbers) - _NUMBERS[row["runtime"]]
    if unknown or not all(0 <= value < 1e15 for value in numbers.values()):
        raise ValueError("numbers")
    return Refit(
        str(row["runtime"]), str(row["version"]), numbers, float(row["before"]), float(row["after"]), str(row["source"])
    )
