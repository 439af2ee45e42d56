from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speed_decoders import llama, mixture, served_of

from quantwise.core.scheme import parse_scheme
from quantwise.plan.speed import (
    SHARES,
    computed,
    decode_bytes,
    decode_operations,
    fewer_bits,
    flips_at,
    multiplied_in,
    prefill_operations,
    speed,
)
from quantwise.plan.work import cache_numbers
from quantwise.scenarios.site import Site
from quantwise.scenarios.sites import sites

LLAMA_2_7B = llama(32, 4096, 32, 32, 11008, 32000)


def inside(value: float, interval: tuple[float, float] | None) -> bool:
    return interval is not None and interval[0] <= value <= interval[1]


def test_an_rtx_4090_as_llama_cpp_was_measured_on_it() -> None:
    # github.com/ggml-org/llama.cpp/pull/4766: 12.55 GiB, pp512 11048, tg128 61.03; q8_0: 6.67 GiB, 7664, 98.13.
    card = sites()["rtx-4090"]
    half = speed(card, served_of(LLAMA_2_7B, int(12.55 * 2**30), "fp16", 64))
    assert inside(61.03, half.decode_total)
    assert inside(11048, half.prefill)
    eight = speed(card, served_of(LLAMA_2_7B, int(6.67 * 2**30), "int8", 64))
    assert inside(98.13, eight.decode_total)
    assert inside(7664, eight.prefill)
    assert (half.bound, half.prefill_bound) == ("bytes", "operations")


def test_the_step_by_hand() -> None:
    site = Site("s", bandwidth=100e9, rates={"bf16": 10e12}, kind="gpu")
    served = served_of(LLAMA_2_7B, 13_476_831_232, "bf16", 1000)
    read = 2 * (6_738_415_616 - 32000 * 4096) + 2 * cache_numbers(LLAMA_2_7B, 1000)
    assert decode_bytes(served, 1) == read
    seconds = speed(site, served).decode_seconds
    assert seconds == pytest.approx((read / 100e9 / 0.85, read / 100e9 / 0.55))
    # 2 operations a weight and token, but the output matrix only for the last one; attention sees half on average.
    hidden = 6_738_415_616 - 2 * 32000 * 4096
    assert prefill_operations(served, 512) == 512 * (2 * hidden + 32 * 2 * 32 * 256 * 256) + 2 * 32000 * 4096


def test_the_flip_against_trying_every_batch() -> None:
    flips = []
    for decoder in (LLAMA_2_7B, llama(), mixture()):
        for site in (sites()["a100-80gb"], sites()["rtx-3090"], sites()["lab-server"]):
            wanted = "fp32" if site.kind == "cpu" else "bf16"
            served = served_of(decoder, 2 * 10**9, wanted, 8)
            rate, read = site.rates[wanted], site.bandwidth or 0
            found = next(
                (b for b in range(1, 3000) if decode_operations(served, b) / rate >= decode_bytes(served, b) / read),
                None,
            )
            assert flips_at(site, served) == found
            flips.append(found)
    assert sum(flip is not None for flip in flips) >= 6


def test_with_a_long_context_caches_bind_at_any_batch() -> None:
    served = served_of(LLAMA_2_7B, 13 * 10**9, "fp16", 32768)
    assert flips_at(sites()["h100"], served) is None
    assert speed(sites()["h100"], served, 256).bound == "bytes"


def test_weights_alone_in_four_bits_are_not_sold_as_a_faster_prompt() -> None:
    card = sites()["a100-80gb"]
    kind = multiplied_in(parse_scheme("int4-g128"), "vllm", card)
    assert kind == "bf16"
    four = speed(card, served_of(LLAMA_2_7B, 4 * 10**9, kind, 512))
    half = speed(card, served_of(LLAMA_2_7B, 13_476_831_232, "bf16", 512))
    told = fewer_bits(four, half)
    assert "decoding may be up to 3" in told[0]
    assert told[1] == "a prompt is no faster: both are multiplied in bf16"
    assert four.prefill == half.prefill
    # With as many requests as flip the bound, not even decoding is faster.
    many = 2048
    light = replace(served_of(LLAMA_2_7B, 4 * 10**9, kind, 1), cache_bytes=0.01)
    heavy = replace(served_of(LLAMA_2_7B, 13_476_831_232, "bf16", 1), cache_bytes=0.01)
    assert "no faster" in fewer_bits(speed(card, light, many), speed(card, heavy, many))[0]


