"""Amounts of memory as people write them."""

from __future__ import annotations

import pytest

from quantwise.plan.fit import room_for, size
from quantwise.scenarios.memory_size import memory_size


@pytest.mark.parametrize(
    ("text", "amount"),
    [("12GB", 12 * 10**9), ("12GiB", 12 << 30), (" 1.5 kib", 1536), ("77B", 77), ("77", 77), ("2t", 2 * 10**12)],
)
def test_what_is_an_amount(text: str, amount: int) -> None:
    assert memory_size(text) == amount


@pytest.mark.parametrize("text", ["", "GB", "0GB", "-1GB", "12GBs", "laptop", "1e9", "x86-avx512"])
def test_what_is_none(text: str) -> None:
    assert memory_size(text) is None


@pytest.mark.parametrize("amount", [1, 999, 1023.5, 1024, 10_000, 7 * 10**6, 1023 << 20, 24 << 30, 10**15 + 1])
def test_room_is_enough_and_what_is_told(amount: float) -> None:
    room = room_for(amount)
    assert amount <= room <= 1.01 * amount + 1
    told = memory_size(size(room).replace(" ", ""))
    assert told is not None
    assert room - told <= max(1, room // 10**9) or amount >= 1000 << 20
