from __future__ import annotations

from dataclasses import replace

import pytest
from speed_decoders import llama, mixture, served_of

from quantwise.plan.offload_speed import away_experts, away_layers, offload_speed
from quantwise.plan.speed import SHARES, speed
from quantwise.plan.work import cache_numbers
from quantwise.scenarios.sites import sites

SEVENTY = llama(80, 8192, 64, 8, 28672, 128256)
CARD, HOST = sites()["rtx-4090"], sites()["x86-avx512"]


def test_nothing_away_is_the_plain_roofline() -> None:
    served = served_of(llama(), 5 * 10**9, "int8", 1024)
    plain, none = speed(CARD, served), offload_speed(CARD, HOST, served, away_layers(served, 0))
    assert none.decode_total == pytest.approx(plain.decode_total)
    assert none.prefill == pytest.approx(plain.prefill)
    assert none.flips_at == plain.flips_at


def test_half_the_layers_by_hand() -> None:
    served = served_of(SEVENTY, 40 * 10**9, "int8", 4096)
    found = offload_speed(CARD, HOST, served, away_layers(served, 40))
    share = 40 * 10**9 / served.work.total
    layers = share * (served.work.dense - 128256 * 8192) / 2
    cache = cache_numbers(SEVENTY, 4096)  # half of its numbers, of two bytes each
    host = (layers + cache) / HOST.bandwidth / SHARES["cpu bandwidth"].high  # type: ignore[operator]
    device = (layers + share * 128256 * 8192 + cache) / CARD.bandwidth / SHARES["bandwidth"].high  # type: ignore[operator]
    assert found.decode_seconds
    assert found.decode_seconds[0] == pytest.approx(host + device + 4 * 8192 / 31.5e9, rel=1e-6)
    assert found.bound == "bytes on the host"


def test_each_layer_on_the_device_is_faster() -> None:
    served = served_of(SEVENTY, 40 * 10**9, "int8", 1024)
    speeds = [offload_speed(CARD, HOST, served, away_layers(served, n)).decode_total for n in (80, 60, 40, 20, 0)]
    fastest = [interval[1] for interval in speeds if interval]
    assert fastest == sorted(fastest)
    assert len(fastest) == 5


def test_experts_away_read_only_the_chosen_ones() -> None:
    served = served_of(mixture(8, 2), 10**9, "int8", 16)
    found = offload_speed(CARD, HOST, served, away_experts(served))
    all_away = offload_speed(CARD, HOST, served, away_layers(served, 2))
    assert found.decode_seconds
    assert all_away.decode_seconds
    assert found.decode_seconds[0] < all_away.decode_seconds[0]
    read = served.stored.expert / 4 / HOST.bandwidth / SHARES["cpu bandwidth"].high  # type: ignore[operator]
    assert found.decode_seconds[0] > read


def test_a_prompt_takes_the_shorter_way() -> None:
    served = served_of(SEVENTY, 40 * 10**9, "int8", 1024)
    away = away_layers(served, 40)
    fast = offload_speed(CARD, HOST, served, away, prompt=2048)
    slow = offload_speed(replace(CARD, bus=1e9), HOST, served, away, prompt=2048)
    assert fast.prefill
    assert slow.prefill
    assert fast.prefill[1] > slow.prefill[1]
    # Over no bus at all nothing is known, and that is said.
    none = offload_speed(replace(CARD, bus=None), HOST, served, away)
    assert none.decode_total is None
    assert none.prefill is None
    assert "bus of rtx-4090 is unknown" in none.notes[-1]


def test_a_host_without_known_rates_leaves_the_prompt_to_the_bus() -> None:
    served = served_of(SEVENTY, 40 * 10**9, "int8", 1024)
    found = offload_speed(CARD, sites()["laptop"], served, away_layers(served, 40))
    assert found.prefill is not None
    assert any(note.startswith("on the host: ") for note in found.notes)


def test_shared_memory_has_no_elsewhere() -> None:
    served = served_of(llama(), 5 * 10**9, "fp16", 1024)
    mac = sites()["m1-max"]
    found = offload_speed(mac, HOST, served, away_layers(served, 16))
    assert found.decode_total == speed(mac, served).decode_total
    assert "shared" in found.notes[-1]