def test_a_type_that_the_hardware_lacks_is_expanded_and_told() -> None:
    found = computed(sites()["rtx-3090"], "fp8")
    assert (found.type, found.rate) == ("bf16", 71e12)
    assert found.note
    assert "does not multiply fp8" in found.note
    assert computed(sites()["h100"], "fp8").note is None
    assert computed(sites()["h100"], "int4").type == "bf16"
    assert computed(sites()["nas"], "bf16").type == "fp32"
    unknown = speed(sites()["nas"], served_of(LLAMA_2_7B, 4 * 10**9, "int8", 64))
    assert unknown.prefill is None
    assert unknown.decode_total is not None
    assert unknown.flips_at is None
    assert any("--measure-machine" in note for note in unknown.notes)


def test_nothing_is_told_of_a_site_without_bandwidth() -> None:
    found = speed(Site(), served_of(LLAMA_2_7B, 4 * 10**9, "int8", 64))
    assert (found.decode_total, found.prefill, found.bound) == (None, None, "unknown")


@pytest.mark.parametrize(
    ("scheme", "runtime", "site", "kind"),
    [
        ("q4_k_m", "llamacpp", "lab-server", "int8"),
        ("q4_k_m", "llamacpp", "m4-max", "fp16"),
        ("f16", "llamacpp", "rtx-4090", "fp16"),
        ("f16", "llamacpp", "laptop", "fp32"),
        ("fp8", "vllm", "h100", "fp8"),
        ("w8a8", "vllm", "h100", "int8"),
        ("w4a8", "vllm", "h100", "int8"),
        ("nf4", "transformers", "h100", "bf16"),
        ("llm-int8", "transformers", "h100", "int8"),
        ("16bit", "vllm", "h100", "bf16"),
    ],
)
def test_what_is_multiplied(scheme: str, runtime: str, site: str, kind: str) -> None:
    assert multiplied_in(parse_scheme(scheme), runtime, sites()[site]) == kind


def test_a_mixture_reads_more_experts_as_the_batch_grows_but_never_more_than_all() -> None:
    served = served_of(mixture(8, 2), 10**6, "bf16", 0)
    read = [decode_bytes(served, b) for b in (1, 2, 64)]
    assert read[0] < read[1] < read[2] < 10**6
    assert read[0] == pytest.approx(served.stored.dense + served.stored.expert / 4)


KNOWN = [name for name, site in sites().items() if computed(site, "int8").rate]


def test_shares_lie_in_order_and_say_where_from() -> None:
    for share in SHARES.values():
        assert 0 < share.low < share.high < 1
        assert share.source


@given(
    bits=st.floats(1.5, 32),
    batch=st.integers(1, 512),
    context=st.integers(0, 100_000),
    name=st.sampled_from(KNOWN),
)
def test_more_bytes_or_requests_never_take_less_time(bits: float, batch: int, context: int, name: str) -> None:
    site = sites()[name]
    total = int(6_738_415_616 * bits / 8)
    served = served_of(LLAMA_2_7B, total, "int8", context)
    one = speed(site, served, batch)
    assert one.decode_seconds
    assert 0 < one.decode_seconds[0] < one.decode_seconds[1]
    for slower in (
        speed(site, served_of(LLAMA_2_7B, 2 * total, "int8", context), batch),
        speed(site, served, batch + 1),
        speed(site, replace(served, context=context + 100), batch),
        speed(site, served, batch, extra_seconds=0.01),
    ):
        assert slower.decode_seconds
        assert slower.decode_seconds[0] >= one.decode_seconds[0]
    faster = speed(replace(site, bandwidth=2 * (site.bandwidth or 1)), served, batch)
    assert faster.decode_seconds
    assert faster.decode_seconds[1] <= one.decode_seconds[1]


@given(batch=st.integers(1, 4096), context=st.integers(0, 20_000))
def test_what_binds_agrees_with_where_it_flips(batch: int, context: int) -> None:
    card = sites()["h100"]
    served = served_of(LLAMA_2_7B, 13_476_831_232, "bf16", context)
    found = speed(card, served, batch)
    assert (found.bound == "operations") == (found.flips_at is not None and batch >= found.flips_at)
