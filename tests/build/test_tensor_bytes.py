"""Bytes by class: of names of every family, and of real artifacts, where they add up."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from quantwise.build.tensor_bytes import CLASSES, bytes_by_class, tensor_class
from quantwise.formats.gguf.header import read_gguf_header


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", "embeddings"),
        ("model.decoder.embed_positions.weight", "embeddings"),
        ("token_embd.weight", "embeddings"),
        ("lm_head.weight", "output"),
        ("embed_out.weight", "output"),
        ("output.weight", "output"),
        ("output_norm.weight", "norms"),
        ("model.norm.weight", "norms"),
        ("gpt_neox.final_layer_norm.bias", "norms"),
        ("model.layers.3.self_attn.q_norm.weight", "norms"),
        ("blk.3.attn_norm.weight", "norms"),
        ("model.layers.11.self_attn.q_proj.weight_packed", "attention"),
        ("gpt_neox.layers.0.attention.query_key_value.weight_scale", "attention"),
        ("blk.0.attn_output.weight", "attention"),
        ("model.layers.0.mlp.down_proj.weight.absmax", "feed-forward"),
        ("model.layers.0.block_sparse_moe.experts.7.w2.weight", "feed-forward"),
        ("model.decoder.layers.0.fc1.bias", "feed-forward"),
        ("blk.0.ffn_gate_exps.weight", "feed-forward"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert tensor_class(name) == expected


def test_the_classes_add_up_and_are_recorded_with_versions(built) -> None:  # type: ignore[no-untyped-def]
    for name in ("rtn:int4-g64", "gptq:int4-g64-asym", "q4_0"):
        artifact = built.artifacts[name]
        place = Path(artifact.location)
        found = bytes_by_class(place)
        record = json.loads(((place.parent if place.is_file() else place) / "quantwise.json").read_text())
        assert record["bytes_by_class"] == found
        assert tuple(found) == CLASSES
        assert {"quantwise", "torch", "transformers", "gguf", "xllamacpp"} <= record["versions"].keys()
        assert (record["hash"], record["recipe"]) == (artifact.hash, artifact.recipe)
        if place.is_file():
            assert sum(found.values()) == sum(tensor.bytes for tensor in read_gguf_header(place).tensors)
        else:
            tensors = load_file(place / "model.safetensors")
            assert sum(found.values()) == sum(t.numel() * t.element_size() for t in tensors.values())
            assert found["embeddings"] == 2 * tensors["model.embed_tokens.weight"].numel()
            assert found["norms"] == 2 * 5 * 128
