"""Training memory: counts to the digit, and the terms against what the literature says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.plan.training import nf4_bytes, training_memory
from quantwise.plan.training_job import TrainingJob, low_rank_parameters, parts_of, trained_parameters

ATTENTION = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "v_proj": (1024, 4096), "o_proj": (4096, 4096)}
FEED_FORWARD = {"gate_proj": (14336, 4096), "up_proj": (14336, 4096), "down_proj": (4096, 14336)}


def llama_8b(layers: int = 32) -> Decoder:
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (128256, 4096),
        "lm_head.weight": (128256, 4096),
        "model.norm.weight": (4096,),
    }
    for i in range(layers):
        block = f"model.layers.{i}"
        tensors |= {f"{block}.self_attn.{name}.weight": shape for name, shape in ATTENTION.items()}
        tensors |= {f"{block}.mlp.{name}.weight": shape for name, shape in FEED_FORWARD.items()}
        tensors |= {f"{block}.{name}.weight": (4096,) for name in ("input_layernorm", "post_attention_layernorm")}
    layer = Layer(Attention(32, 8, 128, 128), 14336)
    return Decoder("llama-3.1-8b", "LlamaForCausalLM", 4096, 128256, 131072, False, (layer,) * layers, tensors, {})


def test_a_square_matrix_of_4096_at_rank_16() -> None:
    assert low_rank_parameters(4096, 4096, 16) == 131_072
    assert f"{131_072 / 4096**2:.2%}" == "0.78%"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"method": "full"}, 8_030_261_248),
        # 32 layers: q takes 16 * 8192, v 16 * 5120 numbers.
        ({"method": "lora"}, 32 * 16 * (8192 + 5120)),
        ({"method": "qlora", "rank": 64}, 32 * 64 * (8192 + 5120)),
        ({"method": "dora"}, 32 * (16 * (8192 + 5120) + 4096 + 1024)),
        # What peft prints for Llama 3.1 8B at rank 16 on all linear layers.
        ({"method": "lora", "targets": ("all",)}, 41_943_040),
        ({"method": "ia3"}, 32 * (1024 + 1024 + 14336)),
        ({"method": "prefix", "virtual": 30}, 30 * 32 * 2048),
        ({"method": "prompt", "virtual": 20}, 20 * 4096),
        ({"method": "adapter", "rank": 64}, 32 * 2 * (2 * 4096 * 64 + 64 + 4096)),
    ],
)
def test_trained_numbers_of_each_method(options: dict[str, Any], expected: int) -> None:
    assert trained_parameters(parts_of(llama_8b()), TrainingJob(sequence=128, **options)) == expected


def test_names_of_gguf_are_the_same_matrices() -> None:
    of_gguf = {
        "blk.0.attn_q.weight": (4096, 4096),
        "blk.0.attn_v.weight": (1024, 4096),
        "blk.0.attn_norm.weight": (4096,),
    }
    decoder = replace(llama_8b(1), tensors=of_gguf)
    assert trained_parameters(parts_of(decoder), TrainingJob("lora", 128)) == 16 * (8192 + 5120)


def test_bytes_for_each_trained_number_are_those_of_the_literature() -> None:
    decoder = llama_8b()
    count = 8_030_261_248
    mixed = training_memory(decoder, TrainingJob("full", 128, precision="mixed"))
    states = mixed.weights + mixed.gradients + mixed.optimizer
    # 18 bytes: master weights, gradients, two moments in float32, a 16-bit copy (of matrices; embeddings have none).
    assert states == 16 * count
    assert 17.8 * count < states + mixed.copies < 18 * count
    full = training_memory(decoder, TrainingJob("full", 128, precision="fp32"))
    assert full.weights + full.gradients + full.optimizer == 16 * count
    eight = training_memory(decoder, TrainingJob("full", 128, precision="fp32", optimizer="adamw-8bit"))
    assert eight.optimizer == pytest.approx(2 * (1 + 4 / 256) * count, rel=1e-3)


def test_nf4_takes_what_qlora_says() -> None:
    count = 4096 * 14336
    assert 8 * nf4_bytes(count, True) / count == pytest.approx(4.127, abs=0.001)
    assert 8 * nf4_bytes(count, False) / count == pytest.approx(4.5, abs=0.001)
    memory = training_memory(llama_8b(), TrainingJob("qlora", 512))
    # 6.98 billion weights of linear layers at 4.127 bits, 1.05 billion of embeddings and head at 16.
    assert memory.weights / 1e9 == pytest.approx(6.979 * 4.127 / 8 + 1.0509 * 2, rel=0.01)
    assert memory.weights > 1.2 * 8e9 * 0.516


def test_activations_of_the_paper_bound_ours() -> None:
    # Korthikanti et al.: 34 s b h bytes a layer for an ungated block in 16 bit, with dropout masks (3 s b h of them).
    gpt: dict[str, tuple[int, ...]] = {
        "h.0.attn.q_proj.weight": (1024, 1024),
        "h.0.attn.k_proj.weight": (1024, 1024),
        "h.0.attn.v_proj.weight": (1024, 1024),
        "h.0.attn.o_proj.weight": (1024, 1024),
        "h.0.mlp.fc1.weight": (4096, 1024),
        "h.0.mlp.fc2.weight": (1024, 4096),
        "h.0.ln_1.weight": (1024,),
        "h.0.ln_1.bias": (1024,),
        "h.0.ln_2.weight": (1024,),
        "h.0.ln_2.bias": (1024,),
    }
    decoder = Decoder("gpt", "GPT", 1024, 1, 2048, True, (Layer(Attention(16, 16, 64, 64), 4096),), gpt, {})
    memory = training_memory(decoder, TrainingJob("full", 2048))
    block = memory.activations - 2048 * 1024 * (4 + 2 + 2)
    # 31 without masks; ours keeps the input of each norm, of attention and of both linear layers, q, k, v, its result
    # and the feed-forward layer twice: 2 * (2 + 2 + 4 + 8) = 32 s b h, and a number for each head.
    assert block == 2048 * (32 * 1024 + 4 * 16)
    scores = training_memory(decoder, TrainingJob("full", 2048, attention="math")).activations - memory.activations
    # 5 a s^2 b less the dropout mask (1) and what it drops (2), and softmax in float32 (2 more).
    assert scores == 2048 * 16 * (6 * 2048 - 4)


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block() -> None:
    decoder, job = llama_8b(), TrainingJob("lora", 2048, checkpointing=True)
    kept, less = training_memory(decoder, replace(job, checkpointing=False)), training_memory(decoder, job)
    stream = 2048 * 4096
    assert less.activations == 32 * 2 * stream + 4 * stream
    assert less.recomputed == (kept.activations - 4 * stream) // 32
    assert less.peak_bytes < kept.peak_bytes


def test_the_peak_is_the_largest_moment_and_pages_may_be_elsewhere() -> None:
    decoder = llama_8b(2)
    short, long = training_memory(decoder, TrainingJob("full", 1)), training_memory(decoder, TrainingJob("full", 65536))
    assert max(short.moments, key=lambda name: short.moments[name]) == "update"
    assert max(long.moments, key=lambda name: long.moments[name]) == "loss"
    paged = training_memory(decoder, TrainingJob("full", 1, optimizer="paged-adamw-8bit"))
    assert paged.paged == paged.optimizer > 0
    assert paged.total_bytes[0] == paged.peak_bytes - paged.paged
    more = training_memory(decoder, TrainingJob("full", 65536, accumulates=True))
    assert more.peak_bytes == long.peak_bytes + long.gradients


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"method": "magic"}, "unknown training method 'magic'; allowed: full, lora"),
        ({"optimizer": "sgd"}, "unknown training optimizer"),
        ({"precision": "int8"}, "unknown training precision"),
        ({"sequence": 0}, "at least 1"),
        ({"method": "prefix", "checkpointing": True}, "prefix tuning keeps a cache"),
    ],
)
def test_jobs_that_cannot_be_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        TrainingJob(**{"method": "lora", "sequence": 8, **options})


def test_models_that_nobody_counted_are_refused() -> None:
    with pytest.raises(InputError, match="has no matrix w_pack; it has down_proj"):
        training_memory(llama_8b(1), TrainingJob("lora", 8, targets=("w_pack",)))
    recurrent = replace(llama_8b(1), layers=(Layer(None, 14336, state=4096),))
    with pytest.raises(InputError, match="recurrent layers of llama"):
        training_memory(recurrent, TrainingJob("full", 8))
