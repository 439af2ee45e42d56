"""A quantized folder is planned as it is stored, and so is a config.json that says how."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.models.from_config import decoder_of
from quantwise.planning import PlanRequest, plan

LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 128256, "max_position_embeddings": 8192, "tie_word_embeddings": False,
}  # fmt: skip
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}


def config(folder: Path, settings: object) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": settings}))
    return str(folder / "config.json")


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        (GPTQ, "rtn:int4-g128,layout=gptq"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, "rtn:int4-g128-asym,layout=awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
    ],
    ids=["gptq", "awq", "nf4"],
)
def test_a_config_is_planned_as_it_says(settings: dict[str, Any], same: str, tmp_path: Path) -> None:
    runtime = "transformers" if same == "nf4" else "vllm"
    found = plan(PlanRequest((config(tmp_path / "own", settings),), runtime=runtime, site="h100"))
    assert [row["scheme"] for row in found["candidates"]] == ["stored"]
    (tmp_path / "plain.json").write_text(json.dumps(LLAMA))
    made = plan(PlanRequest((str(tmp_path / "plain.json"),), runtime=runtime, site="h100", schemes=(same,)))
    for key in ("weights_bytes", "weights_effective_bytes", "total_bytes", "kv_cache_bytes"):
        assert found[key] == made[key], key
    assert found["weights_effective_bytes"] < 6 << 30


def test_layers_that_stay_in_16_bit_are_counted(tmp_path: Path) -> None:
    left = GPTQ | {"dynamic": {r"-:^model\.layers\.0\.mlp\.down_proj$": {}}}
    sizes = [
        plan(PlanRequest((config(tmp_path, settings),), runtime="vllm", site="h100"))["weights_effective_bytes"]
        for settings in (GPTQ, left)
    ]
    rows, columns = 4096, 14336
    packed = rows * columns // 2 + rows * columns // 128 * 4 // 8 + rows * columns // 128 * 2 + 4 * columns
    assert sizes[1] - sizes[0] == 2 * rows * columns - packed


def test_another_scheme_of_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is quantized \(gptq\), planned as it is"):
        plan(PlanRequest((config(tmp_path, GPTQ),), runtime="vllm", site="h100", schemes=("16bit",)))


def test_llamacpp_does_not_load_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not gptq, which runs in transformers or vllm"):
        plan(PlanRequest((config(tmp_path, GPTQ),), site="h100"))


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "compressed-tensors"},
        {"quant_method": "compressed-tensors", "config_groups": {"a": "linear"}},
        {"quant_method": "gptq", "bits": "four"},
        GPTQ | {"bits": 0},
        GPTQ | {"dynamic": {"-:(": {}}},
        "gptq",
    ],
)
def test_what_a_config_does_not_tell_is_refused(settings: object, tmp_path: Path) -> None:
    path = config(tmp_path, settings)
    with pytest.raises(InputError, match="does not tell what its weights take"):
        plan(PlanRequest((path,), runtime="vllm", site="h100"))


def test_a_method_that_nobody_here_reads_stands_first_and_is_said(tmp_path: Path) -> None:
    found = plan(PlanRequest((config(tmp_path, {"quant_method": "fp8"}),), runtime="vllm", site="h100"))
    assert list(found["refused"]) == ["stored@vllm"]


def test_a_folder_is_what_its_headers_say(tmp_path: Path) -> None:
    weights = {"num_bits": 4, "group_size": 128, "strategy": "group", "symmetric": True, "type": "int"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    settings = {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}
    config(tmp_path, settings)
    header: dict[str, Any] = {}
    end = 0

    def put(name: str, dtype: str, shape: list[int], size: int) -> None:
        nonlocal end
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end := end + size]}

    for name, shape in decoder_of(LLAMA, "m").tensors.items():
        if ".layers." in name and len(shape) == 2:
            rows, columns = shape
            put(f"{name}_packed", "I32", [rows, columns // 8], rows * columns // 2)
            put(f"{name}_scale", "BF16", [rows, columns // 128], rows * columns // 64)
            put(f"{name}_shape", "I64", [2], 16)
        else:
            put(name, "BF16", list(shape), 2 * math.prod(shape))
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    found = plan(PlanRequest((str(tmp_path),), runtime="vllm", site="h100"))
    assert [row["scheme"] for row in found["candidates"]] == ["stored"]
    assert found["weights_effective_bytes"] == end
    (tmp_path / "model.safetensors").unlink()
    described = plan(PlanRequest((str(tmp_path),), runtime="vllm", site="h100"))
    assert described["total_bytes"] == found["total_bytes"]
