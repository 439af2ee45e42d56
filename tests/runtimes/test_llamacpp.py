"""llama.cpp in its own process: equal to Transformers, measured, and gone without a hang when it is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from quantwise.core.artifact import Artifact
from quantwise.core.cache_scheme import keys_and_values
from quantwise.core.errors import EnvironmentFailure, InputError, RuntimeFailure
from quantwise.core.runtime import Ask, RuntimeOptions
from quantwise.plan.llamacpp.cache import llamacpp_cache
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.model_source import read_gguf_decoder
from quantwise.runtimes.llamacpp import LlamaCpp, LlamaCppSession, buffer_bytes
from quantwise.runtimes.transformers import Transformers, TransformersSession
from quantwise.stats.divergence import divergence

NATIVE = os.environ.get("QUANTWISE_LLAMA_SERVER")
CHOICES = (" one", " little dog", " x")


def test_it_agrees_with_transformers(
    folder: Artifact, gguf_file: Artifact, options: RuntimeOptions, prompts: list[str]
) -> None:
    text = "once upon a time there was"
    with Transformers().open(folder, options) as theirs, LlamaCpp().open(gguf_file, options) as ours:
        assert isinstance(theirs, TransformersSession)
        assert isinstance(ours, LlamaCppSession)
        generated = [s.ask([Ask(text=p, max_tokens=6) for p in prompts]) for s in (theirs, ours)]
        chosen = [s.ask([Ask(text=p, choices=CHOICES) for p in prompts]) for s in (theirs, ours)]
        opened = [s.ask([Ask(text="", choices=(text,), rendered=False)])[0].choice_logprobs[0] for s in (theirs, ours)]
        positions = [s.next_token_logprobs(text, 20) for s in (theirs, ours)]
    # The random model's logits are wide (a log-probability is often -10), so float16 shows in the second decimal.
    same = [a.text == b.text and a.finish == b.finish for a, b in zip(*generated, strict=True)]
    assert sum(same) >= len(prompts) - 1  # float16 weights may tip one near-tie over
    assert [r.prompt_tokens for r in generated[0]] == [r.prompt_tokens for r in generated[1]]
    for a, b in zip(*chosen, strict=True):
        assert b.choice_logprobs == pytest.approx(a.choice_logprobs, abs=0.15)
    assert opened[1] == pytest.approx(opened[0], abs=0.3)
    for a, b in zip(*positions, strict=True):
        for token in a.keys() & b.keys():
            assert b[token] == pytest.approx(a[token], abs=0.15)
        assert len(a.keys() & b.keys()) >= 18


def test_memory_is_what_the_log_and_the_kernel_say(gguf_file: Artifact, options: RuntimeOptions) -> None:
    with LlamaCpp().open(gguf_file, options) as plain:
        f16 = plain.footprint()
        # A native server with AMX holds the matrices a second time, as AMX multiplies them.
        copies = 2 if "AMX model buffer size" in plain.process.log_text() else 1
    with LlamaCpp().open(gguf_file, replace(options, cache="q8_0")) as small:
        q8 = small.footprint()
        assert small.ask([Ask(text="once upon", max_tokens=3)])[0].finish in ("stop", "length")
    # 2 (keys, values) * 2 layers * 64 wide * 256 cells * 4 slots * 2 bytes
    assert f16.cache_bytes == 2 * 2 * 64 * 256 * 4 * 2
    assert q8.cache_bytes == pytest.approx(f16.cache_bytes * 1.0625 / 2, rel=0.02)
    assert f16.weights_bytes == pytest.approx(copies * gguf_file.bytes, rel=0.2)
    assert f16.peak_process_bytes is not None
    assert f16.peak_process_bytes > 10e6


@pytest.mark.parametrize(
    "cache",
    [
        *("q4_0", "q8_0/q4_0", "q4_0/f16"),
        *(
            pytest.param(c, marks=pytest.mark.long)
            for c in ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "iq4_nl", "f16/q8_0")
        ),
    ],
)
def test_the_server_keeps_what_was_asked_for_and_what_was_planned(
    gguf_file: Artifact, options: RuntimeOptions, cache: str
) -> None:
    context = 4096  # long, because the log rounds to 0.01 MiB
    with LlamaCpp().open(gguf_file, replace(options, cache=cache, context=context)) as session:
        log = session.process.log_text()
        (reply,) = session.ask([Ask(text="once upon a time", max_tokens=3)])
        footprint = session.footprint()
    assert reply.finish in ("stop", "length")
    assert reply.output_tokens
    told = re.search(r"K \((\w+)\):\s*([\d.]+) MiB, V \((\w+)\):\s*([\d.]+) MiB", log)
    assert told is not None
    assert (told[1], told[3]) == keys_and_values(cache)
    settings = LlamacppSettings(context, options.parallel, cache=cache)
    planned = llamacpp_cache(read_gguf_decoder(Path(gguf_file.location)), settings)
    for mib, amount in zip((told[2], told[4]), (planned.keys, planned.values), strict=True):
        assert float(mib) * 2**20 == pytest.approx(amount, abs=0.0051 * 2**20)
    assert footprint.cache_bytes == pytest.approx(planned.total, abs=0.0051 * 2**20)
    if keys_and_values(cache)[1] != "f16":
        assert re.search(r"flash_attn\s*=\s*enabled", log)


def test_a_coarser_cache_moves_the_distributions_further(gguf_file: Artifact, options: RuntimeOptions) -> None:
    text, told = "once upon a time there was little dog who loved to play in the park", {}
    for cache in ("f16", "q8_0", "q4_0"):
        with LlamaCpp().open(gguf_file, replace(options, cache=cache)) as session:
            told[cache] = session.next_token_logprobs(text, 300)
    moved = {cache: divergence([told["f16"]], [told[cache]]).mean_kl for cache in ("q8_0", "q4_0")}
    assert 0 < moved["q8_0"] < moved["q4_0"]


def test_the_log_parser_adds_devices_and_admits_silence() -> None:
    log = "a: CPU_Mapped model buffer size =  10.00 MiB\nb: CUDA0 model buffer size = 1.50 MiB\n"
    log += "c: CPU KV buffer size = 2.0 MiB"
    assert buffer_bytes(log) == (round(11.5 * 2**20), 2 * 2**20, None)
    state = "llama_memory_recurrent:        CPU RS buffer size =     0.50 MiB\n"
    assert buffer_bytes(f"{log}\n{state}") == (round(11.5 * 2**20), round(2.5 * 2**20), None)
    assert buffer_bytes(state) == (None, 2**19, None)
    assert buffer_bytes("nothing") == (None, None, None)


def test_the_log_goes_with_a_session_that_ends_well(gguf_file: Artifact, options: RuntimeOptions, logs: Path) -> None:
    with LlamaCpp().open(gguf_file, options) as session:
        session.ask([Ask(text="once upon", max_tokens=3)])
        assert "listening on" in session.process.log_text()
    assert not list(logs.iterdir())


def test_a_killed_server_is_a_failure_and_not_a_hang_and_its_log_is_kept(
    gguf_file: Artifact, options: RuntimeOptions, logs: Path
) -> None:
    with LlamaCpp().open(gguf_file, options) as session:
        asks = [Ask(text=f"once upon {i}", max_tokens=200) for i in range(400)]
        threading.Timer(0.2, lambda: [os.kill(pid, signal.SIGKILL) for pid in session.process.pids()]).start()
        start = time.monotonic()
        with pytest.raises(RuntimeFailure, match="gone") as caught:
            session.ask(asks)
        assert time.monotonic() - start < 30
        with pytest.raises(RuntimeFailure, match="gone: it ended by SIGKILL"):
            session.ask(asks[:1])
        with pytest.raises(RuntimeFailure, match="no token ids: "):
            session.tokenize("once upon")
    (kept,) = logs.iterdir()
    assert str(kept) in str(caught.value)
    assert "listening on" in kept.read_text()


def test_an_interrupt_does_not_wait_for_answers_and_leaves_nothing(
    gguf_file: Artifact, options: RuntimeOptions, logs: Path
) -> None:
    begun = time.monotonic()
    with LlamaCpp().open(gguf_file, replace(options, timeout_s=60)) as session:
        held = session.process.pids()
        for pid in held:
            os.kill(pid, signal.SIGSTOP)  # it will not answer before it is ended
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            session.ask([Ask(text="once upon", max_tokens=2)] * 2)
    for thread in threading.enumerate():
        if thread.name.startswith("ask"):
            thread.join(20)
            assert not thread.is_alive()
    assert time.monotonic() - begun < 30
    assert not any(psutil.pid_exists(pid) for pid in held)
    assert not list(logs.iterdir())


def test_what_it_cannot_load_is_said_in_one_line(gguf_file: Artifact, options: RuntimeOptions, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Path(gguf_file.location).read_bytes()[:30_000])
    with pytest.raises(RuntimeFailure, match="ended while starting") as caught:
        LlamaCpp().open(replace(gguf_file, location=str(cut)), options).__enter__()
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeFailure, match=r"ended while starting: .*(?i:v cache).*requires flash_attn") as caught:
        LlamaCpp(flags="-fa off").open(gguf_file, replace(options, cache="q8_0")).__enter__()
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="unknown cache scheme 'int3'; allowed: f32"):
        LlamaCpp().open(gguf_file, replace(options, cache="int3")).__enter__()
    with pytest.raises(EnvironmentFailure, match="does not run"):
        LlamaCpp(server_binary=str(tmp_path / "llama-server")).version()
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error while loading shared libraries: libllama.so.0' >&2; exit 127\n")
    broken.chmod(0o755)
    with pytest.raises(
        EnvironmentFailure, match=r"broken does not run: error while loading .* libllama\.so\.0; give a"
    ):
        LlamaCpp(server_binary=str(broken)).version()


def test_a_native_binary_takes_the_same_flags(
    gguf_file: Artifact, options: RuntimeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for llama-server: a program of that name that says its version and serves like ours."""
    monkeypatch.delenv("QUANTWISE_LLAMA_SERVER", raising=False)

    binary = tmp_path / "llama-server"
    binary.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "version: 7777 (abc)" >&2; exit 0; }}\n'
        f'exec {sys.executable} -P -m quantwise.runtimes.llamacpp_host "$@"\n'
    )
    binary.chmod(0o755)
    runtime = LlamaCpp(server_binary=str(binary))
    assert runtime.version() == "llama-server 7777 (abc)"
    assert not runtime.notes
    assert "AVX2" in LlamaCpp().notes[0]
    with runtime.open(gguf_file, options) as session:
        assert session.ask([Ask(text="once upon", max_tokens=2)])[0].finish in ("stop", "length")


