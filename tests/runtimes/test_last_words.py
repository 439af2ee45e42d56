"""Why a server failed: the line of its log that says so, else the signal or code that ended it, and what helps."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from quantwise.core.errors import RuntimeFailure
from quantwise.runtimes.last_words import last_words
from quantwise.runtimes.process import ServerProcess

WARMING = "common_init_from_params: warming up the model with an empty run - please wait ... (--no-warmup to disable)"
BEFORE = (
    f"load_tensors: tensor 'token_embd.weight' (q8_0) cannot be used with preferred buffer type CPU_REPACK\n{WARMING}"
)


@pytest.mark.parametrize(
    ("name", "means", "helps"),
    [
        ("SIGILL", "an instruction that this processor lacks", "take a build for this processor"),
        (
            "SIGKILL",
            "killed from outside, as Linux does when memory is full",
            "free memory, or ask for less context",
        ),
        ("SIGBUS", "a file or its disk could not be read to the end", "check that the file is whole"),
        ("SIGSEGV", "a fault of the program", "try another build of it, or other flags"),
    ],
)
def test_a_signal_is_the_reason_and_the_log_says_how_far_it_came(name: str, means: str, helps: str) -> None:
    word = last_words(f"{BEFORE}\n", 128 + signal.Signals[name])
    assert word == f"it ended by {name} ({means}), after it said: {WARMING}; {helps}"


@pytest.mark.parametrize(
    ("log", "status", "line"),
    [
        (
            f"{WARMING}\n/src/ggml/src/ggml-cpu/ops.cpp:5012: GGML_ASSERT(ne0 % 32 == 0) failed\n"
            "[New LWP 77]\n#2  0x00007f in ggml_abort () from libggml-base.so\n#9 0x00 in error_exit () from libc.so",
            128 + signal.SIGABRT,
            "/src/ggml/src/ggml-cpu/ops.cpp:5012: GGML_ASSERT(ne0 % 32 == 0) failed",
        ),
        (
            f"{BEFORE}\nterminate called after throwing an instance of 'std::runtime_error'\n"
            "  what():  unable to allocate CPU buffer\n",
            128 + signal.SIGABRT,
            "what(): unable to allocate CPU buffer",
        ),
        (f"llama_init: failed to open x.gguf\n{BEFORE}\nbye", 1, "llama_init: failed to open x.gguf"),
        ("Traceback\nValueError: bad\nsrv error: exiting", 1, "srv error: exiting"),
        ("error: 0 GPUs found\nINFO: errors=0\n0 errors\nerrors: 0", 1, "error: 0 GPUs found"),
    ],
)
def test_who_gives_up_has_said_why(log: str, status: int, line: str) -> None:
    how = "by SIGABRT" if status > 128 else f"with exit code {status}"
    assert last_words(log, status) == f"{line}; it ended {how}"


def test_a_line_that_the_runtime_knows_goes_before_others() -> None:
    log = "RPC call timed out\nerror: something after it"
    assert last_words(log, None, (re.compile("RPC call"),)) == "RPC call timed out"
    assert last_words(log, None) == "error: something after it"


def test_without_a_word_the_code_is_told() -> None:
    assert last_words(f"{BEFORE}\n", 7) == (
        f"it ended with exit code 7, after it said: {WARMING}; start it by hand to see more"
    )
    assert last_words(" \n", 0) == "it ended with exit code 0 and said nothing; start it by hand to see more"
    assert last_words("", None) == "it said nothing"
    assert last_words("loading\nready", None) == "ready"
    assert last_words("ready", 250) == "it ended with exit code 250, after it said: ready; start it by hand to see more"


@pytest.mark.parametrize("name", ["SIGILL", "SIGKILL"])
def test_a_server_that_a_signal_ends_while_it_warms_up(name: str, logs: Path) -> None:
    program = f"import os, signal; print({WARMING!r}, flush=True); os.kill(os.getpid(), signal.{name})"
    with pytest.raises(RuntimeFailure, match=f"ended while starting: it ended by {name}") as caught:
        ServerProcess([sys.executable, "-c", program], "http://127.0.0.1:9", start_timeout_s=60).__enter__()
    assert "\n" not in str(caught.value)
    assert "please wait" in next(logs.iterdir()).read_text()


def test_a_server_that_ends_without_a_word_leaves_no_empty_log(logs: Path) -> None:
    with pytest.raises(RuntimeFailure, match="ended with exit code 9 and said nothing"):
        ServerProcess([sys.executable, "-c", "raise SystemExit(9)"], "http://127.0.0.1:9").__enter__()
    assert not list(logs.iterdir())
