"""Whatever stands in a config.json or in the keys of a GGUF file: a decoder, or one clear line."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantwise.core.errors import InputError
from quantwise.models.from_config import decoder_by_usual_keys, decoder_of, rope_factor_count
from quantwise.models.from_gguf import GgufFacts, gguf_decoder
from quantwise.plan.decoder_weights import decoder_weights
from tiny_families import TINY

STRANGE: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 7, 64, 10**6, 2**31, 10**40, 1.5, float("nan"), float("inf"), "", "64", "LLLG",
    "\n", [], [1], [None], ["full_attention"], [["a"]], [-1] * 3, {}, {"a": 1}, {"rope_type": []},
    {"5": {"head_dim": "x"}},
]  # fmt: skip
VALID = {
    "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4, "vocab_size": 48,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "ffn_dim": 40,
}  # fmt: skip
KINDS = sorted({kind for kind, _ in TINY})
# Every key that any family reads, and the containers around them.
KEYS = sorted(
    {*VALID, *(key for _, differing in TINY for key in differing), "head_dim", "layer_types", "layers_block_type",
     "text_config", "architectures", "model_type", "rope_scaling", "rope_parameters", "no_rope_layers", "moe_layers",
     "per_layer_config", "sliding_window_pattern", "tie_word_embeddings", "tie_embedding", "conv_L_cache", "expand",
     "full_attn_idxs", "block_ffn_dim_multiplier", "mamba_dt_rank", "time_step_rank", "num_ln_in_parallel_attn"}
)  # fmt: skip
CHANGES = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(STRANGE), max_size=4)


def answered(attempt: Any) -> None:
    begin, said = time.perf_counter(), ""
    try:
        attempt()
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 900
    assert time.perf_counter() - begin < 5.0


def plan(config: dict[str, Any]) -> None:
    decoder = decoder_of(config, "m")
    rope_factor_count(config, decoder)
    for scheme in ("int4-g32", "q4_k_m"):
        assert decoder_weights(decoder, scheme).effective > 0


def check_config(number: int, changes: dict[str, Any]) -> None:
    kind, differing = TINY[number]
    config = {**VALID, **differing, "model_type": kind, **changes}
    answered(lambda: plan(config))
    answered(lambda: decoder_by_usual_keys(config, "m"))


def test_the_unchanged_ones_are_decoders() -> None:
    for kind, differing in TINY:
        plan({**VALID, **differing, "model_type": kind})


@settings(max_examples=400)
@given(number=st.integers(0, len(TINY) - 1), changes=CHANGES)
def test_strange_configs(number: int, changes: dict[str, Any]) -> None:
    check_config(number, changes)


@pytest.mark.long
@settings(max_examples=20_000)
@given(number=st.integers(0, len(TINY) - 1), changes=CHANGES)
def test_many_strange_configs(number: int, changes: dict[str, Any]) -> None:
    check_config(number, changes)


ARCHITECTURES = ["llama", "gemma2", "gemma3", "deepseek2", "jamba", "mamba", "qwen3next", "falcon-h1", "lfm2", "llama4",
                 "nemotron_h", "novel"]  # fmt: skip
GGUF_VALID = {"block_count": 3, "embedding_length": 64, "context_length": 64, "attention.head_count": 4}
GGUF_KEYS = [
    *GGUF_VALID, "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.sliding_window", "attention.sliding_window_pattern", "attention.key_length_mla",
    "attention.value_length_mla", "expert_used_count", "attention.kv_lora_rank", "rope.dimension_count",
    "attention.shared_kv_layers", "nextn_predict_layers", "vocab_size", "full_attention_interval", "ssm.conv_kernel",
    "ssm.inner_size", "ssm.state_size", "ssm.group_count", "shortconv.l_cache", "feed_forward_length",
    "attention.key_length_swa", "attention.value_length_swa",
]  # fmt: skip
NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 4, 64, 2**31, 2**64 - 1, True, 1.5, float("nan"), "x", ""])
GGUF_CHANGES = st.dictionaries(st.sampled_from(GGUF_KEYS), NUMBERS, max_size=6)
GGUF_LISTS = st.dictionaries(st.sampled_from(GGUF_KEYS), st.lists(NUMBERS, max_size=4), max_size=3)
SHAPES = st.dictionaries(
    st.sampled_from(["token_embd.weight", "output.weight", "blk.0.ffn_down.weight", "blk.1.ffn_down_exps.weight", "x"]),
    st.lists(st.sampled_from([0, 1, 32, 64, 2**40]), min_size=1, max_size=4).map(tuple),
)


@settings(max_examples=400)
@given(architecture=st.sampled_from(ARCHITECTURES), changes=GGUF_CHANGES, lists=GGUF_LISTS, shapes=SHAPES)
def test_strange_keys_of_gguf_files(
    architecture: str, changes: dict[str, Any], lists: dict[str, list[Any]], shapes: dict[str, tuple[int, ...]]
) -> None:
    keys = {f"{architecture}.{key}": value for key, value in {**GGUF_VALID, **changes}.items()}
    arrays = {f"{architecture}.{key}": value for key, value in lists.items()}
    facts = GgufFacts(architecture, keys, arrays, shapes, dict.fromkeys(shapes, 1), "m.gguf")
    answered(lambda: gguf_decoder(facts, "m"))