@pytest.fixture
def wrapped(tmp_path: Path) -> Path:
    """A program that writes down how it was called, and is then the native server where one is named, else ours."""
    told = tmp_path / "called.json"
    real = [NATIVE] if NATIVE else [sys.executable, "-P", "-m", "quantwise.runtimes.llamacpp_host"]
    binary = tmp_path / "llama-server"
    binary.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "if sys.argv[1:] == ['--version']:\n"
        "    print('version: 7777 (abc)', file=sys.stderr); sys.exit(0)\n"
        "held = {k: v for k, v in os.environ.items() if k.startswith('LLAMA_ARG_')}\n"
        f"json.dump([sys.argv[1:], held], open({str(told)!r}, 'w'))\n"
        f"os.execv({real[0]!r}, [*{real!r}, *sys.argv[1:]])\n"
    )
    binary.chmod(0o755)
    return binary


def test_further_flags_are_part_of_the_version_and_stand_after_ours(
    gguf_file: Artifact, options: RuntimeOptions, wrapped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTWISE_LLAMA_SERVER", str(wrapped))
    monkeypatch.setenv("QUANTWISE_LLAMA_FLAGS", "-ub 32 --flash-attn 'off'")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "77")  # our command line says it
    monkeypatch.setenv("LLAMA_ARG_DEFRAG_THOLD", "0.2")
    runtime = LlamaCpp()
    assert runtime.version() == "llama-server 7777 (abc) with LLAMA_ARG_DEFRAG_THOLD=0.2 -ub 32 --flash-attn off"
    with runtime.open(gguf_file, options) as session:
        log = session.process.log_text()
        assert session.ask([Ask(text="once upon", max_tokens=2)])[0].finish in ("stop", "length")
    given, variables = json.loads((wrapped.parent / "called.json").read_text())
    assert given[-4:] == ["-ub", "32", "--flash-attn", "off"]
    assert given.index("--flash-attn") < len(given) - 2, "ours comes first, so that theirs wins"
    assert variables["LLAMA_ARG_DEFRAG_THOLD"] == "0.2"
    assert re.search(r"n_ubatch\s*=\s*32\b", log)
    assert re.search(r"flash_attn\s*=\s*disabled", log)
    assert re.search(rf"n_ctx\s*=\s*{options.context * options.parallel}\b", log)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("-ngl 99 -m other.gguf", "-m is decided by the candidate; leave it out"),
        ("-hf some/model", "-hf is decided by the candidate"),
        ("--ctx-size=4096", "--ctx-size=4096 is decided by the question"),
        ("--ctx_size 4096", "--ctx_size is decided by the question"),  # llama.cpp takes both for one
        ("-fa on --repeat-penalty 1.1", "--repeat-penalty is decided by the question"),
        ("--mirostat 2", "--mirostat is decided by the question"),
        ("--chat-template-kwargs {}", "decided by the model's own template"),
        ("-np 2", "-np is decided by the question"),
        ("--port 8080", "--port is decided by quantwise"),
        ("--api-prefix /x", "--api-prefix is decided by quantwise"),
        ("--chat-template chatml", "decided by the model's own template"),
        ("--alias 'x", "cannot be read"),
    ],
)
def test_flags_that_the_question_decides_are_refused(line: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTWISE_LLAMA_FLAGS", line)
    with pytest.raises(InputError, match="QUANTWISE_LLAMA_FLAGS") as caught:
        LlamaCpp()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_native_server_that_its_own_variables_would_change_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTWISE_LLAMA_SERVER", raising=False)
    for name, said in (("HF_REPO", "the candidate"), ("CACHE_TYPE_K", "the candidate"), ("TOP_K", "the question")):
        with monkeypatch.context() as of_its_own:
            of_its_own.setenv(f"LLAMA_ARG_{name}", "x")
            with pytest.raises(InputError, match=rf"LLAMA_ARG_{name} is decided by {said}.*; unset it"):
                LlamaCpp(server_binary="llama-server")
            LlamaCpp()  # the wheel does not read them


def test_what_decides_flash_attention_and_threads_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the server goes before our ``auto``; what a study asks for goes before anything, or is refused."""
    options = RuntimeOptions()
    assert "--flash-attn" in LlamaCpp("server")._command("m", 1, options)
    monkeypatch.setenv("LLAMA_ARG_FLASH_ATTN", "off")
    monkeypatch.setattr("quantwise.runtimes.llamacpp._native_build", lambda binary: "llama-server 1")
    assert LlamaCpp("server").version() == "llama-server 1 with LLAMA_ARG_FLASH_ATTN=off"
    assert "--flash-attn" not in LlamaCpp("server")._command("m", 1, options)
    with pytest.raises(InputError, match="LLAMA_ARG_FLASH_ATTN is decided by the question; unset it"):
        LlamaCpp("server", flash_attention=True)
    with pytest.raises(InputError, match="-fa is decided by the question; leave it out"):
        LlamaCpp(flash_attention=False, flags="-fa on")
    threads = LlamaCpp(flags="-t 3")
    assert threads._command("m", 1, options)[-2:] == ["-t", "3"]
    with pytest.raises(InputError, match=r"-t is decided by the question \(--threads\)"):
        threads._command("m", 1, replace(options, threads=2))


def test_a_flag_that_the_server_does_not_know_is_named(
    gguf_file: Artifact, options: RuntimeOptions, wrapped: Path
) -> None:
    with pytest.raises(RuntimeFailure, match=r"ended while starting: .*--no-such-flag") as caught:
        LlamaCpp(server_binary=str(wrapped), flags="--no-such-flag").open(gguf_file, options).__enter__()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not NATIVE, reason="no native llama-server; name one in QUANTWISE_LLAMA_SERVER")
def test_a_native_server_answers_as_the_wheel_does(
    gguf_file: Artifact, options: RuntimeOptions, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = [Ask(text=p, max_tokens=6) for p in prompts] + [Ask(text=p, choices=CHOICES) for p in prompts]
    with LlamaCpp(server_binary=NATIVE).open(gguf_file, options) as native:
        monkeypatch.delenv("QUANTWISE_LLAMA_SERVER")
        with LlamaCpp().open(gguf_file, options) as wheel:
            assert native.process.command != wheel.process.command
            ours, theirs = native.ask(asks), wheel.ask(asks)
            assert native.footprint().cache_bytes == wheel.footprint().cache_bytes
    assert sum(a.text == b.text for a, b in zip(ours, theirs, strict=True)) >= len(asks) - 1
    for a, b in zip(ours, theirs, strict=True):
        assert a.choice_logprobs == pytest.approx(b.choice_logprobs, abs=0.05)
