from __future__ import annotations

from dataclasses import replace

import pytest
from speed_decoders import in_bits, llama, mixture, served_of

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Layer
from quantwise.plan.parallel import parallel_speed, split_devices
from quantwise.plan.speed import speed
from quantwise.scenarios.sites import sites

SEVENTY = llama(80, 8192, 64, 8, 28672, 128256)


def test_one_device_holds_everything() -> None:
    stored = in_bits(SEVENTY, 16)
    whole = split_devices(SEVENTY, stored)
    assert whole.weights_bytes == (sum(stored.values()),)
    assert (whole.link_bytes, whole.messages, whole.copies, whole.kv_heads) == (0, 0, 1, 8)
    assert whole.cache_numbers == 80 * 2 * 8 * 128


def test_eight_devices_by_hand() -> None:
    stored = in_bits(SEVENTY, 16)
    found = split_devices(SEVENTY, stored, tensor=8)
    norms = (80 * 2 + 1) * 8192 * 2
    assert found.weights_bytes == ((sum(stored.values()) - norms) // 8 + norms,)
    assert (found.kv_heads, found.copies) == (1, 1)
    assert found.cache_numbers == 80 * 2 * 128
    # Two sums a layer; a ring of eight sends 2 * 7 / 8 of each hidden state in 16 bit.
    assert found.link_bytes == 80 * 2 * 8192 * 2 * 2 * 7 // 8
    assert found.messages == 160


def test_more_devices_than_key_value_heads_keep_copies() -> None:
    found = split_devices(SEVENTY, in_bits(SEVENTY, 16), tensor=16)
    assert (found.kv_heads, found.copies) == (1, 2)
    assert found.cache_numbers == 80 * 2 * 128
    eight = split_devices(SEVENTY, in_bits(SEVENTY, 16), tensor=8)
    keys_and_values = 80 * 2 * 8 * 128 * 8192 * 2
    # Everything but keys, values and norms halves again.
    norms = (80 * 2 + 1) * 8192 * 2
    assert (
        found.weights_bytes[0] - norms - keys_and_values // 8
        == (eight.weights_bytes[0] - norms - keys_and_values // 8) / 2
    )


def test_a_latent_cache_is_kept_whole_by_every_device() -> None:
    layer = Layer(Attention(16, 16, 192, 128, latent=576), 512)
    deep = replace(llama(2, 256, 16, 16, 512, 1000), layers=(layer, layer))
    assert split_devices(deep, in_bits(deep, 16), tensor=4).cache_numbers == 2 * 576


def test_stages_together_hold_the_model_and_a_tied_embedding_twice() -> None:
    stored = in_bits(SEVENTY, 16)
    found = split_devices(SEVENTY, stored, pipeline=3)
    assert found.layers == (27, 27, 26)
    assert sum(found.weights_bytes) == sum(stored.values())
    assert found.link_bytes == 2 * 8192
    assert found.messages == 2
    tied = llama(4, 256, 4, 2, 512, 1000, tied=True)
    small = in_bits(tied, 16)
    assert sum(split_devices(tied, small, pipeline=2).weights_bytes) == sum(small.values()) + 1000 * 256 * 2


@pytest.mark.parametrize(
    ("tensor", "pipeline", "message"),
    [
        (3, 1, "64 heads do not split over 3 devices"),
        (1, 81, "80 layers do not split into 81 stages"),
        (0, 1, "at least 1"),
        (1, -1, "at least 1"),
    ],
)
def test_what_does_not_split(tensor: int, pipeline: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_devices(SEVENTY, in_bits(SEVENTY, 16), tensor, pipeline)


def test_uneven_key_value_heads_are_refused() -> None:
    odd = llama(2, 768, 12, 3, 512, 1000)
    with pytest.raises(InputError, match="3 key-value heads neither split over 4"):
        split_devices(odd, in_bits(odd, 16), tensor=4)


def test_experts_split_like_the_rest_but_the_router_does_not() -> None:
    decoder = mixture()
    stored = in_bits(decoder, 16)
    whole = sum(size for name, size in stored.items() if "norm" in name or ".gate.weight" in name)
    found = split_devices(decoder, stored, tensor=2)
    assert found.weights_bytes[0] == (sum(stored.values()) - whole) // 2 + whole


def test_tensor_parallel_is_faster_and_pipeline_is_not() -> None:
    stored = in_bits(SEVENTY, 16)
    served = served_of(SEVENTY, sum(stored.values()), "bf16", 1024)
    card = sites()["h100"]
    one = speed(card, served)
    eight = parallel_speed(card, served, stored, split_devices(SEVENTY, stored, tensor=8))
    assert one.decode_total
    assert eight.decode_total
    assert 3 * one.decode_total[1] < eight.decode_total[1] < 8 * one.decode_total[1]
    stages = parallel_speed(card, served, stored, split_devices(SEVENTY, stored, pipeline=8))
    assert stages.decode_per_request
    assert stages.decode_per_request[1] == pytest.approx(one.decode_per_request[1], rel=0.1)  # type: ignore[index]
    assert any("no faster" in note for note in stages.notes)
    busy = parallel_speed(card, served, stored, split_devices(SEVENTY, stored, pipeline=8), batch=8)
    assert busy.decode_total
    assert busy.decode_total[1] > 6 * stages.decode_total[1]  # type: ignore[index]


def test_a_slow_link_costs_and_an_unknown_one_is_unknown() -> None:
    stored = in_bits(SEVENTY, 16)
    served = served_of(SEVENTY, sum(stored.values()), "bf16", 1024)
    card = sites()["h100"]
    plan = split_devices(SEVENTY, stored, tensor=8)
    fast = parallel_speed(card, served, stored, plan, batch=64)
    slow = parallel_speed(replace(card, link=1e9), served, stored, plan, batch=64)
    assert fast.decode_total
    assert slow.decode_total
    assert slow.decode_total[1] < fast.decode_total[1] / 3
    none = parallel_speed(replace(card, link=None, bus=None), served, stored, plan)
    assert none.decode_total is None
    assert none.prefill is None
    assert "linked is unknown" in none.notes[-1]


def test_no_split_is_the_plain_roofline() -> None:
    stored = in_bits(SEVENTY, 16)
    served = served_of(SEVENTY, sum(stored.values()), "bf16", 1024)
    card = sites()["h100"]
    plain, split_once = (
        speed(card, served, 4),
        parallel_speed(card, served, stored, split_devices(SEVENTY, stored), batch=4),
    )
    assert split_once.decode_total == pytest.approx(plain.decode_total)
    assert split_once.prefill == pytest.approx(plain.prefill)
