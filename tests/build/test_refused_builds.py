"""What cannot be built is one clear line, and nothing is left behind."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TEXTS, write_tiny

from quantwise.build import beforehand
from quantwise.build.unfinished import Unfinished
from quantwise.build.walk import build
from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.recipe import parse_recipe

GPTQ = parse_recipe("gptq:int4-g64")
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_tiny(folder, "llama")
    return folder


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def change(model: Path, name: str, value: float, where: tuple[slice | int, ...]) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors[name][where] = value
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_are_not_finite_in_the_last_block(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for value in (torch.nan, torch.inf):
        change(model, "model.layers.1.mlp.down_proj.weight", value, (2, 3))
        with pytest.raises(InputError, match=r"layers\.1\.mlp\.down_proj.*NaN or infinite") as caught:
            build(model, [GPTQ, parse_recipe("rtn:int8-channel")], TEXTS, out)
        assert "\n" not in str(caught.value)
        assert not out.exists()


@pytest.mark.parametrize(
    "recipe", ["rtn:int4-g64", "gptq:int4-g64", "imatrix:q8_0", "gptq:q4_0", "q8_0", "f16", "16bit"]
)
@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight", "model.embed_tokens.weight", UP])
def test_weights_that_are_not_finite_anywhere(model: Path, tmp_path: Path, name: str, recipe: str) -> None:
    """In 32 bit, so that 16bit is a copy too."""
    tensors = {n: tensor.float() for n, tensor in load_file(model / "model.safetensors").items()}
    tensors[name].view(-1)[3] = torch.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"{name}.*NaN or infinite"):
        build(model, [parse_recipe(recipe)], TEXTS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rounding_to_sixteen_bit_is_a_degradation(model: Path, tmp_path: Path) -> None:
    recipes = [parse_recipe(r) for r in ("16bit", "gptq:int4-g64", "rtn:int8-channel", "gptq:q4_0")]
    tensors = {n: tensor.float() for n, tensor in load_file(model / "model.safetensors").items()}
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    for artifact in build(model, recipes, TEXTS, tmp_path / "out"):
        said = [d.what for d in artifact.degradations if d.where == "model"]
        assert said == ["stored in more than 16 bits; rounded to torch.bfloat16"], artifact.recipe
    save_file({n: t.bfloat16() for n, t in tensors.items()}, model / "model.safetensors", metadata={"format": "pt"})
    for artifact in build(model, recipes, TEXTS, tmp_path / "out"):
        assert not [d for d in artifact.degradations if "16 bits" in d.what], artifact.recipe


def test_what_overflows_as_it_is_rounded_to_sixteen_bit(model: Path, tmp_path: Path) -> None:
    tensors = {n: t if t.ndim < 2 else t.half() for n, t in load_file(model / "model.safetensors").items()}
    tensors["model.norm.weight"] = torch.full((64,), 70000.0)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model\.norm\.weight.*NaN or infinite"):
        build(model, [parse_recipe("rtn:int4-g64")], TEXTS, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
@pytest.mark.parametrize("recipe", ["rtn:int8-channel", "gptq:q4_0", "q8_0"])
def test_weights_that_are_not_finite_outside_of_the_blocks(model: Path, tmp_path: Path, name: str, recipe: str) -> None:
    change(model, name, torch.nan, (1,))
    with pytest.raises(InputError, match=rf"{name}.*NaN or infinite"):
        build(model, [parse_recipe(recipe)], TEXTS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("num_hidden_layers", 3, "has no tensor model.layers.2"),
        ("intermediate_size", 256, r"gate_proj.weight has shape \(128, 64\), and config.json of .* wants \(256, 64\)"),
        ("vocab_size", 400, r"embed_tokens.weight has shape \(300, 64\)"),
    ],
)
@pytest.mark.parametrize("recipe", ["int8-channel", "q8_0", "f16"])
def test_a_config_of_another_model(
    model: Path, tmp_path: Path, setting: str, value: int, why: str, recipe: str
) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {setting: value}))
    with pytest.raises(InputError, match=why):
        build(model, [parse_recipe(recipe)], TEXTS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shard_that_no_index_misses(model: Path, tmp_path: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    for lost in ("lm_head.weight", "model.layers.1.mlp.up_proj.weight"):
        save_file({n: t for n, t in tensors.items() if n != lost}, model / "model.safetensors")
        for recipe in ("q8_0", "int8-channel"):
            with pytest.raises(InputError, match=f"has no tensor {lost}; a file is missing"):
                build(model, [parse_recipe(recipe)], TEXTS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dead_channel_is_a_degradation(model: Path, tmp_path: Path) -> None:
    change(model, "model.layers.0.input_layernorm.weight", 0.0, (5,))
    artifact = build(model, [GPTQ], TEXTS, tmp_path / "out")[0]
    dead = [d for d in artifact.degradations if "1 of 64 input channels were silent" in d.what]
    assert {d.where for d in dead} == {f"model.layers.0.self_attn.{p}_proj" for p in "qkv"}


def test_a_calibration_set_of_one_token(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 1 token, and statistics want 16 or more; give more text, or use rtn"):
        build(made, [GPTQ], ["t"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_without_room_is_refused_before_anything_is_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(beforehand.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentFailure, match=r"needs .* of disk and .* has 97\.7 KiB free; free some space"):
        build(made, [GPTQ], TEXTS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_what_this_walk_left_counts_as_free(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "out" / ".walk-0123456789abcdef" / "recipe"
    other.mkdir(parents=True)
    with (other / "block-00000.safetensors").open("wb") as file:
        file.truncate(1 << 30)
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(beforehand.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentFailure, match=r"has 97\.7 KiB free"):
        build(made, [GPTQ], TEXTS, tmp_path / "out")
    place = Unfinished.take(tmp_path, "model").folder
    (place / "recipe").mkdir()
    (place / "recipe" / "block-00000.safetensors").write_bytes(bytes(1000))
    assert Unfinished.left_behind(tmp_path, "model") == 1000
    assert Unfinished.left_behind(tmp_path, "another") == 0


@pytest.mark.parametrize(("most", "kept"), [(10_000, False), (100_000, True)])
def test_a_file_that_may_not_grow_is_one_line_and_the_same_command_goes_on(
    made: Path, tmp_path: Path, most: int, kept: bool
) -> None:
    """The kernel refuses to write on, as a full disk does: in the first block, and while the artifact is written."""
    import signal

    out = tmp_path / "out"
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(EnvironmentFailure, match="cannot write gptq:int4-g64 to") as caught:
            build(made, [GPTQ], TEXTS[:2], out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert ("the same command goes on with the blocks that are finished" in str(caught.value)) == kept
    assert [p.name[:6] for p in out.iterdir()] == [".walk-"] * kept
    blocks: list[int] = []
    again = build(
        made, [GPTQ], TEXTS[:2], out, progress=lambda what, done, _: blocks.append(done) if "quant" in what else None
    )[0]
    assert blocks == ([2] if kept else [0, 1, 2])
    assert again.hash == build(made, [GPTQ], TEXTS[:2], tmp_path / "whole")[0].hash
    assert not list(out.glob(".*"))


def test_a_shard_that_is_missing_or_cut(model: Path, tmp_path: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    for file, part in (("a", names[:9]), ("b", names[9:])):
        save_file({n: tensors[n] for n in part}, model / f"{file}.safetensors", metadata={"format": "pt"})
    index = {"weight_map": {n: "a.safetensors" if n in names[:9] else "b.safetensors" for n in names}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    whole = (model / "b.safetensors").read_bytes()
    (model / "b.safetensors").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"b\.safetensors is damaged: its header describes"):
        build(model, [GPTQ], TEXTS, tmp_path / "out")
    (model / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot read .*b\.safetensors: No such file"):
        build(model, [GPTQ], TEXTS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_architecture_is_refused_with_what_has_no_place(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "bloom", "architectures": ["Bloom"]}))
    with pytest.raises(InputError, match=r"bloom.*self_attention\.query_key_value") as caught:
        build(model, [GPTQ], TEXTS, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
