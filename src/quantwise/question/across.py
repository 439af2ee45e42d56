"""Several models in one question: their names, and candidates written ``NAME:CANDIDATE``.

A name stands before the first colon and is never the head of a recipe or of a URL, so that ``qwen3-14b:gptq:q4_k_m``
and ``gptq:q4_k_m`` cannot be mistaken for each other in any record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from quantwise.core.artifact import Candidate
from quantwise.core.errors import InputError
from quantwise.core.recipe import OPTIONS, QUANTIZERS, TRANSFORMS
from quantwise.question.propose import parse

DEFAULT = ("q8_0", "q4_0")
"""What is tried of each model where nobody names a candidate."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TAKEN = {"http", "https", "auto", *QUANTIZERS, *TRANSFORMS, *OPTIONS}


def named_models(texts: Sequence[str]) -> dict[str, Path]:
    """Name to folder, file or hub id of several models, each written ``[NAME=]PLACE``; the name is else its last part.

    Raises InputError for a name that is taken, impossible, or a part of a recipe.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not equals or Path(text).exists():
            name, place = Path(text).name.removesuffix(".gguf"), text
        if _NAME.fullmatch(name) is None or name.lower() in _TAKEN:
            raise InputError(f"{name!r} cannot name a model; write NAME={place} with letters, digits, '.', '_' and '-'")
        if name in found:
            raise InputError(f"two models are named {name}; write NAME={place}")
        found[name] = Path(place)
    return found


def candidates_across(models: Mapping[str, Path], texts: Sequence[str], baseline: str | None) -> tuple[Candidate, ...]:
    """The one baseline, then every candidate of every model; ``texts`` without a name are of each model.

    The baseline is the one that is named, else the first model at 16 bit in the runtime of the first candidate.
    Raises InputError naming what was not understood.
    """
    files = [name for name, place in models.items() if place.suffix == ".gguf"]
    found = [_of(name, str(models[name])) for name in files]
    for text in texts or DEFAULT:
        name, rest = _split(models, text)
        wanted = [name] if name is not None else [m for m in models if m not in files]
        if name is None and _brought(text):
            raise InputError(f"{text}: of which model? write NAME:{text}, names: {', '.join(models)}")
        found += [_of(one, rest) for one in wanted]
    first = next(iter(models))
    if baseline is not None:
        name, rest = _split(models, baseline)
        base = _of(name or first, rest, baseline=True)
        found = [c for c in found if c.name != base.name or c.source not in map(str, models.values())]
    elif first in files or found[0].runtime == "openai":
        raise InputError(f"{first} has no 16-bit baseline here; name one with --baseline, such as {first}:FILE")
    else:
        base = Candidate("16bit", found[0].runtime, baseline=True, model=first)
    found = [base, *found]
    names = [c.name for c in found]
    if double := {n for n in names if names.count(n) > 1}:
        raise InputError(f"{', '.join(sorted(double))} is named twice; name every candidate once")
    if idle := [name for name in models if name not in {c.model for c in found}]:
        raise InputError(f"no candidate of the model {idle[0]}; add --candidate {idle[0]}:RECIPE or leave it out")
    return tuple(found)


def _split(models: Mapping[str, Path], text: str) -> tuple[str | None, str]:
    name, colon, rest = text.partition(":")
    if colon and not name:
        raise InputError(f"{text}: the model's name is empty; write NAME{text}, names: {', '.join(models)}")
    if colon and name in models:
        return name, rest
    if colon and _NAME.fullmatch(name) and not set(name.lower().split("+")) & _TAKEN and "+" not in name:
        raise InputError(f"{text}: no model is named {name}; names: {', '.join(models)}")
    return None, text


def _of(model: str, text: str, *, baseline: bool = False) -> Candidate:
    return replace(parse(text, baseline=baseline), model=model)


def _brought(text: str) -> bool:
    return text.startswith(("http://", "https://")) or ".gguf" in text or Path(text.split("@")[0]).exists()
