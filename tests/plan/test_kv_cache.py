from __future__ import annotations

from pathlib import Path

import pytest

from quantwise.core.errors import InputError
from quantwise.formats.gguf.header import GgufHeader
from quantwise.models.config import ModelShape
from quantwise.plan.kv_cache import (
    CacheShape,
    cache_bytes,
    cache_shape,
    cache_shape_of_gguf,
    held_bytes,
    llamacpp_cache_bytes,
    row_bytes,
    token_bytes,
)

MIB = 1 << 20
QWEN_7B = CacheShape(28, 4, 128, 128)


@pytest.mark.parametrize(
    ("shape", "context", "cache", "mib"),
    [
        # Sizes that llama.cpp printed for these models.
        (CacheShape(48, 4, 128, 128), 4096, "f16", 384.0),  # Qwen3-30B-A3B
        (QWEN_7B, 8192, "q8_0", 238.0),  # Qwen2.5-7B
        (QWEN_7B, 8192, "q4_0", 126.0),
        (CacheShape(56, 8, 128, 128), 49152, "q8_0", 5712.0),  # Mistral-Small-22B
        (CacheShape(32, 32, 80, 80), 2048, "f16", 640.0),  # Pythia-2.8B
    ],
)
def test_sizes_that_llamacpp_printed(shape: CacheShape, context: int, cache: str, mib: float) -> None:
    assert llamacpp_cache_bytes(shape, context, 1, cache) == mib * MIB


def test_llamacpp_pads_every_slot_to_256_cells() -> None:
    one = llamacpp_cache_bytes(QWEN_7B, 256, 1)
    assert llamacpp_cache_bytes(QWEN_7B, 1, 1) == one
    assert llamacpp_cache_bytes(QWEN_7B, 257, 1) == 2 * one
    assert llamacpp_cache_bytes(QWEN_7B, 300, 4) == 4 * 2 * one
    assert llamacpp_cache_bytes(QWEN_7B, 1024, 8) == 32 * one


def test_without_padding_it_is_tokens_times_a_row() -> None:
    # vLLM's figure for Llama-3.1-8B: 131072 bytes for each token.
    assert cache_bytes(CacheShape(32, 8, 128, 128), 1, 1) == 131072
    assert cache_bytes(QWEN_7B, 300, 4) == 1200 * cache_bytes(QWEN_7B, 1, 1)


def test_keys_and_values_may_differ_in_width() -> None:
    assert cache_bytes(CacheShape(1, 2, 192, 128), 1, 1) == 2 * 2 * (192 + 128)


@pytest.mark.parametrize(
    ("cache", "keys", "values"),
    [
        # Bits for each number of a head of 128: codes, and what shares of a scale and a minimum add.
        ("f16", 16, 16),
        ("q8_0", 8.5, 8.5),
        ("q5_1", 6, 6),
        ("q5_0", 5.5, 5.5),
        ("q4_1", 5, 5),
        ("q4_0", 4.5, 4.5),
        ("iq4_nl", 4.5, 4.5),
        ("q8_0/q4_0", 8.5, 4.5),
        ("f16/q8_0", 16, 8.5),
        ("int8-token", 8 + 16 / 128, 8 + 16 / 128),
        ("int4-token", 4 + 32 / 128, 4 + 32 / 128),
        ("int8-channel", 8 + 16 / 32, 8 + 16 / 128),
        ("int4-channel", 4 + 32 / 32, 4 + 32 / 128),
    ],
)
def test_bits_of_each_number_by_cache_scheme(cache: str, keys: float, values: float) -> None:
    numbers = QWEN_7B.layers * QWEN_7B.kv_heads * 128
    assert token_bytes(QWEN_7B, cache) == (keys * numbers / 8, values * numbers / 8)


def test_by_channel_the_newest_tokens_are_in_16_bit() -> None:
    shape = CacheShape(1, 1, 64, 48)
    assert held_bytes(shape, 63, "int4-channel") == held_bytes(shape, 63, "f16")
    # 32 tokens of codes; for keys one scale and one minimum for each channel, for values for each token.
    assert held_bytes(shape, 70, "int4-channel") == (32 * 32 + 64 * 4 + 38 * 128, 32 * 24 + 32 * 4 + 38 * 96)
    assert cache_bytes(shape, 70, 3, "int4-channel") == 3 * sum(held_bytes(shape, 70, "int4-channel"))
    with pytest.raises(InputError, match=r"int4-token needs heads of even width, this model has 5"):
        held_bytes(CacheShape(1, 1, 5, 5), 10, "int4-token")


def test_rows_of_blocks() -> None:
    assert row_bytes("q8_0", 2, 64) == 136
    assert row_bytes("q4_0", 1, 64) == 36
    with pytest.raises(InputError, match=r"multiple of 32, this model has 8"):
        row_bytes("q8_0", 8, 8)
    with pytest.raises(InputError, match=r"unknown cache scheme 'q3_0'; allowed: f32, f16"):
        row_bytes("q3_0", 1, 64)


def header(**keys: object) -> GgufHeader:
    base = {"block_count": 4, "attention.head_count": 8, "attention.head_count_kv": 2, "embedding_length": 256}
    return GgufHeader(Path("m.gguf"), "llama", {f"llama.{k}": v for k, v in (base | keys).items()}, (), 0)


def test_the_cache_of_a_gguf_file() -> None:
    assert cache_shape_of_gguf(header()) == CacheShape(4, 2, 32, 32)
    wide = header(**{"attention.key_length": 64, "attention.value_length": 48})
    assert cache_shape_of_gguf(wide) == CacheShape(4, 2, 64, 48)
    assert cache_shape_of_gguf(header(**{"attention.sliding_window": 4096})) is None
    assert cache_shape_of_gguf(header(**{"attention.kv_lora_rank": 512})) is None
    assert cache_shape_of_gguf(header(block_count=None)) is None
    # Without the key every head is cached; a list of heads per layer is not in the header's keys at all.
    plain = header()
    keys = {k: v for k, v in plain.keys.items() if not k.endswith("head_count_kv")}
    assert cache_shape_of_gguf(GgufHeader(plain.path, "llama", keys, (), 0)) == CacheShape(4, 8, 32, 32)


def test_the_cache_of_a_folder() -> None:
    shape = ModelShape("LlamaForCausalLM", 4, 256, 8, 2, 64, 512, 1000, True, 1024)
    assert cache_shape(shape) == CacheShape(4, 2, 64, 64)
