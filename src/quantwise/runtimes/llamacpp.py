"""llama.cpp: a GGUF file served by llama.cpp's own server, in a process of its own on loopback.

By default the server comes from the ``xllamacpp`` wheel; ``LlamaCpp(server_binary=...)`` or QUANTWISE_LLAMA_SERVER
names a native ``llama-server`` instead (a build of 2026 or later), which is asked in the same way. Further flags of the
server (``-ngl 99``, ``-ub 256``) come from QUANTWISE_LLAMA_FLAGS and are part of the version, so of the question. So is
what a native one reads from variables of its own (LLAMA_ARG_UBATCH=256), but for what our command line says anyway.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import httpx

from quantwise.core.artifact import Artifact
from quantwise.core.cache_scheme import keys_and_values, parse_cache
from quantwise.core.errors import EnvironmentFailure, InputError, RuntimeFailure
from quantwise.core.prompt_tokens import PromptTokens
from quantwise.core.runtime import Ask, Footprint, Reply, RuntimeOptions
from quantwise.runtimes.forced_tokens import Refused
from quantwise.runtimes.further_flags import further_flags
from quantwise.runtimes.llama_server import UNREADABLE, LlamaServer, Phases, ask_all, key_header
from quantwise.runtimes.process import ServerProcess, free_port
from quantwise.runtimes.prompt import prompt_text

_UNQUANTIZED = ("f32", "f16", "bf16")
_MIB = 1024 * 1024
# Getting to know a server that is up is no request of the user's, so it has a time limit of its own.
_PROBE_S = 60.0
_BUFFER = re.compile(r"(model|KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")
# Kinds of its buffers that are another's: RS is the state of recurrent layers, kept where others keep keys and values.
_COUNTS_AS = {"output": "compute", "RS": "KV"}
_QUESTION = "the question"
_OURS = {
    flag: said
    for said, flags in {
        "the candidate": "-m --model -mu --model-url -hf -hfr --hf-repo -hff --hf-file -dr --docker-repo --models-dir "
        "--models-preset -ctk --cache-type-k -ctv --cache-type-v",
        f"{_QUESTION} (--parallel, --context)": "-np --parallel -c --ctx-size --kv-unified-per-slot",
        f"{_QUESTION} (--temperature, --top-k, --top-p, --min-p), and by each item": "--temp --temperature --top-k "
        "--top-p --min-p -s --seed --samplers --sampler-seq --sampling-seq --repeat-penalty --repeat-last-n "
        "--presence-penalty --frequency-penalty --dry-multiplier --mirostat -n --predict --n-predict",
        "quantwise, which starts and asks the server": "--host --port --api-key --api-key-file --api-prefix --fit -fit "
        "--ssl-key-file --ssl-cert-file --embedding --embeddings --rerank --reranking --log-disable",
        "the model's own template, which quantwise renders": "--chat-template --chat-template-file "
        "--chat-template-kwargs -rea --reasoning --reasoning-effort --reasoning-budget",
    }.items()
    for flag in flags.split()
}
"""Flags that are decided elsewhere: they would change what is measured, or would change nothing and seem to."""
_VARIABLE = "LLAMA_ARG_"
_OVERRULED = re.compile("HOST|PORT|MODEL|CTX_SIZE|N_PARALLEL|FIT|CACHE_RAM|(NO_)?(WEB)?UI|LOG_VERBOSITY")
"""Variables of a native server that say what our command line says anyway, which goes before them."""
# Its log tells a cause first and then, also as errors, what follows from it.
_CAUSE = (
    re.compile("GGML_ASSERT|error: invalid argument|error while handling"),
    re.compile(r" E (?!.*(failed to (create|load|init)|error loading model|exiting due|common_init))"),
)
_BUILD = re.compile(r"version:\s*(.+)")


class LlamaCpp:
    """The runtime ``llamacpp``. ``server_binary`` is the path of a native llama-server; None takes the wheel.

    ``flags`` are further flags of the server, as one line; None takes QUANTWISE_LLAMA_FLAGS.
    ``flash_attention`` None leaves it to llama.cpp, but where values are quantized: then it is on.
    """

    name = "llamacpp"

    def __init__(
        self, server_binary: str | None = None, flash_attention: bool | None = None, flags: str | None = None
    ) -> None:
        self._flash_attention = flash_attention
        self.server_binary = server_binary or os.environ.get("QUANTWISE_LLAMA_SERVER") or None
        decided = _OURS if flash_attention is None else _OURS | dict.fromkeys(("-fa", "--flash-attn"), _QUESTION)
        self.flags = further_flags("QUANTWISE_LLAMA_FLAGS", decided, flags)
        self._variables = _variables(decided) if self.server_binary else []

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of speeds should know about this build."""
        if self.server_binary:
            return ()
        return ("the xllamacpp wheel is built for AVX2; a native llama-server may be faster (QUANTWISE_LLAMA_SERVER)",)

    def version(self) -> str:
        """The build, and what it is started with beyond the usual. Raises EnvironmentFailure when nothing is there."""
        further = [*self._variables, *self.flags]
        return " ".join([self._build(), *(["with", *further] if further else [])])

    def _build(self) -> str:
        if self.server_binary:
            return _native_build(self.server_binary)
        try:
            return f"xllamacpp {importlib.metadata.version('xllamacpp')}"
        except importlib.metadata.PackageNotFoundError as error:
            raise EnvironmentFailure(_MISSING) from error

    def refuses(self, artifact: Artifact) -> str | None:
        """It takes GGUF files, where a server is installed."""
        if artifact.format != "gguf":
            return f"llamacpp runs GGUF files, not {artifact.format}"
        if not self.server_binary and importlib.util.find_spec("xllamacpp") is None:
            return _MISSING
        return None

    @contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions) -> Iterator[LlamaCppSession]:
        """Start a server on the file.

        Raises InputError for an unknown cache and for threads said twice, RuntimeFailure when it cannot load.
        """
        parse_cache(options.cache, self.name)
        if (reason := self.refuses(artifact)) is not None:
            raise RuntimeFailure(reason)
        port, key = free_port(), secrets.token_hex(16)
        url = f"http://127.0.0.1:{port}"
        env = {"LLAMA_API_KEY": key}
        limits = httpx.Limits(max_connections=options.parallel + 2)
        client = httpx.Client(
            base_url=url, timeout=_PROBE_S, headers=key_header(key), limits=limits, trust_env=False, verify=False
        )
        command = self._command(artifact.location, port, options)
        with ServerProcess(command, url, env=env, troubles=_CAUSE) as process, client as http:
            try:
                server = LlamaServer(http)
            except (httpx.HTTPError, Refused, *UNREADABLE) as error:
                if (word := process.gone()) is not None:
                    raise RuntimeFailure(f"llama.cpp ended at its first requests: {word}") from error
                raise RuntimeFailure(f"llama.cpp does not answer on {url}: {error}; {process.last_word()}") from error
            http.timeout = httpx.Timeout(options.timeout_s)
            yield LlamaCppSession(process, server, options.parallel)

    def _command(self, model: str, port: int, options: RuntimeOptions) -> list[str]:
        """The context is per slot; llama.cpp wants the sum. No help from RAM beyond the slots, no silent refitting."""
        head = [self.server_binary] if self.server_binary else [sys.executable, "-P", "-m", _HOST]
        flags = ["--model", str(Path(model).resolve()), "--host", "127.0.0.1", "--port", str(port), "--no-webui"]
        flags += ["--parallel", str(options.parallel), "--ctx-size", str(options.context * options.parallel)]
        keys, values = keys_and_values(parse_cache(options.cache, self.name))
        flags += ["--cache-type-k", keys, "--cache-type-v", values]
        # Without flash attention values are kept transposed, and blocks of a row cannot be.
        flash = "auto" if values in _UNQUANTIZED else "on"
        if self._flash_attention is not None:
            flash = "on" if self._flash_attention else "off"
        if not any(variable.startswith(f"{_VARIABLE}FLASH_ATTN=") for variable in self._variables):
            flags += ["--flash-attn", flash]
        flags += ["--fit", "off", "--cache-ram", "0", "--log-verbosity", "4"]
        if options.threads is not None:
            if said := next((flag for flag in self.flags if flag in ("-t", "--threads")), None):
                raise InputError(f"QUANTWISE_LLAMA_FLAGS: {said} is decided by {_QUESTION} (--threads); leave it out")
            flags += ["--threads", str(options.threads)]
        return [*head, *flags, *self.flags]


