from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.models.config import ModelShape, read_config

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
}


def folder(path: Path, config: Any) -> Path:
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def test_a_published_model(tmp_path: Path) -> None:
    shape = read_config(folder(tmp_path, LLAMA))
    assert shape == ModelShape("LlamaForCausalLM", 16, 2048, 32, 8, 64, 8192, 128256, True, 131072)
    # Llama-3.2-1B has 1,235,814,400 parameters by its model card.
    assert shape.parameters == 1_235_814_400


def test_what_may_be_left_out(tmp_path: Path) -> None:
    small = {k: v for k, v in LLAMA.items() if k not in ("num_key_value_heads", "head_dim", "tie_word_embeddings")}
    shape = read_config(folder(tmp_path, small))
    assert (shape.kv_heads, shape.head_dim, shape.tied, shape.quantized) == (32, 64, False, False)
    assert read_config(folder(tmp_path, LLAMA | {"quantization_config": {}})).quantized


def test_parameters_of_another_architecture_are_unknown(tmp_path: Path) -> None:
    assert read_config(folder(tmp_path, LLAMA | {"architectures": ["Qwen3MoeForCausalLM"]})).parameters is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no JSON object"),
        ({k: v for k, v in LLAMA.items() if k != "hidden_size"}, "lacks hidden_size"),
        ({k: v for k, v in LLAMA.items() if k != "vocab_size"}, "lacks vocab_size"),
        ({k: v for k, v in LLAMA.items() if k != "architectures"}, "names no architectures"),
        (LLAMA | {"architectures": []}, "names no architectures"),
        (LLAMA | {"architectures": "Llama"}, "names no architectures"),
        (LLAMA | {"num_hidden_layers": 0}, "num_hidden_layers must be a whole number"),
        (LLAMA | {"num_hidden_layers": "16"}, "num_hidden_layers must be a whole number"),
        (LLAMA | {"num_hidden_layers": True}, "num_hidden_layers must be a whole number"),
        (LLAMA | {"num_hidden_layers": 1.5}, "num_hidden_layers must be a whole number"),
        (LLAMA | {"num_key_value_heads": 5}, "do not split over 5"),
        (LLAMA | {"head_dim": None, "hidden_size": 2049}, "no multiple of 32 heads"),
        ({"architectures": ["Gemma3"], "text_config": {}}, "several modalities"),
    ],
)
def test_broken_configs(tmp_path: Path, config: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_config(folder(tmp_path, config))
    assert message in str(caught.value)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing does not exist"):
        read_config(tmp_path / "missing")
    with pytest.raises(InputError, match=r"has no config\.json"):
        read_config(tmp_path)
    with pytest.raises(InputError, match=r"config\.json is a file"):
        read_config(folder(tmp_path, LLAMA) / "config.json")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"is no JSON"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["stories260K", "babyllama-tok105"])
def test_real_models_have_the_parameters_that_their_config_says(shared_data: Path, name: str) -> None:
    import math

    from quantwise.formats.safetensors_header import read_folder

    model = shared_data / "models" / name
    assert read_config(model).parameters == sum(math.prod(e.shape) for e in read_folder(model).values())
