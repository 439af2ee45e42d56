"""Why a server of ours failed, in a line: out of its log, and out of how it ended.

A program that a signal ends has no time to say why, so the signal is the reason and its log only says how far it came.
One that gives up by itself has said why before.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

_LOOKED_AT = 200  # lines
# What programs say as they give up. ggml names the place in its source before it aborts; an uncaught exception of C++
# says what it was on the line after its type.
_GIVING_UP = re.compile(r"GGML_ASSERT|\.(?:c|cc|cpp|cu|h|hpp|m):\d+: |^what\(\): |^Assertion |: Assertion ")
# A count of no errors is no trouble.
_TROUBLE = re.compile(r"(?<!\b0 )error(?!s?\s*=?\s*0\b|s:\s*0\b)|failed|fatal|abort|exception|cannot", re.IGNORECASE)
# llama.cpp says so of every file of few bits, and goes on.
_HARMLESS = re.compile(r"cannot be used with preferred buffer type")
_MEANING = {
    "SIGILL": ("an instruction that this processor lacks", "take a build for this processor"),
    "SIGKILL": ("killed from outside, as Linux does when memory is full", "free memory, or ask for less context"),
    "SIGBUS": ("a file or its disk could not be read to the end", "check that the file is whole"),
    "SIGSEGV": ("a fault of the program", "try another build of it, or other flags"),
    "SIGFPE": ("a fault of the program", "try another build of it, or other flags"),
    "SIGTERM": ("somebody stopped it", "run the same command again"),
    "SIGINT": ("somebody stopped it", "run the same command again"),
}
_GAVE_UP = "SIGABRT"
_FAULTS = ("SIGSEGV", "SIGFPE")


def last_words(log: str, status: int | None, troubles: Sequence[re.Pattern[str]] = ()) -> str:
    """One line on a server with this ``log``: the last line that says why it failed (by the first of ``troubles`` that
    is there, then by what programs usually say), else its last line, and how it ended, with what helps against that.

    ``status`` is its exit status, 128 + signal where one ended it; None where it still runs, or nobody knows.
    """
    lines = [" ".join(line.split()) for line in log.splitlines()[-_LOOKED_AT:] if line.strip()]
    why = _telling(lines, troubles)
    if status is None:
        return why or (lines[-1] if lines else "it said nothing")
    name = _signal(status)
    if name in (None, _GAVE_UP) and why is not None:
        return f"{why}; it ended {_how(status)}"
    # A fault may follow from what went wrong before; what ends a program from outside does not.
    said = why if why and name in _FAULTS else lines[-1] if lines else ""
    said = f", after it said: {said}" if said else " and said nothing"
    return f"it ended {_how(status)}{said}; {_next(name)}"


def _telling(lines: Sequence[str], troubles: Sequence[re.Pattern[str]]) -> str | None:
    told = [line for line in reversed(lines) if not _HARMLESS.search(line)]
    return next((line for trouble in (*troubles, _GIVING_UP, _TROUBLE) for line in told if trouble.search(line)), None)


def _how(status: int) -> str:
    name = _signal(status)
    if name is None:
        return f"with exit code {status}"
    meaning, _ = _MEANING.get(name, ("", ""))
    return f"by {name} ({meaning})" if meaning else f"by {name}"


def _next(name: str | None) -> str:
    return _MEANING.get(name or "", ("", "start it by hand to see more"))[1]


def _signal(status: int) -> str | None:
    """The name of the signal in an exit status, if there is one."""
    try:
        return signal.Signals(status - 128).name if status > 128 else None
    except ValueError:
        return None