@lru_cache
def _native_build(binary: str) -> str:
    """What a native server says of its build. Raises EnvironmentFailure where it does not run."""
    try:
        told = subprocess.run([binary, "--version"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailure(f"{binary} does not run: {error}; give a llama-server") from error
    text = told.stdout + told.stderr
    if told.returncode:
        why = " ".join(text.split()[-40:]) or f"status {told.returncode}"
        raise EnvironmentFailure(f"{binary} does not run: {why}; give a llama-server")
    found = _BUILD.search(text)
    return f"llama-server {found.group(1).strip() if found else 'of unknown build'}"


def _variables(decided: Mapping[str, str]) -> list[str]:
    """What a native server reads from variables of its own. Raises InputError for what is decided elsewhere."""
    found = []
    for name in sorted(name for name in os.environ if name.startswith(_VARIABLE)):
        what = name.removeprefix(_VARIABLE)
        if _OVERRULED.fullmatch(what):
            continue
        if (said := decided.get(f"--{what.lower().replace('_', '-')}")) is not None:
            raise InputError(f"{name} is decided by {said}; unset it")
        found.append(f"{name}={os.environ[name]}")
    return found


class LlamaCppSession:
    """A running server with its slots. Requests beyond the slots wait here, so their time is their own."""

    def __init__(self, process: ServerProcess, server: LlamaServer, parallel: int) -> None:
        self.process = process
        self._server = server
        self._parallel = parallel
        self._buffers = buffer_bytes(process.log_text())

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Replies in order; RuntimeFailure when the server is gone."""
        if not self.process.alive():
            raise RuntimeFailure(f"llama.cpp is gone: {self.process.last_word()}")
        self.process.trim_log()
        return ask_all(asks, self._answer, self._parallel, self.process.gone)

    def _answer(self, ask: Ask) -> Reply:
        text, rendered = prompt_text(ask)
        return self._server.answer(replace(ask, text=text, rendered=rendered))

    def footprint(self) -> Footprint:
        """Buffers as llama.cpp's log states them; its processes' peaks (memory-mapped weights as far as touched)."""
        weights, cache, compute = self._buffers
        return Footprint(weights, cache, compute, self.process.peak_bytes())

    def next_token_logprobs(self, text: str, top: int) -> list[dict[int, float]]:
        """As in the protocol; each position also holds the token that came."""
        with _told("distributions"):
            return self._server.next_token_logprobs(text, top)

    def prompt_tokens(self, ask: Ask) -> PromptTokens:
        """As in the protocol, with texts."""
        text, rendered = prompt_text(ask)
        with _told("token ids"):
            return self._server.prompt_tokens(replace(ask, text=text, rendered=rendered))

    def tokenize(self, text: str, add_special: bool = True) -> list[int]:
        """Token ids of a raw text, as ``next_token_logprobs`` sees it; of a rendered one without ``add_special``."""
        with _told("token ids"):
            return self._server.tokenize(text, add_special)

    def tail_logprobs(self, ids: Sequence[int], tail: int, top: int) -> list[dict[int, float]]:
        """``next_token_logprobs`` of the last ``tail`` tokens only. Raises RuntimeFailure where the server does not."""
        with _told("distributions"):
            return self._server.tail_logprobs(ids, tail, top)

    def timed(self, ids: Sequence[int], tokens: int) -> Phases:
        """Read a prompt and write ``tokens`` tokens after it. Raises RuntimeFailure where the server does not."""
        with _told("times"):
            return self._server.timed(ids, tokens)


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, Refused, *UNREADABLE) as error:
        raise RuntimeFailure(f"llama.cpp gave no {what}: {str(error) or type(error).__name__}") from error


def buffer_bytes(log: str) -> tuple[int | None, int | None, int | None]:
    """(weights, cache, compute) in bytes from llama.cpp's start-up log; None for what it does not state."""
    sums: dict[str, float] = {}
    for kind, mib in _BUFFER.findall(log):
        kind = _COUNTS_AS.get(kind, kind)
        sums[kind] = sums.get(kind, 0.0) + float(mib) * _MIB
    weights, cache, compute = (round(sums[k]) if k in sums else None for k in ("model", "KV", "compute"))
    return weights, cache, compute


_HOST = "quantwise.runtimes.llamacpp_host"
_MISSING = (
    "llama.cpp is not installed; pip install 'quantwise[llamacpp]' or name a llama-server (QUANTWISE_LLAMA_SERVER)"
)
