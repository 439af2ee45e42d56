"""What cannot be built is one clear line, and nothing is left behind."""

from pathlib import Path

import pytest
import torch
from quantwise.build.estimate import estimate
from quantwise.build.tensor_bytes import bytes_in_folder
from safetensors.torch import load_file, save_file
from tiny_models import TEXTS, write_tiny

from quantwise.build.job import Job
from quantwise.build.skeleton import Skeleton
from quantwise.build.storage import storage_for
from quantwise.build.unfinished import Unfinished
from quantwise.build.walk import build
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.formats.safetensors_header import read_folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    write_tiny(folder, "llama")
    return folder


def change(model: Path, name: str, value: float, where: tuple[slice | int, ...]) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors[name][where] = value
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_in_the_last_block(model: Path, tmp_path: Path, value: float) -> None:
    change(model, "model.layers.1.mlp.down_proj.weight", value, (2, 3))
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.down_proj.*NaN or infinite") as caught:
        build(model, [parse_recipe("gptq:int4-g64"), parse_recipe("rtn:int8-channel")], TEXTS, out)
    assert "\n" not in str(caught.value)
    assert not list(out.iterdir())


def test_a_dead_channel_is_a_degradation(model: Path, tmp_path: Path) -> None:
    change(model, "model.layers.0.input_layernorm.weight", 0.0, (5,))
    artifact = build(model, [parse_recipe("gptq:int4-g64")], TEXTS, tmp_path / "out")[0]
    dead = [d for d in artifact.degradations if "1 of 64 input channels were silent" in d.what]
    assert {d.where for d in dead} == {f"model.layers.0.self_attn.{p}_proj" for p in "qkv"}


def test_a_calibration_set_of_one_token(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 1 tokens?, fewer than 16"):
        build(model, [parse_recipe("gptq:int4-g64")], ["t"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_estimate_counts_its_terms(model: Path, tmp_path: Path) -> None:
    skeleton = Skeleton(source := ModelFolder(model))
    kept = Unfinished.take(tmp_path / "out", "x")
    from quantwise.build.artifact_folder import Ingredients
    from quantwise.build.calibration import calibrate

    recipe = parse_recipe("gptq:int4-g64")
    batches = list(calibrate(model, TEXTS, 64, 0).batches())
    found = estimate(skeleton, [Job(Ingredients(recipe, "", None), storage_for(recipe, source), kept)], batches)
    kept.forget()
    tokens = sum(batch.ids.numel() for batch in batches)
    attention = (64 * 64 + 64) * 2 + (32 * 64 + 32) * 2
    assert found.block == 4 * (attention + 3 * 64 * 128 + 2 * 64)
    assert found.hidden == 4 * tokens * 64
    assert found.embeddings == 4 * 300 * 64
    # q, k and v read one input, o another, gate and up one, down another; o's is as wide as q's and counted with it.
    assert found.statistics == 8 * (64**2 + 64**2 + 128**2)
    assert found.sentence().startswith("this job needs")


def test_bytes_by_class_add_up(model: Path, tmp_path: Path) -> None:
    artifact = build(model, [parse_recipe("rtn:int4-g64")], [], tmp_path / "out")[0]
    spent = bytes_in_folder(read_folder(Path(artifact.location)).values())
    assert sum(spent.values()) * 8 / artifact.bits_per_weight == pytest.approx(
        sum(tensor.numel() for tensor in load_file(model / "model.safetensors").values())
    )
    assert spent["embeddings"] == spent["output"] == 2 * 300 * 64
    assert spent["feed-forward"] == 2 * 3 * 64 * 128 // 2
    assert spent["norms"] == 2 * 5 * 64
    assert spent["attention"] == 2 * (2 * 96 * 64 // 2 + 2 * 192)
