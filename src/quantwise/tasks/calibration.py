"""Calibration texts: what the statistics of GPTQ and its kin are gathered on.

By default solved items of the suites' calibration split and generated prose, which no other stage ever sees; or a file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quantwise.core.errors import InputError
from quantwise.core.item import Message
from quantwise.tasks import SUITES
from quantwise.tasks.prose import held_out_text
from quantwise.tasks.suite import solved_items

Render = Callable[[tuple[Message, ...]], str]
"""A conversation, complete with its answer, as one text."""


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
    parts = text.split("\n\n") if "\n\n" in text.strip() else text.splitlines()
    documents = [part.strip() for part in parts if part.strip()]
    if not documents:
        raise InputError(f"{file} is empty; give a text file to calibrate on")
    return documents
