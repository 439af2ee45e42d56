from __future__ import annotations

import pytest

from quantwise.core.errors import InputError
from quantwise.plan.kv_cache import CacheShape, held_bytes, row_bytes, token_bytes

QWEN_7B = CacheShape(28, 4, 128, 128)


def test_keys_and_values_may_differ_in_width() -> None:
    assert held_bytes(CacheShape(1, 2, 192, 128), 1) == (2 * 2 * 192, 2 * 2 * 128)


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
    with pytest.raises(InputError, match=r"int4-token needs heads of even width, this model has 5"):
        held_bytes(CacheShape(1, 1, 5, 5), 10, "int4-token")


def test_rows_of_blocks() -> None:
    assert row_bytes("q8_0", 2, 64) == 136
    assert row_bytes("q4_0", 1, 64) == 36
    with pytest.raises(InputError, match=r"multiple of 32, this model has 8"):
        row_bytes("q8_0", 8, 8)
    with pytest.raises(InputError, match=r"unknown cache scheme 'q3_0'; allowed: f32, f16"):
        row_bytes("q3_0", 1, 64)
