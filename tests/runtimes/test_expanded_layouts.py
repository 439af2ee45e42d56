"""GPTQ and AWQ checkpoints, ours and as other tools write them, expanded to the numbers that they mean."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from quantwise.core.artifact import Artifact
from quantwise.core.errors import RuntimeFailure
from quantwise.runtimes.expanded_layouts import expanded, refuses
from quantwise.runtimes.transformers import Transformers
from quantwise.runtimes.transformers_folder import model_of

OUT, IN, GROUP = 32, 64, 16


def words(codes: list[int], bits: int) -> list[int]:
    """Codes as one stream of bits, cut into signed 32-bit words."""
    stream = sum(code << (bits * i) for i, code in enumerate(codes))
    found = [stream >> (32 * i) & 0xFFFFFFFF for i in range(len(codes) * bits // 32)]
    return [word - (1 << 32) if word >= 1 << 31 else word for word in found]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
def test_a_gptq_layer_whose_inputs_were_visited_in_another_order(tmp_path: Path, bits: int, form: str) -> None:
    rng = random.Random(bits)
    codes = [[rng.randrange(1 << bits) for _ in range(IN)] for _ in range(OUT)]
    zeros = [[rng.randrange(1, (1 << bits) - 1) for _ in range(OUT)] for _ in range(IN // GROUP)]
    scales = [[rng.uniform(0.01, 0.02) for _ in range(OUT)] for _ in range(IN // GROUP)]
    order = [i // GROUP for i in range(IN)]
    rng.shuffle(order)
    less = 1 if form == "gptq" else 0
    tensors = {
        "a.qweight": torch.tensor([words(row, bits) for row in codes], dtype=torch.int32).t().contiguous(),
        "a.qzeros": torch.tensor([words([z - less for z in row], bits) for row in zeros], dtype=torch.int32),
        "a.scales": torch.tensor(scales).half(),
        "a.g_idx": torch.tensor(order, dtype=torch.int32),
        "a.bias": torch.ones(OUT).half(),
        "b.weight": torch.arange(4).half(),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    found = expanded(tmp_path, {"quant_method": "gptq", "bits": bits, "checkpoint_format": form}, torch.float32)
    assert set(found) == {"a.weight", "a.bias", "b.weight"}
    half = torch.tensor(scales).half().float()
    for o in range(OUT):
        for i in range(IN):
            value = float(half[order[i], o]) * (codes[o][i] - zeros[order[i]][o])
            assert float(found["a.weight"][o, i]) == pytest.approx(value, abs=1e-6)


def test_an_awq_layer(tmp_path: Path) -> None:
    rng = random.Random(0)
    codes = [[rng.randrange(16) for _ in range(OUT)] for _ in range(IN)]
    zeros = [[rng.randrange(16) for _ in range(OUT)] for _ in range(IN // GROUP)]
    scales = torch.rand(IN // GROUP, OUT).half()
    nibbles = [0, 2, 4, 6, 1, 3, 5, 7]

    def packed(rows: list[list[int]]) -> torch.Tensor:
        turned = [[row[8 * w + n] for w in range(OUT // 8) for n in nibbles] for row in rows]
        return torch.tensor([words(row, 4) for row in turned], dtype=torch.int32)

    tensors = {"a.qweight": packed(codes), "a.qzeros": packed(zeros), "a.scales": scales}
    save_file(tensors, tmp_path / "model.safetensors")
    found = expanded(tmp_path, {"quant_method": "awq", "bits": 4, "version": "gemm"}, torch.float32)["a.weight"]
    for o in range(OUT):
        for i in range(IN):
            value = float(scales[i // GROUP, o]) * (codes[i][o] - zeros[i // GROUP][o])
            assert float(found[o, i]) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"quant_method": "gptq", "bits": 5}, "GPTQ with 5 bits is not read here"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint format 'marlin'"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "AWQ version 'gemv' with 4 bits"),
        ({"quant_method": "awq", "bits": 4, "version": "GEMM"}, None),
        ({"quant_method": "gptq", "bits": 3}, None),
    ],
)
def test_versions_that_are_not_read_are_refused_before_anything_is_loaded(
    tmp_path: Path, settings: dict[str, Any], why: str | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": settings}))
    told = Transformers().refuses(Artifact(str(tmp_path), settings["quant_method"], "", None))
    assert told == refuses(settings)
    assert (told is None) if why is None else (told is not None and why in told)


def test_a_layer_that_is_not_complete_is_named(tmp_path: Path) -> None:
    save_file({"m.a.qweight": torch.zeros(8, 32, dtype=torch.int32)}, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeFailure, match=r"layer m\.a is no complete GPTQ layer"):
        expanded(tmp_path, {"quant_method": "gptq", "bits": 4}, torch.float32)


def test_inputs_that_would_stay_as_they_are_are_refused(tmp_path: Path) -> None:
    """Where Transformers expands weights while it loads, it rounds no inputs, whatever the config says."""
    from quantwise.build.walk import build
    from quantwise.core.recipe import parse_recipe
    from quantwise.models import reference

    made = build(reference.path(), [parse_recipe("w8a8")], [], tmp_path)[0]
    config = json.loads((Path(made.location) / "config.json").read_text())
    config["quantization_config"]["dequantize"] = True
    (Path(made.location) / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeFailure, match=r"rounds inputs, but its config has Transformers expand its weights"):
        model_of(Path(made.location))
