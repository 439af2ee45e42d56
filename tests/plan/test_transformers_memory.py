from __future__ import annotations

from typing import Literal

import pytest
from decoders import DEEPSEEK_LITE, LLAMA_70B, decoder, sliding, uniform

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Layer
from quantwise.plan.transformers_memory import transformers_cache, transformers_compute


def test_digits() -> None:
    assert transformers_cache(LLAMA_70B, 8192) == 2_684_354_560
    assert transformers_cache(LLAMA_70B, 1000, 3) == 3000 * 327_680
    assert transformers_cache(LLAMA_70B, 1000, cache="int8-token") == 1000 * 80 * 2 * 8 * (128 + 2)
    # Latents are kept expanded: 16 heads of 192 and 128 numbers.
    assert transformers_cache(DEEPSEEK_LITE, 10) == 10 * 27 * 16 * (192 + 128) * 2
    assert (
        transformers_cache(decoder(Layer(None, 1, state=10), Layer(Attention(2, 1, 64, 64, shared=True), 1)), 5) == 40
    )


@pytest.mark.parametrize("prompt", [10, 100, 1000])
def test_it_is_what_transformers_keeps(prompt: int) -> None:
    torch = pytest.importorskip("torch")
    from transformers import DynamicCache, Gemma3TextConfig

    config = Gemma3TextConfig(
        num_hidden_layers=4, sliding_window=64, layer_types=["sliding_attention"] * 3 + ["full_attention"]
    )
    cache = DynamicCache(config=config)
    for tokens in (prompt, 1, 1):
        for layer in range(4):
            states = torch.zeros(1, 2, tokens, 32, dtype=torch.float16)
            cache.update(states, states.clone(), layer)
    kept = sum(t.untyped_storage().nbytes() for layer in cache.layers for t in (layer.keys, layer.values))
    model = sliding(1, 3, 64, 2, 32)
    assert transformers_cache(model, prompt + 2) == kept


@pytest.mark.parametrize(
    ("texts", "context", "feed_forward", "number", "attention", "mib"),
    [
        # Peaks of one forward pass above the process and its cache: hidden 1024, 16 heads, 2 layers.
        (1, 2048, 2816, 4, "sdpa", 164.1),
        (1, 4096, 2816, 4, "sdpa", 289.0),
        (2, 2048, 2816, 4, "sdpa", 325.0),
        (1, 2048, 2816, 2, "sdpa", 93.0),
        (1, 2048, 1024, 4, "sdpa", 72.4),
        (1, 2048, 8192, 4, "sdpa", 250.2),
        (1, 1024, 2816, 4, "eager", 195.4),
        (1, 2048, 2816, 4, "eager", 646.3),
        (1, 1024, 2816, 2, "eager", 188.4),
        (2, 1024, 2816, 4, "eager", 381.1),
    ],
)
def test_measured_peaks_lie_inside(
    texts: int, context: int, feed_forward: int, number: int, attention: Literal["sdpa", "eager"], mib: float
) -> None:
    model = decoder(*(Layer(Attention(16, 4, 64, 64), feed_forward),) * 2, hidden=1024, vocab=8000)
    found = transformers_compute(model, context, texts, attention=attention, bytes_of_number=number)
    assert found.low < mib * (1 << 20) < found.high
    assert found.high < 3 * found.low


def test_activations_grow_with_the_batch_and_eager_scores_with_the_square() -> None:
    model = uniform(2, 8, 2, 64)
    one, two = transformers_compute(model, 512), transformers_compute(model, 512, 2)
    assert (two.low, two.high) == (2 * one.low, 2 * one.high)
    short, long = (transformers_compute(model, n, attention="eager") for n in (4000, 8000))
    plain = [transformers_compute(model, n) for n in (4000, 8000)]
    assert long.high - plain[1].high == 4 * (short.high - plain[0].high)


def test_a_scheme_of_another_runtime() -> None:
    with pytest.raises(InputError, match=r"unknown cache scheme 'int3'"):
        transformers_cache(LLAMA_70B, 8, cache="int3")
