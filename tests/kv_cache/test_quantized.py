"""The quantized cache against a slow one that keeps everything and rounds what is old anew at every read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicCache

from quantwise.core.cache_scheme import TRANSFORMERS_CACHES, IntegerCache
from quantwise.core.errors import InputError
from quantwise.kv_cache.codes import decode, encode
from quantwise.kv_cache.quantized import QuantizedCache, QuantizedLayer, check_model
from quantwise.plan.kv_cache import CacheShape, held_bytes
from quantwise.runtimes.greedy import CausalModel, Row

SCHEMES = [scheme for scheme in TRANSFORMERS_CACHES.values() if scheme is not None]
BY_CHANNEL = [scheme for scheme in SCHEMES if scheme.keys == "channel"]
schemes = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)


def small(scheme: IntegerCache) -> IntegerCache:
    """Groups of 4 and a window of 8, so that short texts reach every case."""
    return replace(scheme, group=4, window=8)


def slow_read(states: Tensor, scheme: IntegerCache, rounded: int, keys: bool) -> Tensor:
    """What is read of [B, H, T, D] when the first ``rounded`` tokens are codes: token by token, group by group."""
    out = states.clone()
    step = scheme.group if keys and scheme.keys == "channel" else 1
    for begin in range(0, rounded, step):
        part = states[:, :, begin : begin + step]
        group = step if keys and scheme.keys == "channel" else None
        out[:, :, begin : begin + step] = decode(encode(part, scheme.bits, group), states.dtype)
    return out


def states(tokens: int, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(batch, 2, tokens, 6) + 3 * torch.randn(1, 2, 1, 6), torch.randn(batch, 2, tokens, 4)


@schemes
@pytest.mark.parametrize("cuts", [[21], [1] * 21, [13, 1, 1, 6]])
def test_it_reads_what_the_slow_cache_reads(scheme: IntegerCache, cuts: list[int]) -> None:
    scheme = small(scheme)
    keys, values = states(21)
    layer, seen = QuantizedLayer(scheme), 0
    for count in cuts:
        read = layer.update(keys[:, :, seen : seen + count], values[:, :, seen : seen + count])
        # Tokens round what they bring before it is read, groups afterwards.
        rounded = seen + count if scheme.keys == "token" else scheme.rounded(seen)
        seen += count
        assert torch.equal(read[0], slow_read(keys[:, :, :seen], scheme, rounded, keys=True))
        assert torch.equal(read[1], slow_read(values[:, :, :seen], scheme, rounded, keys=False))
        assert layer.get_seq_length() == seen
        assert layer.get_mask_sizes(3) == (seen + 3, 0)
    assert (0 if layer.old_keys is None else len(layer.old_keys)) == (21 if scheme.keys == "token" else 12)


@schemes
def test_rounding_shows_and_is_small(scheme: IntegerCache) -> None:
    keys, values = states(64)
    layer = QuantizedLayer(replace(scheme, window=0))
    layer.update(keys, values)
    for exact, read in zip((keys, values), layer.read(), strict=True):
        error = float((read - exact).square().mean().sqrt() / exact.std())
        assert (0.001 < error < 0.02) if scheme.bits == 8 else (0.02 < error < 0.2)


@schemes
def test_rows_are_chosen_repeated_reordered_and_forgotten(scheme: IntegerCache) -> None:
    scheme = small(scheme)
    keys, values = states(19, batch=3)
    cache = QuantizedCache(scheme)
    cache.update(keys, values, 0)
    exact = cache.layers[0].read()
    cache.reorder_cache(torch.tensor([2, 0, 1]))
    cache.batch_select_indices(torch.tensor([0, 2]))
    cache.batch_repeat_interleave(2)
    for whole, read in zip(exact, cache.layers[0].read(), strict=True):
        assert torch.equal(read, whole[[2, 2, 1, 1]])
    cache.reset()
    assert (cache.get_seq_length(), cache.bytes()) == (0, 0)
    cache.update(keys, values, 0)
    assert torch.equal(cache.layers[0].read()[0], exact[0])


@schemes
@pytest.mark.parametrize("removed", [1, 5, 11, 19, 30])
def test_cropping_keeps_what_was_read_before(scheme: IntegerCache, removed: int) -> None:
    scheme = small(scheme)
    keys, values = states(19)
    layer = QuantizedLayer(scheme)
    layer.update(keys, values)
    before, left = layer.read(), max(0, 19 - removed)
    layer.crop(-removed)
    assert layer.get_seq_length() == left
    for whole, read in zip(before, layer.read(), strict=True):
        assert torch.equal(read, whole[:, :, :left])
    more = layer.update(keys[:, :, left:], values[:, :, left:])
    assert more[0].shape == keys.shape
    with pytest.raises(ValueError, match="below zero"):
        layer.crop(3)


@schemes
@pytest.mark.parametrize("tokens", [1, 32, 63, 64, 65, 200])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bytes_are_those_that_the_planner_says(scheme: IntegerCache, tokens: int, dtype: torch.dtype) -> None:
    cache = QuantizedCache(scheme)
    for layer in range(3):
        keys, values = torch.randn(1, 2, tokens, 6, dtype=dtype), torch.randn(1, 2, tokens, 4, dtype=dtype)
        cache.update(keys, values, layer)
    assert cache.bytes() == sum(held_bytes(CacheShape(3, 2, 6, 4), tokens, scheme.name))
    kept = {id(t): t for layer in cache.layers for t in (layer.keys, layer.values)}
    assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in kept.values()), "no hidden tail"


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def prompts(*lengths: int) -> list[list[int]]:
    drawn = torch.randint(2, 64, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(3))
    return [row[:length].tolist() for row, length in zip(drawn, lengths, strict=True)]


def generated(net: Any, cache: IntegerCache | None, asked: list[list[int]], limit: int = 12) -> list[list[int]]:
    made = [Row(prompt, limit - i) for i, prompt in enumerate(asked)]  # rows end one by one, so that the cache is cut
    CausalModel(net, pad=0, eos=frozenset(), cache=cache).decode(made, float("inf"))
    return [row.new for row in made]


@pytest.mark.parametrize("scheme", BY_CHANNEL, ids=lambda s: s.name)
def test_a_window_longer_than_the_text_changes_nothing(model: Any, scheme: IntegerCache) -> None:
    asked = prompts(40, 7, 33, 21)
    wide, plain = replace(scheme, window=4096), generated(model, None, asked)
    assert generated(model, wide, asked) == plain
    # And rounding does change something here, so that equality says something.
    theirs, ours, rounded = (
        CausalModel(model, 0, frozenset(), cache=c).distributions(asked[0], 64)
        for c in (None, wide, replace(scheme, window=0))
    )
    assert [p for d in ours for p in d.values()] == pytest.approx([p for d in theirs for p in d.values()], abs=1e-3)
    assert max(abs(a[t] - b[t]) for a, b in zip(theirs, rounded, strict=True) for t in a) > 0.01


@schemes
def test_a_text_at_once_reads_what_it_reads_token_by_token(model: Any, scheme: IntegerCache) -> None:
    scheme = small(scheme)
    (text,) = prompts(30)
    told = CausalModel(model, 0, frozenset(), cache=scheme).distributions(text, 64)
    cache = QuantizedCache(scheme)
    with torch.inference_mode():
        for column, token in enumerate(text[:-1]):
            out = model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            slow = out.logits[0, -1].log_softmax(-1)
            # Sums in another order may move a number over the edge between two codes; a wrong key would show by 1.
            assert [told[column][t] for t in range(64)] == pytest.approx(slow.tolist(), abs=0.15)


@schemes
def test_padding_does_not_change_what_a_row_reads(scheme: IntegerCache) -> None:
    scheme = small(scheme)
    keys, values = states(24, batch=1)
    outlier = torch.full((1, 2, 8, 6), 500.0)
    padded = torch.cat([outlier, keys], dim=2), torch.cat([outlier[..., :4], values], dim=2)
    alone, beside = QuantizedLayer(scheme), QuantizedLayer(scheme, torch.tensor([8]))
    alone.update(keys, values)
    for begin in range(0, 32, 4):
        beside.update(padded[0][:, :, begin : begin + 4], padded[1][:, :, begin : begin + 4])
    for one, other in zip(alone.read(), beside.read(), strict=True):
        assert torch.equal(one, other[:, :, 8:])
    # Where padding ends inside a group it leaves the group's scale alone: no step is as wide as the outlier's.
    odd = QuantizedLayer(scheme, torch.tensor([6]))
    odd.update(torch.cat([outlier[:, :, :6], keys], dim=2), torch.cat([outlier[:, :, :6, :4], values], dim=2))
    worst = float((odd.read()[0][:, :, 6:] - keys).abs().max())
    assert worst <= float(keys.abs().max()) / 15
    if scheme.keys == "channel":  # values of padding are overwritten too, as they come
        assert float(odd.read()[1].abs().max()) < 100


@schemes
def test_a_batch_with_padding_answers_as_each_alone(model: Any, scheme: IntegerCache) -> None:
    """Padding by whole groups leaves the groups where they were; then only sums in another order can differ."""
    scheme = small(scheme)
    asked = prompts(40, 28, 36, 12)
    together = generated(model, scheme, asked)
    alone = [generated(model, scheme, [prompt], 12 - i)[0] for i, prompt in enumerate(asked)]
    assert sum(a == b for a, b in zip(together, alone, strict=True)) >= 3


@schemes
def test_generate_of_transformers_takes_it(model: Any, scheme: IntegerCache) -> None:
    ids = torch.tensor(prompts(20))
    cache = QuantizedCache(small(scheme))
    out = model.generate(ids, past_key_values=cache, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert out.shape[1] == 26
    assert cache.get_seq_length() == 25
    exact = DynamicCache()
    model(input_ids=ids, past_key_values=exact)
    assert 0 < cache.bytes() < sum(t.keys.nbytes + t.values.nbytes for t in exact.layers)


def test_models_that_keep_something_else_are_refused() -> None:
    scheme = TRANSFORMERS_CACHES["int4-token"]
    assert scheme is not None
    check_model(LlamaConfig(hidden_size=64, num_attention_heads=4), scheme)
    from transformers import GPT2Config, Qwen3NextConfig

    with pytest.raises(InputError, match="heads of even width, this model has 5; use f16"):
        check_model(GPT2Config(n_embd=20, n_head=4), scheme)
    with pytest.raises(InputError, match=r"keeps keys and values, and this model has LinearAttention.*; use f16"):
        check_model(Qwen3NextConfig(), scheme)
    with pytest.raises(ValueError, match="even width"):
        QuantizedLayer(scheme).update(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 3))
