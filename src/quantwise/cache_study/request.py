"""What is asked of a study of caches, and what of it may not change when it goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quantwise.core.cache_scheme import keys_and_values, parse_cache
from quantwise.core.errors import InputError
from quantwise.tasks.long_recall import ANSWER_TOKENS

TYPES = "f16,q8_0,q8_0/q4_0,q4_0"
TOP, TAIL, WRITTEN = 64, 64, 32
"""Likeliest tokens of a place, places at the end of each text, and tokens written there for the speed."""
MOST_DOCUMENTS, MOST_QUESTIONS = 10_000, 100
_SLACK = 16
"""Tokens by which questions and names may differ in length."""
_BLOCKS_NEED_FLASH = "llama.cpp keeps values transposed without flash attention, and blocks cannot be"
Flash = Literal["on", "off", "both"]


@dataclass(frozen=True, slots=True)
class CacheOption:
    """A type of cache, or ``K/V``, with flash attention or without."""

    cache: str
    flash: bool = True

    @property
    def name(self) -> str:
        """How it is called in records."""
        return self.cache if self.flash else f"{self.cache},fa=off"


@dataclass(frozen=True, slots=True)
class Request:
    """One study. ``model`` is a .gguf file, a folder, or None for the reference model; ``context`` None is its longest.

    ``options[0]`` is what the others are compared with. ``documents`` texts are read with each option and ``questions``
    asked of each; times count of the first ``timed`` texts, None for all. ``budget_seconds`` ends the work early.
    """

    model: Path | None
    options: tuple[CacheOption, ...]
    context: int | None = None
    documents: int = 24
    questions: int = 8
    timed: int | None = None
    text: Path | None = None
    margin: float = 0.05
    alpha: float = 0.05
    seed: int = 0
    threads: int | None = None
    budget_seconds: float | None = None
    run: Path | None = None


def parse_options(types: str, flash: Flash = "on") -> tuple[CacheOption, ...]:
    """``f16,q8_0,q8_0/q4_0`` as options; with ``both``, those that can do without flash attention come twice.

    Raises InputError for an unknown type, for one named twice, and where one cannot do without flash attention.
    """
    caches = [parse_cache(part, "llamacpp") for part in types.split(",") if part.strip()]
    if len(caches) != len(set(caches)) or not caches:
        raise InputError(f"--types {types!r} names no type, or one twice; give a list such as {TYPES}")
    found: list[CacheOption] = []
    for cache in caches:
        able = keys_and_values(cache)[1] in ("f32", "f16", "bf16")
        if flash == "off" and not able:
            raise InputError(
                f"{cache} needs flash attention ({_BLOCKS_NEED_FLASH}); leave out --flash-attention off, or that type"
            )
        found += [CacheOption(cache, True)] if flash != "off" else []
        found += [CacheOption(cache, False)] if flash == "off" or (flash == "both" and able) else []
    return tuple(found)


def room_of(context: int) -> int:
    """Tokens that a text with its question may fill, so that the answer and what is written have room behind it."""
    return context - max(ANSWER_TOKENS, WRITTEN) - _SLACK


def check_counts(request: Request) -> None:
    """Raises InputError for more texts or questions than a study can want."""
    for option, given, most in (
        ("--documents", request.documents, MOST_DOCUMENTS), ("--questions", request.questions, MOST_QUESTIONS),
    ):  # fmt: skip
        if not 0 < given <= most:
            raise InputError(f"{option} {given} is out of range; give 1 to {most:,}")


def settings(request: Request, model_hash: str, context: int, runtime: str, prose: Sequence[str]) -> dict[str, Any]:
    """What the rows of a run folder and the rule for them depend on; more texts may be added, everything else stays.

    Margin and alpha are among it: chosen after the texts were read, they would make any verdict.
    """
    told = "\n".join(prose)
    return {
        "model": model_hash,
        "context": context,
        "types": [option.name for option in request.options],
        "questions": request.questions,
        "margin": request.margin,
        "alpha": request.alpha,
        "text": hashlib.blake2b(told.encode(), digest_size=16).hexdigest() if prose else None,
        "seed": request.seed,
        "threads": request.threads,
        "runtime": runtime,
        "top": TOP,
        "tail": TAIL,
        "written": WRITTEN,
    }


def settings_hash(kept: dict[str, Any]) -> str:
    """Ten digits that name the run folder."""
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=5).hexdigest()
