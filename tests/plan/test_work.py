from __future__ import annotations

import math
from dataclasses import replace

import pytest
from speed_decoders import in_bits, llama, mixture

from quantwise.models.decoder import Attention, Layer
from quantwise.plan.work import attention_operations, bytes_of, cache_numbers, head_tokens, scaled, work_of


def test_llama_8b_has_its_published_count_and_all_but_the_embedding_is_multiplied() -> None:
    work = work_of(llama())
    assert work.total == 8_030_261_248
    assert work.looked_up == 128256 * 4096
    assert work.active == work.dense == work.total - work.looked_up


def test_a_tied_embedding_is_the_output_matrix_and_is_multiplied() -> None:
    work = work_of(llama(tied=True))
    assert work.looked_up == 0
    assert work.dense == 8_030_261_248 - 128256 * 4096


def test_a_token_passes_through_two_experts_of_eight() -> None:
    decoder = mixture(8, 2)
    work = work_of(decoder)
    expert = 3 * 128 * 64
    assert work.expert == 2 * 8 * expert
    assert work.active == work.dense + 2 * 2 * expert
    assert any("gate.weight" in name for name in decoder.tensors)  # the router is dense
    assert work.total == sum(math.prod(shape) for shape in decoder.tensors.values())


def test_touched_experts_against_counting_all_choices() -> None:
    work = work_of(mixture(4, 1))
    for batch in (1, 2, 3):
        # All ways in which `batch` tokens choose one of four experts each.
        ways = 4**batch
        seen = sum(len({way // 4**t % 4 for t in range(batch)}) for way in range(ways)) / ways / 4
        assert work.touched(batch) == pytest.approx(seen)
    assert work_of(llama()).touched(7) == 0


def test_bytes_follow_the_tensors() -> None:
    decoder = llama(2, 256, 4, 2, 512, 1000)
    stored = in_bits(decoder, 16)
    assert bytes_of(decoder, stored).total == sum(stored.values())
    assert scaled(work_of(decoder), 12_345).total == 12_345


def test_gguf_names_are_read_too() -> None:
    decoder = llama(2, 256, 4, 2, 512, 1000)
    tensors = {
        "token_embd.weight": (1000, 256),
        "output.weight": (1000, 256),
        "blk.0.ffn_gate_exps.weight": (8, 512, 256),
        "blk.0.ffn_gate_shexp.weight": (512, 256),
    }
    layer = Layer(decoder.layers[0].attention, 512, experts=8, experts_used=2)
    work = work_of(replace(decoder, layers=(layer, layer), tensors=tensors))
    assert (work.looked_up, work.expert, work.dense) == (256000, 8 * 512 * 256, 256000 + 512 * 256)
    assert work.used == 0.25


def test_attention_over_a_context_and_in_a_window() -> None:
    decoder = llama(2, 256, 4, 2, 512, 1000)
    assert attention_operations(decoder, 100) == 2 * 2 * 4 * 128 * 100
    assert cache_numbers(decoder, 100) == 2 * 2 * 128 * 100
    assert head_tokens(decoder, 100) == 2 * 4 * 100
    window = Layer(Attention(4, 2, 64, 64, window=30), 512)
    mixed = replace(decoder, layers=(decoder.layers[0], window))
    assert cache_numbers(mixed, 100) == 2 * 128 * (100 + 30)
    latent = Layer(Attention(16, 16, 192, 128, latent=576), 512)
    deep = replace(decoder, layers=(latent,))
    assert cache_numbers(deep, 10) == 5760
    assert attention_operations(deep, 10) == 2 * 16 * 1152 * 10
    assert attention_operations(deep, 10, absorbed=False) == 2 * 16 * 320 * 10
    recurrent = replace(decoder, layers=(Layer(None, 512, state=999),))
    assert cache_numbers(recurrent, 10) == cache_numbers(recurrent, 10_000) == 999
