"""Blocks of vLLM's cache as planned, against vLLM's own: of models that it starts on a CPU, and of drawn layers."""

from __future__ import annotations

import json
import os
import random
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from quantwise.models import reference
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.models.from_config import decoder_of
from quantwise.plan.constants import GIB, VLLM_0_32, VLLM_0_32_CPU
from quantwise.plan.start_up_log import VllmLog, read_vllm_log
from quantwise.plan.vllm import VllmSettings, vllm_pages

PYTHON = os.environ.get("QUANTWISE_VLLM_PYTHON", "")
# All models are started by one process, before the first test.
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not PYTHON, reason="QUANTWISE_VLLM_PYTHON names no Python with vLLM; run `make test-vllm`"),
]

_LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 256,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000,
    "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "tie_word_embeddings": True,
}  # fmt: skip
_GEMMA = {"query_pre_attn_scalar": 64, "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 256}
_GEMMA_3 = {
    **_GEMMA, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "num_hidden_layers": 8,
    "sliding_window_pattern": 6,
}  # fmt: skip
_GEMMA_4 = {
    **_GEMMA, "architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text", "num_hidden_layers": 12,
    "global_head_dim": 128, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 1000,
    "use_double_wide_mlp": False, "num_kv_shared_layers": 5,
}  # fmt: skip


@dataclass(frozen=True)
class Start:
    """A server: what its config differs in from a small Llama's, its settings, and GiB or bytes for its cache."""

    config: dict[str, Any]
    context: int
    space: int | None = None
    given: int | None = None
    cache: str = "bf16"
    block: int | None = None
    batched_tokens: int | None = None


STARTS = {
    # The model that ships with the package, and what is left of a share of the machine's memory; the first, since that
    # share is the whole process's.
    "the reference model": Start({}, 512),
    "grouped queries": Start({}, 2048, space=2),
    "all heads": Start({"num_key_value_heads": 4, "head_dim": 80}, 777, given=123456789),
    "fp8 cache": Start({}, 2048, space=1, cache="fp8"),
    "a window everywhere": Start(
        {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 512}, 8000, space=1
    ),
    "gemma 3": Start(_GEMMA_3, 8192, space=1),
    "gemma 3, small blocks": Start(_GEMMA_3, 4100, given=200_000_000, block=32, batched_tokens=777),
    "gemma 2, nearly as many": Start(
        {**_GEMMA, "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "num_hidden_layers": 7,
         "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
        5000, space=1, batched_tokens=1000,
    ),
    "gemma 4, pages twice as large": Start(_GEMMA_4, 4000, given=300000001),
    "gemma 4, padded pages": Start(
        {**_GEMMA_4, "num_hidden_layers": 6, "num_kv_shared_layers": 0, "num_attention_heads": 6,
         "num_key_value_heads": 3, "num_global_key_value_heads": 1, "global_head_dim": 256, "attention_k_eq_v": True},
        4000, given=300000001,
    ),
    "gpt-oss": Start(
        {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "num_hidden_layers": 4,
         "sliding_window": 128, "num_local_experts": 4, "num_experts_per_tok": 2, "rope_theta": 150000.0,
         "layer_types": ["sliding_attention", "full_attention"] * 2},
        3000, given=200_000_000, batched_tokens=512,
    ),
    "llama 4, chunks": Start(
        {"architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "num_hidden_layers": 4,
         "attention_chunk_size": 512, "num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size_mlp": 256,
         "interleave_moe_layer_step": 2, "moe_layers": [1, 3], "no_rope_layers": [1, 1, 1, 0],
         "layer_types": ["chunked_attention"] * 3 + ["full_attention"]},
        3000, given=200_000_000,
    ),
    "latent attention": Start(
        {"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "hidden_size": 256,
         "q_lora_rank": None, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
         "num_key_value_heads": 4, "first_k_dense_replace": 3, "n_routed_experts": 4, "num_experts_per_tok": 2,
         "n_shared_experts": 1, "moe_intermediate_size": 64, "n_group": 1, "topk_group": 1, "topk_method": "greedy"},
        3000, given=200_000_000,
    ),
}  # fmt: skip
CASES = 400


@dataclass(frozen=True)
class Asked:
    """What was asked of vLLM and what it said: by name of a start, and of each drawn case."""

    decoders: dict[str, Decoder]
    found: dict[str, dict[str, Any]]
    logs: dict[str, VllmLog]
    cases: list[dict[str, Any]]
    counted: list[dict[str, Any]]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    folder = tmp_path_factory.mktemp("blocks")
    decoders, starts = {}, []
    for number, (name, start) in enumerate(STARTS.items()):
        place, arguments = folder / str(number), {"load_format": "dummy", "skip_tokenizer_init": True}
        if name == "the reference model":
            place, arguments = reference.path(), {"gpu_memory_utilization": 3 * GIB / machine_bytes()}
        else:
            place.mkdir()
            (place / "config.json").write_text(json.dumps({**_LLAMA, **start.config}))
        decoders[name] = decoder_of(json.loads((place / "config.json").read_text()), name)
        starts.append({"name": name, "folder": str(place), "space": start.space, "arguments": arguments | told(start)})
    cases = drawn(random.Random(3))
    written = folder / "asked.json"
    written.write_text(json.dumps({"starts": starts, "cases": cases}))
    command = [PYTHON, str(Path(__file__).with_name("page_counts.py")), str(written)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found, logs, counted, since = {}, {}, [], []
    for line in ran.stdout.splitlines():
        since.append(line)
        if line.startswith("FOUND "):
            said = json.loads(line.removeprefix("FOUND "))
            found[said["name"]] = said
            if "error" not in said:
                logs[said["name"]] = read_vllm_log("\n".join(since))
            since = []
        if line.startswith("CASE "):
            counted.append(json.loads(line.removeprefix("CASE ")))
    assert len(counted) == len(cases), ran.stderr[-2000:]
    return Asked(decoders, found, logs, cases, counted)


def machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def told(start: Start) -> dict[str, Any]:
    """Arguments of LLM()."""
    given = {
        "max_model_len": start.context,
        "kv_cache_memory_bytes": start.given,
        "block_size": start.block,
        "max_num_batched_tokens": start.batched_tokens,
        "kv_cache_dtype": None if start.cache == "bf16" else start.cache,
    }
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize("name", STARTS)
def test_blocks_are_those_of_vllm(name: str, asked: Asked) -> None:
    start, found = STARTS[name], asked.found[name]
    assert "error" not in found, found["error"]
    log = asked.logs[name]
    # Latent attention without AMX has smaller blocks.
    block = found["block"] if name == "latent attention" else start.block
    assert found["block"] == (block or VLLM_0_32_CPU.block)
    settings = VllmSettings(start.context, start.cache, block=block, batched_tokens=log.batched_tokens)
    pages = vllm_pages(asked.decoders[name], settings, VLLM_0_32_CPU)
    if start.space or start.given:
        available = start.space * GIB if start.space else start.given or 0
        assert log.available == (available if start.given else pytest.approx(available, abs=GIB // 200))
        assert pages.blocks(available) == found["blocks"]
    else:
        # What is left of a share of the machine is logged to a hundredth of a GiB.
        low, high = (pages.blocks((log.available or 0) + sign * GIB // 200) for sign in (-1, 1))
        assert low <= found["blocks"] <= high
        available = found["blocks"] * pages.bytes_of_block
        assert log.consumed
    print(
        f"\n{name}: {found['blocks']} blocks of {found['block']}, {log.tokens} tokens, {log.requests} requests of "
        f"{log.context}; planned {pages.blocks(available)}, {pages.tokens(available)}, {pages.requests(available):.2f}"
    )
    assert pages.tokens(available) == log.tokens == found["tokens"]
    assert pages.requests(available) == found["requests"]
    assert f"{pages.requests(available):.2f}" == f"{log.requests:.2f}"
    assert (log.context, log.batched_tokens) == (start.context, found["batched_tokens"])
    assert log.version


def drawn(dice: random.Random) -> list[dict[str, Any]]:
    """Layers and settings, many of them such as no model has."""
    cases = []
    for _ in range(CASES):
        chunked, latent, bytes_each = dice.random() < 0.15, dice.random() < 0.15, dice.choice((1, 2))
        kinds = [
            {
                "kv_heads": dice.choice((1, 2, 3, 4, 8)),
                "key_dim": (dim := dice.choice((64, 80, 128, 256))),
                "value_dim": dice.choice((dim, dim, 64)),
                "window": None if latent else dice.choice((None, None, 128, 500, 1024, 4096)),
                "latent": dice.choice((288, 576)) if latent else 0,
                "chunked": chunked,
                "bytes": bytes_each,
            }
            for _ in range(dice.choice((1, 2, 2, 2, 3)))
        ]
        layers = [dict(kind) for kind in kinds for _ in range(dice.randint(1, 12))]
        dice.shuffle(layers)
        cases.append(
            {
                "layers": layers,
                "block": dice.choice((16, 32, 128)),
                "context": dice.randint(1, 40000),
                "batched_tokens": dice.choice((512, 2048, 8192)),
                "available": int(2 ** dice.uniform(25, 36)),
                "on_gpu": dice.random() < 0.5,
            }
        )
    return cases


def test_blocks_of_drawn_layers_are_those_of_vllm(asked: Asked) -> None:
    refused = 0
    for case, found in zip(asked.cases, asked.counted, strict=True):
        settings = VllmSettings(
            case["context"], "fp8" if case["layers"][0]["bytes"] == 1 else "bf16", block=case["block"],
            batched_tokens=case["batched_tokens"],
        )  # fmt: skip
        version = VLLM_0_32 if case["on_gpu"] else VLLM_0_32_CPU
        pages, available = vllm_pages(of_layers(case["layers"]), settings, version), case["available"]
        if "refused" in found:
            # One block is kept back, and a request of full context must have room in the others.
            assert pages.blocks(available) <= pages.by_request, found["refused"]
            refused += 1
            continue
        ours = {"blocks": pages.blocks(available), "groups": pages.groups, "tokens": pages.tokens(available)}
        ours["requests"] = pages.requests(available)
        assert ours == {name: found[name] for name in ours}, case
        assert pages.blocks(available) > pages.by_request
    print(f"\n{CASES} drawn: {CASES - refused} equal in blocks, groups, tokens and requests, {refused} without room")
    assert CASES // 20 < refused < CASES // 2


def of_layers(layers: list[dict[str, Any]]) -> Decoder:
    kept = tuple(
        Layer(Attention(8, s["kv_heads"], s["key_dim"], s["value_dim"], s["window"], s["latent"]), 1) for s in layers
    )
    chunked = any(layer["chunked"] for layer in layers)
    found = Decoder("drawn", "LlamaForCausalLM", 1024, 1000, 1 << 20, True, kept, {}, {})
    return replace(found, architecture="Llama4ForCausalLM") if chunked else found
