"""One decoder, whatever it is read from: config.json, folder, quantized folder, GGUF file, preset, hub id."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.plan.model_source import read_decoder, read_source

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 40, "vocab_size": 48,
    "max_position_embeddings": 64,
}  # fmt: skip


def folder(path: Path, config: dict[str, Any], shapes: dict[str, tuple[str, tuple[int, ...]]] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if shapes is not None:
        widths = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "U8": 1, "I64": 8, "F8_E4M3": 1}
        header, at = {}, 0
        for name, (dtype, shape) in shapes.items():
            end = at + math.prod(shape) * widths[dtype]
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(header).encode()
        with (path / "model.safetensors").open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            stream.truncate(8 + len(text) + at)
    return path


def sixteen_bit(decoder: Decoder) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: ("BF16", shape) for name, shape in decoder.tensors.items()}


def test_a_config_and_its_folder_are_one_decoder(tmp_path: Path) -> None:
    alone = read_decoder(str(folder(tmp_path / "m", LLAMA)))
    assert alone == read_decoder(str(tmp_path / "m" / "config.json"))
    assert alone.stored == {}
    assert alone.layers == (Layer(Attention(4, 2, 8, 8), 40),) * 2
    whole = read_decoder(str(folder(tmp_path / "m", LLAMA, sixteen_bit(alone))))
    assert whole == replace(alone, stored={name: 2 * math.prod(shape) for name, shape in alone.tensors.items()})


def test_missing_weights_are_told(tmp_path: Path) -> None:
    shapes = sixteen_bit(read_decoder(str(folder(tmp_path, LLAMA))))
    del shapes["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(InputError, match=r"holds 15,776 weights, its config\.json describes 17,056; download"):
        read_decoder(str(folder(tmp_path, LLAMA, shapes)))


def test_a_quantized_folder_counts_codes_and_scales_as_their_matrix(tmp_path: Path) -> None:
    alone = read_decoder(str(folder(tmp_path, LLAMA)))
    shapes = sixteen_bit(alone)
    query = "model.layers.0.self_attn.q_proj"
    del shapes[f"{query}.weight"]
    packed = {
        "qweight": ("I32", (4, 32)),
        "scales": ("F16", (1, 32)),
        "qzeros": ("I32", (1, 4)),
        "g_idx": ("I32", (32,)),
    }
    shapes |= {f"{query}.{part}": held for part, held in packed.items()}
    key = "model.layers.0.self_attn.k_proj"
    shapes[f"{key}.weight_scale"] = ("F32", (16, 1))
    quantized = {**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 4}}
    decoder = read_decoder(str(folder(tmp_path, quantized, shapes)))
    assert decoder.tensors == alone.tensors
    assert decoder.stored[f"{query}.weight"] == 4 * 4 * 32 + 2 * 32 + 4 * 4 + 4 * 32
    assert decoder.stored[f"{key}.weight"] == 2 * 16 * 32 + 4 * 16


def test_an_unknown_model_type_is_read_where_files_give_its_tensors(tmp_path: Path) -> None:
    novel = {**LLAMA, "model_type": "novel", "architectures": ["NovelForCausalLM"]}
    with pytest.raises(InputError, match="the tensors of model type 'novel' are not known; known: llama, "):
        read_decoder(str(folder(tmp_path, novel)))
    decoder = read_decoder(str(folder(tmp_path, novel, {"strange.weight": ("F16", (48, 32))})))
    assert decoder.tensors == {"strange.weight": (48, 32)}
    assert decoder.layers == (Layer(Attention(4, 2, 8, 8), 40),) * 2
    with pytest.raises(InputError, match="kv_lora_rank tells that it is no usual one"):
        read_decoder(str(folder(tmp_path, {**novel, "kv_lora_rank": 4})))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size 32 is no multiple of 5 heads"),
        ({"num_key_value_heads": 3}, "4 heads do not split over 3 key-value heads"),
        ({"hidden_size": -32}, "hidden_size must be a whole number of 1 to 2147483647, not -32"),
        ({"hidden_size": "32"}, "hidden_size must be a whole number"),
        ({"hidden_size": True}, "hidden_size must be a whole number"),
        ({"vocab_size": 10**30}, "vocab_size must be a whole number"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers must be a whole number of 1 to 4096"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types names 3 layers, the model has 2"),
        ({"layer_types": ["full_attention", "odd"]}, "layer_types has 'odd'; known are full_attention"),
        ({"layer_types": "full_attention"}, "layer_types must be a list of words"),
        ({"attention_bias": "yes"}, "attention_bias must be true or false"),
        ({"sliding_window": -4, "model_type": "mistral"}, "sliding_window must be a whole number of 0"),
        ({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3}, "3 of 2 experts are used"),
        (
            {"model_type": "mixtral", "num_local_experts": 10**9},
            "num_local_experts must be a whole number of 0 to",
        ),
        ({"model_type": "qwen3_moe", "num_experts": 8192, "num_hidden_layers": 4096}, "are beyond any model"),
        ({"model_type": "qwen3_moe"}, "names no number of experts"),
        ({"model_type": ["llama"]}, "model type ['llama'] are not known"),
        ({"text_config": 3}, "text_config is no object"),
        ({"model_type": "deepseek_v3"}, "lacks qk_nope_head_dim"),
    ],
)
def test_contradictory_configs_are_one_clear_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_decoder(str(folder(tmp_path, {**LLAMA, **change})))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


def test_the_language_part_of_several_modalities(tmp_path: Path) -> None:
    inner = {key: value for key, value in LLAMA.items() if key != "architectures"}
    outer = {"architectures": ["SeeingForConditionalGeneration"], "model_type": "seeing", "text_config": inner}
    seeing, plain = read_decoder(str(folder(tmp_path / "s", outer))), read_decoder(str(folder(tmp_path / "p", LLAMA)))
    assert seeing.architecture == "SeeingForConditionalGeneration"
    assert (seeing.tensors, seeing.layers) == (plain.tensors, plain.layers)


def written(path: Path, architecture: str, keys: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Path:
    """A GGUF file of zeros in q8_0 where that fits, as the gguf package writes it."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        add = writer.add_array if isinstance(value, list) else writer.add_uint32
        add(f"{architecture}.{key}", value)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    for name, shape in shapes.items():
        fits = len(shape) > 1 and shape[-1] % 32 == 0
        raw = np.zeros((*shape[:-1], shape[-1] // 32 * 34), np.uint8) if fits else np.zeros(shape, np.float32)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.Q8_0 if fits else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


SIZES = {"block_count": 6, "embedding_length": 64, "context_length": 512, "attention.head_count": 4}
SHAPES = {"token_embd.weight": (10, 64), **{f"blk.{n}.ffn_down.weight": (64, 96) for n in range(6)}}


def of(path: Path, architecture: str, keys: dict[str, Any], more: dict[str, tuple[int, ...]] | None = None) -> Decoder:
    return read_decoder(str(written(path / "m.gguf", architecture, {**SIZES, **keys}, {**SHAPES, **(more or {})})))


def kept(decoder: Decoder) -> list[Attention | None]:
    return [layer.attention for layer in decoder.layers]


def test_a_gguf_file(tmp_path: Path) -> None:
    decoder = of(tmp_path, "llama", {"attention.head_count_kv": 2, "feed_forward_length": 96})
    assert decoder.layers == (Layer(Attention(4, 2, 16, 16), 96),) * 6
    assert (decoder.hidden, decoder.vocab, decoder.context, decoder.tied) == (64, 10, 512, True)
    assert decoder.tensors == SHAPES
    assert decoder.stored["blk.3.ffn_down.weight"] == 64 * 96 // 32 * 34


def test_sliding_layers_of_a_gguf_file(tmp_path: Path) -> None:
    windows = lambda decoder: [a.window for a in kept(decoder) if a]  # noqa: E731
    base = {"attention.head_count_kv": 2}
    assert windows(of(tmp_path, "gemma2", {**base, "attention.sliding_window": 32})) == [32, None] * 3
    assert windows(of(tmp_path, "gemma3", {**base, "attention.sliding_window": 32})) == [32] * 5 + [None]
    # Llama ignores the key, as llama.cpp does.
    assert windows(of(tmp_path, "llama", {**base, "attention.sliding_window": 32})) == [None] * 6
    listed = {
        "attention.sliding_window": 32,
        "attention.sliding_window_pattern": [True, False, True, True, False, True],
    }
    assert windows(of(tmp_path, "novel", {**base, **listed})) == [32, None, 32, 32, None, 32]


def test_latent_attention_of_a_gguf_file(tmp_path: Path) -> None:
    keys = {"attention.head_count_kv": 1, "attention.key_length": 24, "attention.value_length": 16,
            "attention.kv_lora_rank": 16, "rope.dimension_count": 8}  # fmt: skip
    new = {"attention.key_length_mla": 12, "attention.value_length_mla": 10}
    assert kept(of(tmp_path, "deepseek2", {**keys, **new}))[0] == Attention(4, 4, 12, 10, latent=24)
    # Files of before keep whole keys and values.
    assert kept(of(tmp_path, "deepseek2", {**keys, "attention.head_count_kv": 4}))[0] == Attention(4, 4, 24, 16)


def test_layers_without_cache_of_a_gguf_file(tmp_path: Path) -> None:
    state = {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.group_count": 2}
    numbers = 3 * (128 + 2 * 2 * 16) + 16 * 128
    jamba = of(tmp_path, "jamba", {**state, "attention.head_count_kv": [0, 0, 2, 0, 0, 2]})
    assert [layer.state for layer in jamba.layers] == [numbers, numbers, 0] * 2
    assert kept(jamba) == [None, None, Attention(4, 2, 16, 16)] * 2
    qwen = of(tmp_path, "qwen3next", {**state, "attention.head_count_kv": 2, "attention.key_length": 32,
                                      "attention.value_length": 32})  # fmt: skip
    assert [layer.state > 0 for layer in qwen.layers] == [True, True, True, False, True, True]
    short = of(tmp_path, "lfm2", {"attention.head_count_kv": [0, 2] * 3, "shortconv.l_cache": 3})
    assert [layer.state for layer in short.layers] == [128, 0] * 3


def test_experts_and_shared_caches_of_a_gguf_file(tmp_path: Path) -> None:
    more = {f"blk.{n}.ffn_down_exps.weight": (8, 64, 32) for n in range(1, 6)}
    keys = {"attention.head_count_kv": 2, "expert_count": 8, "expert_used_count": 2, "attention.shared_kv_layers": 2}
    layers = of(tmp_path, "qwen3moe", keys, more).layers
    assert [(layer.feed_forward, layer.experts, layer.experts_used) for layer in layers] == [(96, 0, 0)] + 5 * [
        (32, 8, 2)
    ]
    assert [layer.attention.shared for layer in layers if layer.attention] == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"attention.head_count_kv": 3}, "4 heads do not split over 3"),
        ({"attention.head_count_kv": [2, 2]}, "head_count_kv names 2 layers, the file has 6"),
        ({"block_count": 0}, "0 layers of width 64 are no decoder"),
        ({"block_count": 1_000_000}, "are no decoder"),
    ],
)
def test_contradictory_gguf_files(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        of(tmp_path, "llama", keys)


def test_a_split_file_is_read_whole(tmp_path: Path) -> None:
    keys = {**SIZES, "attention.head_count_kv": 2}
    written(tmp_path / "m-00001-of-00002.gguf", "llama", keys, {"token_embd.weight": (10, 64)})
    with pytest.raises(InputError, match=r"m-00002-of-00002\.gguf is missing beside it"):
        read_decoder(str(tmp_path / "m-00001-of-00002.gguf"))
    written(tmp_path / "m-00002-of-00002.gguf", "llama", {}, {"blk.0.ffn_down.weight": (64, 96)})
    assert set(read_decoder(str(tmp_path / "m-00001-of-00002.gguf")).tensors) == {
        "token_embd.weight",
        "blk.0.ffn_down.weight",
    }
    written(tmp_path / "m-00002-of-00002.gguf", "llama", {}, {"token_embd.weight": (10, 64)})
    with pytest.raises(InputError, match=r"repeats tensor 'token_embd\.weight' of another part"):
        read_decoder(str(tmp_path / "m-00001-of-00002.gguf"))


def test_presets_and_names_that_are_nothing(tmp_path: Path) -> None:
    assert read_decoder("Llama-3.1-8B").name == "llama-3.1-8b"
    with pytest.raises(InputError, match=r"is no folder, config\.json, \.gguf file or hub id, nor a preset; presets: "):
        read_decoder("llama-9")
    with pytest.raises(InputError, match="does not exist"):
        read_decoder(str(tmp_path / "gone.gguf"))


def test_where_a_model_was_found(tmp_path: Path) -> None:
    scaled = {**LLAMA, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}
    found = read_source(str(folder(tmp_path / "m", scaled)))
    assert (found.folder, found.file, found.rope_factors) == (tmp_path / "m", None, 4)
    alone = read_source(str(tmp_path / "m" / "config.json"))
    assert (alone.folder, alone.file, alone.rope_factors) == (None, None, 4)
    long = {**LLAMA, "rope_parameters": {"rope_type": "longrope", "long_factor": [1.0] * 4, "short_factor": [1.0] * 4}}
    assert read_source(str(folder(tmp_path / "l", long))).rope_factors == 8
    assert (read_source("llama-3.1-8b").rope_factors, read_source("llama-3-8b").rope_factors) == (64, 0)
    assert read_source("gemma-4-31b").rope_factors == 256
    file = written(tmp_path / "m.gguf", "llama", {**SIZES, "attention.head_count_kv": 2}, SHAPES)
    assert read_source(str(file)).file == file


@pytest.mark.parametrize("name", ["stories260K", "babyllama-tok105"])
def test_real_folders_have_the_tensors_that_their_config_says(shared_data: Path, name: str) -> None:
    model = shared_data / "models" / name
    assert read_decoder(str(model / "config.json")).tensors == read_decoder(str(model)).tensors
