"""Argument types that several verbs share. Each complaint names what was given and what is allowed."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from quantwise.core.errors import InputError
from quantwise.scenarios.memory_size import memory_size

if TYPE_CHECKING:
    from quantwise.tasks.calibration import CalibrationSet

FEWEST_SAMPLES, MOST_SAMPLES = 16, 10_000
_MOST_DIGITS = 1000
_LONGEST_S = 10 * 366 * 24 * 3600.0


def share(text: str) -> float:
    """``1%`` or ``0.01`` as a number in [0, 1]."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; write 1% or 0.01")
    return value


def task_share(text: str) -> tuple[str, float]:
    """``task=1%`` as a pair."""
    name, sign, value = text.rpartition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not TASK=SHARE, for example code=1%")
    return name, share(value)


def duration(text: str) -> float:
    """``30m``, ``90s``, ``2h`` or plain seconds, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 30m or 2h")
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    if seconds > _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is more than ten years; write 90s, 30m or 2h")
    return seconds


def positive(text: str) -> int:
    """A whole number above zero."""
    if not (text.isascii() and text.isdigit()) or not text.strip("0"):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number above 0")
    if len(text) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"{text[:20]!r}... has {len(text)} digits, which nothing here takes")
    return int(text)


def byte_count(text: str) -> int:
    """``12GB`` (10^9), ``12GiB`` (2^30), or plain bytes."""
    amount = memory_size(text)
    if amount is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of memory; write 12GB, 11.5GiB or bytes")
    return amount


def add_retry(p: argparse.ArgumentParser) -> None:
    """Add ``--retry``."""
    p.add_argument(
        "--retry", type=duration, metavar="TIME",
        help="how long an item is asked again of a server by URL that fails or is away (default 2m; 0 for not at all)",
    )  # fmt: skip


def add_decoding(p: argparse.ArgumentParser) -> None:
    """The options that say how answers are drawn."""
    p.add_argument(
        "--temperature", type=float, metavar="T", help="draw answers at this temperature (default 0: greedy)"
    )
    p.add_argument("--top-p", type=float, metavar="P", help="of the likeliest tokens that reach P together (default 1)")
    p.add_argument("--top-k", type=int, metavar="K", help="before it: of the K likeliest tokens (default 0: all)")
    p.add_argument(
        "--min-p", type=float, metavar="P", help="after it: of tokens at least P times as likely as the likeliest (0)"
    )
    p.add_argument(
        "--repeats", type=positive, metavar="K", help="answers drawn of each item, which stays one observation"
    )
    p.add_argument(
        "--thinking-cap", type=positive, metavar="N",
        help="for reasoning models: at most N tokens of thinking, which is stripped; more is no answer",
    )  # fmt: skip


def decoding_given(arguments: argparse.Namespace) -> dict[str, float | int]:
    """Those of them that were given."""
    names = ("temperature", "top_k", "top_p", "min_p", "repeats", "thinking_cap")
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def add_calibration(p: argparse.ArgumentParser) -> None:
    """The options that say what recipes are calibrated on; ``--seed`` is the verb's own."""
    p.add_argument(
        "--calibration", action="append", metavar="TEXTS",
        help="a text file, or in-domain (what the suites generate; the default), general (QUANTWISE_DATA/text), mixed; "
        "repeatable",
    )  # fmt: skip
    p.add_argument("--samples", type=positive, metavar="N", help="calibration texts to take, 16 to 10000, by --seed")


def calibration_set(arguments: argparse.Namespace) -> CalibrationSet:
    """What those options say. Raises InputError for a number of samples out of range."""
    from quantwise.tasks.calibration import CalibrationSet

    samples = arguments.samples
    if samples is not None and not FEWEST_SAMPLES <= samples <= MOST_SAMPLES:
        raise InputError(f"--samples {samples} is out of range; give {FEWEST_SAMPLES} to {MOST_SAMPLES}")
    return CalibrationSet(tuple(arguments.calibration or ()), samples, arguments.seed)
