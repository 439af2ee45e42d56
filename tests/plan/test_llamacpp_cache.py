from __future__ import annotations

import math

import pytest
from decoders import DEEPSEEK_R1, LLAMA_70B, decoder, sliding, uniform

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.plan.llamacpp.cache import llamacpp_cache
from quantwise.plan.llamacpp.settings import LlamacppSettings as Settings

MIB = 1 << 20
QWEN_7B = uniform(28, 28, 4, 128)  # Qwen2.5
# Bytes of 32 numbers.
BLOCK = {"f32": 128, "f16": 64, "q8_0": 34, "q4_0": 18}


def total(model: Decoder, *args: object, **kwargs: object) -> int:
    return llamacpp_cache(model, Settings(*args, **kwargs)).total  # type: ignore[arg-type]


def test_an_80_layer_model_at_8k_in_16_bit() -> None:
    assert total(LLAMA_70B, 8192) == 2_684_354_560
    assert total(LLAMA_70B, 16384) == 2 * 2_684_354_560


@pytest.mark.parametrize(
    ("model", "settings", "mib"),
    [
        # What llama.cpp printed of these models, in MiB.
        (uniform(48, 32, 4, 128), Settings(4096), 384.0),  # Qwen3-30B-A3B
        (uniform(56, 48, 8, 128), Settings(49152, cache="q8_0"), 5712.0),  # Mistral-Small-22B
        (QWEN_7B, Settings(8192, cache="q8_0"), 238.0),
        (QWEN_7B, Settings(8192, cache="q4_0"), 126.0),
        (uniform(32, 32, 32, 80), Settings(2048), 640.0),  # Pythia-2.8B
        (DEEPSEEK_R1, Settings(32768), 2196.0),
    ],
)
def test_sizes_that_llamacpp_printed(model: Decoder, settings: Settings, mib: float) -> None:
    assert llamacpp_cache(model, settings).total == mib * MIB


def test_layers_that_slide_apart() -> None:
    # gpt-oss-20b with 4352 cells: llama.cpp printed 102.00 MiB for the layers that see all of them.
    cache = llamacpp_cache(sliding(12, 12, 128, 8, 64), Settings(4352))
    assert cache.keys + cache.values == 102 * MIB
    assert cache.window_keys + cache.window_values == 12 * 768 * 2048


@pytest.mark.parametrize("context", [1, 255, 256, 1000, 8192])
@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("cache", ["f16", "q8_0", "q8_0/q4_0", "f32"])
def test_of_uniform_layers_it_is_the_formula_of_one_shape(context: int, slots: int, cache: str) -> None:
    # Each slot has its share of all tokens, both in groups of 256.
    cells = math.ceil(math.ceil(context * slots / 256) * 256 // slots / 256) * 256
    keys, _, values = cache.partition("/")
    bytes_of_cell = 5 * 2 * 64 // 32 * (BLOCK[keys] + BLOCK[values or keys])
    assert total(uniform(5, 8, 2, 64), context, slots, cache=cache) == slots * cells * bytes_of_cell


def test_a_window_holds_what_is_computed_beside_it() -> None:
    model = sliding(1, 1, 1000, 1, 64)
    assert llamacpp_cache(model, Settings(8192)).window_cells == 1536  # 1000 + 512, in groups of 256
    assert llamacpp_cache(model, Settings(8192, ubatch=2048)).window_cells == 3072
    assert llamacpp_cache(model, Settings(1024)).window_cells == 1024
    assert llamacpp_cache(model, Settings(8192, whole_window=True)).window_cells == 8192
    # One window for each slot in one cache, or caches of their own.
    assert llamacpp_cache(model, Settings(8192, 4, unified=True)).window_cells == 4608
    assert total(model, 8192, 4) == 4 * total(model, 8192)


def test_windows_that_llamacpp_does_not_know() -> None:
    near = Layer(Attention(8, 2, 64, 64, window=512), 1024)
    mistral, command = (decoder(near, architecture=name) for name in ("MistralForCausalLM", "Cohere2ForCausalLM"))
    assert llamacpp_cache(mistral, Settings(8192)).keys == 8192 * 2 * 64 * 2
    assert llamacpp_cache(command, Settings(8192)).window_keys == 1024 * 2 * 64 * 2


def test_what_keeps_nothing_and_what_keeps_a_state() -> None:
    keeps = Layer(Attention(4, 2, 64, 64), 512)
    shared = Layer(Attention(4, 2, 64, 64, shared=True), 512)
    recurrent = Layer(None, 512, state=1000)
    one = total(decoder(keeps), 512)
    assert total(decoder(keeps, shared), 512) == one
    assert total(decoder(keeps, recurrent), 512) == one + 4000
    assert total(decoder(recurrent), 512, 3, unified=True) == 12000
    assert total(decoder(recurrent), 4096) == 4000


def test_without_flash_attention_values_are_as_wide_as_the_widest() -> None:
    model = decoder(Layer(Attention(4, 1, 64, 64), 1), Layer(Attention(4, 4, 64, 64), 1))
    assert total(model, 256) == 256 * 2 * 64 * (1 + 1 + 4 + 4)
    assert total(model, 256, flash_attention=False) == 256 * 2 * 64 * (1 + 4 + 4 + 4)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"multiple of 32, this model has 80"):
        total(uniform(1, 2, 2, 80), 256, cache="q8_0")
    with pytest.raises(InputError, match=r"latent attention keeps one cache, of one type, not f16/q8_0"):
        total(DEEPSEEK_R1, 256, cache="f16/q8_0")
    with pytest.raises(InputError, match=r"context must be a whole number of at least 1, not -5"):
        Settings(-5)
    with pytest.raises(InputError, match=r"unknown cache scheme 'q3_0'; allowed: f32"):
        Settings(5, cache="q3_0")
    with pytest.raises(InputError, match=r"values in q8_0 need flash attention"):
        Settings(5, cache="q8_0", flash_attention=False)
    with pytest.raises(InputError, match=r"gpu_layers must be 0 or more"):
        Settings(5, gpu_layers=-1)
