"""The model of a study: its file, its template, its longest context, and what each cache will take of memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from quantwise.cache_study.request import CacheOption, Request
from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError
from quantwise.core.item import Item
from quantwise.core.runtime import Ask
from quantwise.formats.content_hash import content_hash
from quantwise.formats.gguf.header import read_chat_metadata
from quantwise.models import reference
from quantwise.models.decoder import Decoder
from quantwise.plan.fit import size
from quantwise.plan.llamacpp.cache import llamacpp_cache
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.model_source import read_decoder

_SHARE = 0.9
"""Of the memory: what a study may fill of it."""
_AROUND = 1 << 28
"""Bytes that a server takes beside weights and cache, generously."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A GGUF file that is there, how it is asked, and the context of the study."""

    artifact: Artifact
    decoder: Decoder
    template: ChatTemplate | None
    context: int

    def ask(self, item: Item) -> Ask:
        """The item as the model is asked: rendered, or raw where it has no template."""
        if item.prompt is not None or self.template is None:
            return Ask(text=item.text, max_tokens=item.max_tokens, rendered=False)
        return Ask(text=self.template.render(item.messages), max_tokens=item.max_tokens)

    def cache_bytes(self, option: CacheOption) -> int:
        """What the cache takes. Raises InputError where a head does not split into the type's blocks."""
        asked = LlamacppSettings(self.context, cache=option.cache, flash_attention=option.flash)
        return llamacpp_cache(self.decoder, asked).total

    def held_bytes(self, option: CacheOption) -> int:
        """About what a server takes."""
        return (self.artifact.bytes or 0) + self.cache_bytes(option) + _AROUND


def read_subject(request: Request) -> Subject:
    """The model as it was given. Raises InputError before anything is built or started: for what is no model, a context
    that it was not made for, a type that its heads do not split into, and what has no room in this machine's memory.
    """
    place = request.model or reference.path()
    if str(place).startswith(("http:/", "https:/")):
        raise InputError("kv starts llama.cpp itself, with one cache after another; give a .gguf file, not a server")
    if place.is_file() and place.suffix.lower() != ".gguf":
        raise InputError(f"{place} is neither a .gguf file nor a folder of safetensors; give one")
    if not place.exists():
        raise InputError(f"{place} is not there; give a .gguf file or a folder of safetensors")
    decoder = read_decoder(str(place))
    longest = decoder.context
    if request.context is not None and request.context > longest:
        raise InputError(f"--context {request.context} is more than the {longest} tokens of {place}; give at most that")
    found = Subject(_as_it_is(place), decoder, _template(place), request.context or longest)
    for option in request.options:
        found.cache_bytes(option)
    _check_room(found, request.options)
    return found


def with_file(subject: Subject, folder: Path) -> Subject:
    """The subject with a GGUF file: a folder's weights are written as f16 into ``folder``, unless they lie there."""
    if subject.artifact.format == "gguf":
        return subject
    from quantwise.build.walk import build
    from quantwise.core.recipe import parse_recipe

    (made,) = build(Path(subject.artifact.location), [parse_recipe("f16")], [], folder)
    file = Path(made.location)
    artifact = Artifact(str(file), "gguf", subject.artifact.hash, file.stat().st_size)
    return Subject(artifact, read_decoder(str(file)), subject.template, subject.context)


def keeps_all(subject: Subject, options: Sequence[CacheOption]) -> bool:
    """Whether all servers may stay open side by side, in half of the memory."""
    return sum(subject.held_bytes(option) for option in options) < psutil.virtual_memory().total / 2


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _as_it_is(place: Path) -> Artifact:
    if place.is_dir():
        return Artifact(str(place), "safetensors", content_hash(place), sum(f.stat().st_size for f in place.iterdir()))
    if place.suffix.lower() != ".gguf":
        raise InputError(f"{place} is no .gguf file; give one, or a folder of safetensors")
    return Artifact(str(place), "gguf", content_hash(place), place.stat().st_size)


def _template(place: Path) -> ChatTemplate | None:
    return ChatTemplate.from_folder(place) if place.is_dir() else ChatTemplate.from_gguf(read_chat_metadata(place))


def _check_room(subject: Subject, options: Sequence[CacheOption]) -> None:
    room = int(_SHARE * psutil.virtual_memory().total)
    for option in options:
        needed = subject.held_bytes(option)
        if needed <= room:
            continue
        cache = subject.cache_bytes(option)
        fits = max(0, int((room - needed + cache) / cache * subject.context) // 256 * 256)
        raise InputError(
            f"{option.name} at {subject.context} tokens takes about {size(needed)}, this machine has {size(room)} for "
            f"it; give --context {fits} or less, or other --types"
        )
