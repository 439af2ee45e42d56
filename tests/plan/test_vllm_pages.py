from __future__ import annotations

import math

import pytest
from decoders import DEEPSEEK_LITE, GEMMA_2_27B, GEMMA_3_12B, LLAMA_8B, decoder, sliding, uniform

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Layer
from quantwise.plan.constants import GIB
from quantwise.plan.vllm import VllmSettings, vllm_available, vllm_pages, vllm_profile


@pytest.mark.parametrize(
    ("model", "gib", "tokens"),
    [
        # Cache memory and tokens that vLLM 0.19 printed, to the digits of the memory.
        (LLAMA_8B, 58.11, 476016),
        (DEEPSEEK_LITE, 43.61, 1505552),
    ],
)
def test_tokens_that_vllm_printed(model: object, gib: float, tokens: int) -> None:
    pages = vllm_pages(model, VllmSettings(8192))  # type: ignore[arg-type]
    assert pages.groups == 1
    low, high = pages.tokens(int((gib - 0.005) * GIB)), pages.tokens(int((gib + 0.005) * GIB))
    assert low <= tokens <= high
    assert high - low < 0.001 * tokens


@pytest.mark.parametrize(("model", "blocks", "groups", "tokens"), [(GEMMA_3_12B, 48867, 6, 130304),
                                                                  (GEMMA_2_27B, 7335, 2, 58672)])  # fmt: skip
def test_groups_of_layers_that_slide(model: object, blocks: int, groups: int, tokens: int) -> None:
    pages = vllm_pages(model, VllmSettings(8192))  # type: ignore[arg-type]
    available = blocks * pages.page * pages.layers
    assert pages.groups == groups
    assert pages.blocks(available) == blocks
    assert pages.tokens(available) == tokens
    assert pages.blocks(available - 1) == blocks - 1


def test_bytes_of_a_page() -> None:
    assert vllm_pages(LLAMA_8B, VllmSettings(16)).page == 16 * 8 * 256 * 2
    assert vllm_pages(LLAMA_8B, VllmSettings(16, "fp8")).page == 16 * 8 * 256
    assert vllm_pages(LLAMA_8B, VllmSettings(16, "int8-token-head")).page == 16 * 8 * 256 + 2 * 16 * 8 * 4
    assert vllm_pages(LLAMA_8B, VllmSettings(16, block=128)).page == 128 * 8 * 256 * 2
    # Every GPU has its heads, and at least one.
    assert vllm_pages(LLAMA_8B, VllmSettings(16, parallel=4)).page == 16 * 2 * 256 * 2
    assert vllm_pages(LLAMA_8B, VllmSettings(16, parallel=16)).page == 16 * 1 * 256 * 2


def test_blocks_of_a_request() -> None:
    assert vllm_pages(LLAMA_8B, VllmSettings(8192)).by_request == 512
    assert vllm_pages(LLAMA_8B, VllmSettings(8193)).by_request == 513
    assert vllm_pages(LLAMA_8B, VllmSettings(8192)).request_bytes == 8192 * 131072
    near = vllm_pages(sliding(4, 4, 1024, 2, 64), VllmSettings(32768, batched_tokens=2048))
    assert near.by_request == 32768 // 16 + math.ceil((1023 + 2048) / 16) + 1
    assert near.requests(near.request_bytes * 3) == 3


def test_kinds_of_nearly_equal_number_are_one_group_each() -> None:
    assert vllm_pages(sliding(10, 12, 512, 2, 64), VllmSettings(64)).groups == 2
    assert vllm_pages(sliding(10, 13, 512, 2, 64), VllmSettings(64)).groups == 3


def test_what_is_left_of_a_device() -> None:
    settings = VllmSettings(8192)
    left = vllm_available(LLAMA_8B, 16 * GIB, 80 * GIB, settings)
    assert 0 < left.low < left.high < (0.9 * 80 - 16) * GIB
    # 53.3 to 54.8 GiB were seen on an H100 of 79.2.
    assert left.low < 54 * GIB < left.high
    assert vllm_available(LLAMA_8B, 90 * GIB, 80 * GIB, settings).high == 0
    assert vllm_profile(LLAMA_8B, VllmSettings(8192, parallel=2)).low > vllm_profile(LLAMA_8B, settings).low + GIB


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown cache scheme 'q8_0' of vLLM; allowed: f16, bf16, fp8"):
        VllmSettings(16, "q8_0")
    with pytest.raises(InputError, match=r"recurrent layers are not counted"):
        vllm_pages(decoder(Layer(None, 1, state=5)), VllmSettings(16))
    with pytest.raises(InputError, match=r"pages of different sizes"):
        vllm_pages(decoder(Layer(Attention(2, 2, 64, 64), 1), Layer(Attention(2, 1, 64, 64), 1)), VllmSettings(16))
    with pytest.raises(InputError, match=r"keeps a cache"):
        vllm_pages(decoder(Layer(None, 1)), VllmSettings(16))
    with pytest.raises(InputError, match=r"whole numbers of at least 1"):
        VllmSettings(0)
    assert uniform(1, 1, 1, 64)
