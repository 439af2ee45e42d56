"""Tensor tables derived from a config.json equal, name by name and shape by shape, what Transformers writes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantwise.formats.safetensors_header import read_folder
from quantwise.models.families import FAMILIES
from quantwise.models.from_config import decoder_of
from tiny_families import TINY, write_tiny

_SEES = {"full_attention": None, "sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}


@pytest.mark.parametrize(("kind", "differing"), TINY, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(TINY)])
def test_a_table_is_what_transformers_writes(kind: str, differing: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    theirs = write_tiny(kind, differing, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    decoder = decoder_of(config, kind)
    assert dict(decoder.tensors) == {name: entry.shape for name, entry in read_folder(tmp_path).items()}
    assert len(decoder.layers) == config["num_hidden_layers"]
    assert decoder.tied == theirs.tie_word_embeddings
    assert (decoder.hidden, decoder.vocab) == (32, 48)
    words = getattr(theirs, "layer_types", None)
    for layer, word in zip(decoder.layers, words or (), strict=False):
        if word == "hybrid":
            assert layer.attention is not None
            assert layer.state > 0
        elif word not in _SEES:
            assert layer.attention is None
            assert layer.state > 0
        else:
            assert layer.attention is not None
            key = _SEES[word]
            assert layer.attention.window == (getattr(theirs, key) if key else None)


def test_every_family_was_compared_with_transformers() -> None:
    assert {kind for kind, _ in TINY} == set(FAMILIES)


def test_layers_that_read_the_cache_of_others_keep_none() -> None:
    config = {
        "model_type": "gemma4_text", "num_hidden_layers": 12, "hidden_size": 32, "intermediate_size": 40,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_kv_shared_layers": 3, "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 0,
    }  # fmt: skip
    layers = decoder_of(config, "g").layers
    kept = [layer.attention for layer in layers]
    assert [attention.shared for attention in kept if attention] == [False] * 9 + [True] * 3
    assert [attention.key_dim for attention in kept if attention] == ([256] * 5 + [512]) * 2
    assert [layer.feed_forward for layer in layers] == [40] * 9 + [80] * 3
