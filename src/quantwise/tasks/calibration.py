"""Calibration texts: what the statistics of GPTQ and its kin are gathered on.

By default solved items of the suites' calibration split and generated prose, which no other stage ever sees; or files,
or several of these together.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantwise.core.errors import InputError
from quantwise.core.item import Item, Message
from quantwise.tasks import SUITES
from quantwise.tasks.general_prose import general_prose
from quantwise.tasks.prose import held_out_text
from quantwise.tasks.suite import items, solved_items, split_of

Render = Callable[[tuple[Message, ...]], str]
"""A conversation, complete with its answer, as one text."""
IN_DOMAIN, GENERAL, MIXED = "in-domain", "general", "mixed"
SAMPLES = 512
# Shorter prompts ("2 + 2 =") may stand in a text by chance.
_TELLING = 24


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """What to calibrate on: ``sources`` are files or ``in-domain``, ``general``, ``mixed``; none means in-domain.

    ``samples`` are taken of them in equal parts, by ``seed``; without a number, whole files and SAMPLES of the others.
    """

    sources: tuple[str, ...] = ()
    samples: int | None = None
    seed: int = 0

    @property
    def files(self) -> list[Path]:
        """Those that are files, which may hold anything."""
        return [Path(source) for source in self.sources if source not in (IN_DOMAIN, GENERAL, MIXED)]


def gathered(wanted: CalibrationSet, render: Render | None) -> list[str]:
    """The texts of a set, none twice. Raises InputError as ``calibration_texts`` does, and where a source has fewer
    samples than its part, or a file holds items that models are measured on.
    """
    sources = [
        s for given in wanted.sources or (IN_DOMAIN,) for s in ((IN_DOMAIN, GENERAL) if given == MIXED else (given,))
    ]
    found: list[str] = []
    for number, source in enumerate(dict.fromkeys(sources)):
        parts = len(dict.fromkeys(sources))
        part = None if wanted.samples is None else wanted.samples // parts + (number < wanted.samples % parts)
        texts = _source(source, part or SAMPLES, render)
        if part is not None:
            if part > len(texts):
                raise InputError(
                    f"{source} has {len(texts)} calibration samples, not {part}; ask for fewer, or add a source"
                )
            texts = random.Random(f"{source}/{wanted.seed}").sample(texts, part)
        found += texts
    if wanted.files:
        refuse_evaluation_items(found, [i for s in SUITES for i in _evaluated(s)])
    return list(dict.fromkeys(found))


def refuse_evaluation_items(texts: Sequence[str], evaluated: Sequence[Item]) -> None:
    """Raise InputError where ``texts`` hold prompts of ``evaluated`` items.

    Scales chosen on the very items that judge them would flatter the artifact, and no statistics can take that out
    again: so it is refused and not merely warned of. Case, width and white space do not matter; prompts below 24
    characters are not looked for.
    """
    whole = _folded("\n".join(texts))
    held = [item for item in evaluated if len(prompt := _folded(item.text)) >= _TELLING and prompt in whole]
    if held:
        raise InputError(
            f"the calibration texts hold {len(held)} of the {len(evaluated)} items that would be measured "
            f"({held[0].task or 'task'} {held[0].id} is one); calibrate on other texts, or measure other items"
        )


def _source(source: str, count: int, render: Render | None) -> list[str]:
    if source == IN_DOMAIN:
        # Suites give equal parts, rounded down: ask for enough.
        texts = list(dict.fromkeys(calibration_texts(None, count + 2 * len(SUITES), render)))
        random.Random(count).shuffle(texts)
        return texts[:count]
    if source == GENERAL:
        notes: list[str] = []
        texts = [text for text in general_prose(notes) if split_of(text) in ("train", "calibration")]
        if not texts:
            raise InputError(notes[0] if notes else "no general prose is left after what is measured on was taken out")
        return texts
    return calibration_texts(Path(source), count, render)


def _evaluated(suite: object) -> list[Item]:
    return [item for split in ("screen", "certify") for item in items(suite, split, 128)]  # type: ignore[arg-type]


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def calibration_texts(file: Path | None, count: int, render: Render | None) -> list[str]:
    """About ``count`` texts of the suites and of prose, or the documents of a file (paragraphs, else lines).

    Without ``render`` a solved item is its question, a line break, and its answer. Raises InputError where the file is
    missing, empty or no UTF-8.
    """
    if file is not None:
        return _documents(file)
    each = max(1, count // (len(SUITES) + 1))
    texts = held_out_text("calibration", each)
    for suite in SUITES:
        for item, answer in solved_items(suite, "calibration", each):
            turns = (*item.messages, Message("assistant", answer))
            texts.append(render(turns) if render and item.messages else f"{item.text}\n{answer}")
    return texts


def _documents(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: no UTF-8 text at byte {error.start}; give a plain text file") from error
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; give a text file to calibrate on") from error
    if "\0" in text:
        raise InputError(f"{file}: no text, it holds NUL characters; give a plain text file")
    parts = text.split("\n\n") if "\n\n" in text.strip() else text.splitlines()
    documents = [part.strip() for part in parts if part.strip()]
    if not documents:
        raise InputError(f"{file} is empty; give a text file to calibrate on")
    return documents
