"""Candidates worth trying. One line per candidate; a method is added here once it can be built and run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from quantwise.core.artifact import Candidate, FormatName
from quantwise.core.cache_scheme import parse_cache
from quantwise.core.errors import InputError
from quantwise.core.evidence import Fit
from quantwise.core.loads import expands, homes, refused
from quantwise.core.recipe import OPTIONS, QUANTIZERS, TRANSFORMS, parse_recipe
from quantwise.models.config import folder_format, quantization_settings
from quantwise.models.stored_scheme import expanded_because

_RECIPE_WORDS = "|".join((*QUANTIZERS, *TRANSFORMS, *OPTIONS, "auto"))
_ADDRESS = re.compile(
    rf"(?!({_RECIPE_WORDS}):)(\[[\da-f:]+\]|[\w.-]{{2,}}(?<!\.gguf)):\d{{2,5}}(/[^@]*)?(#.*)?", re.IGNORECASE
)
"""A host and its port, where the word before the colon is no drive, file or part of a recipe."""

# Transformers computes with few bits where torch has a kernel for them (``core.loads.expands``).
DEFAULT: tuple[Candidate, ...] = (
    Candidate("16bit", "transformers", baseline=True),
    Candidate("rtn:int8-channel", "transformers"),
    Candidate("rtn:int4-g64", "transformers"),
    Candidate("gptq:int4-g64", "transformers"),
    Candidate("rtn:int4-tensor", "transformers", control=True),
    Candidate("16bit", "llamacpp", baseline=True),
    Candidate("q8_0", "llamacpp"),
    Candidate("q4_0", "llamacpp"),
)


def parse(text: str, *, baseline: bool = False) -> Candidate:
    """A candidate as a person writes it: ``RECIPE[@RUNTIME][,kv=TYPE]``, a ``.gguf`` file, a folder, or a URL.

    Which runtime takes which format stands in ``core/loads.py``; without ``@`` it is the first of them.
    A cache that Transformers keeps in integers is read back into 16 bit in plain torch: its bytes are real, its speed
    is nobody's, so such a candidate gets a quality verdict only.

    Raises InputError naming what was not understood and what is allowed.
    """
    source, cache = text, "f16"
    if ",kv=" in text:
        source, cache = text.rsplit(",kv=", 1)
    if source.startswith(("http://", "https://")):
        if cache != "f16":
            raise InputError(
                f"{text}: a server sets its own cache; start it with the cache type you want and leave out ',kv='"
            )
        return Candidate(source, "openai", baseline=baseline)
    if "://" in source:
        raise InputError(f"{source}: a server's URL begins with http:// or https://")
    if _ADDRESS.fullmatch(source) and not Path(source).exists():
        raise InputError(f"{source}: a server's URL begins with its scheme; write http://{source}")
    runtime = None
    if "@" in source and not Path(source).exists():
        source, runtime = source.rsplit("@", 1)
    if not source.strip():
        raise InputError(f"{text!r} names no candidate; write a recipe, a .gguf file, a folder or a server's URL")
    path = Path(source)
    if source.endswith(".gguf") or path.exists():
        return _brought(path, runtime, cache, baseline)
    if re.match(r"[^:]*[/.]", source):
        raise InputError(
            f"{source}: no such file or folder; a candidate is a recipe, a .gguf file, a folder or a server's URL"
        )
    scheme = parse_recipe(source).scheme
    # In llama.cpp "16bit" is a file in f16.
    where = (*homes(scheme.format), *(("llamacpp",) if scheme.name == "16bit" else ()))
    runtime = runtime or where[0]
    if runtime not in where:
        raise InputError(f"{source} runs in {' or '.join(where)}, not in {runtime!r}; write {source}@{where[0]}")
    return _candidate(source, runtime, cache, baseline, expands(runtime, scheme) is None)


def _brought(path: Path, runtime: str | None, cache: str, baseline: bool) -> Candidate:
    if not path.exists():
        raise InputError(f"{path}: no such file; a candidate is a recipe, a .gguf file, a folder or a server's URL")
    is_gguf = path.is_file() and path.suffix == ".gguf"
    if not is_gguf and not path.is_dir():
        raise InputError(f"{path}: neither a .gguf file nor a folder with a config.json")
    form: FormatName = "gguf" if is_gguf else folder_format(path)
    runtime = runtime or homes(form)[0]
    if (why := refused(runtime, form)) is not None:
        raise InputError(f"{path}@{runtime}: {why}")
    real = runtime != "transformers" or expanded_because(quantization_settings(path)) is None
    return _candidate(str(path), runtime, cache, baseline, real)


def _candidate(source: str, runtime: str, cache: str, baseline: bool, real: bool) -> Candidate:
    cache = parse_cache(cache, runtime)
    real = real and (runtime != "transformers" or cache == "f16")
    return Candidate(source, runtime, cache, baseline, computes_as_stored=real)


def with_baselines(candidates: Sequence[Candidate], baseline: Candidate | None) -> tuple[Candidate, ...]:
    """The candidates behind the baselines they need: the one given, or 16 bit in each runtime that is used."""
    if baseline is not None:
        return (baseline, *candidates)
    runtimes = dict.fromkeys(c.runtime for c in candidates)
    if "openai" in runtimes:
        raise InputError(
            "a server by URL has no 16-bit baseline of its own; name one with --baseline (a URL, a file or a folder)"
        )
    return (*(Candidate("16bit", r, baseline=True) for r in runtimes), *candidates)


# What may stand in for 16 bit that has no room, of a model whose recipes are built here; from the most bits down.
SAFEST: Mapping[str, tuple[str, ...]] = {
    "llamacpp": ("q8_0", "q6_k", "q5_k_m"),
    "transformers": ("llm-int8",),
    "vllm": ("rtn:int8-channel", "w8a8"),  # on a CPU it has a kernel for the second only
}


def with_stand_ins(candidates: Sequence[Candidate], stand_ins: Mapping[str, str]) -> tuple[Candidate, ...]:
    """The candidates with each baseline that has a stand-in replaced by that, which then is no candidate any more.

    ``stand_ins`` maps a baseline's name to the stand-in's source.
    """
    taken = {(c.model, c.runtime, stand_ins[c.name]) for c in candidates if c.name in stand_ins}
    found = []
    for candidate in candidates:
        if candidate.name in stand_ins:
            chosen = parse(f"{stand_ins[candidate.name]}@{candidate.runtime}", baseline=True)
            found.append(replace(chosen, stands_for=candidate.name, model=candidate.model))
        elif (candidate.model, candidate.runtime, candidate.source) not in taken or candidate.cache != "f16":
            found.append(candidate)
    return tuple(found)


def stand_in_for(
    baseline: Candidate, candidates: Sequence[Candidate], fits: Mapping[str, Fit], more: Sequence[Candidate]
) -> Candidate | None:
    """The safest artifact that fits: of the candidates of the baseline's model and runtime, and of ``more``, the one
    with the most bytes of weights; None where there is none, or none would be left to compare with it.
    """
    rivals = [c for c in candidates if not c.baseline and (c.runtime == baseline.runtime or c.model)]
    same = [c for c in rivals if c.runtime == baseline.runtime and c.model == baseline.model]
    pool = [
        c for c in (*same, *more) if not c.control and c.cache == "f16" and fits[c.name].fits in ("yes", "marginal")
    ]
    safest = max(pool, key=lambda c: fits[c.name].weights_bytes or 0, default=None)
    left = [c for c in rivals if c is not safest and not c.control and fits[c.name].fits != "no"]
    return safest if left else None
