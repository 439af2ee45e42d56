"""The walk: statistics, what stays in 16 bit, reuse, refusals, and artifacts that stock Transformers loads."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import write_tiny

from quantwise.build import calibration
from quantwise.build.calibration import Sample, calibrate
from quantwise.build.skeleton import Skeleton
from quantwise.build.stream import walk_blocks
from quantwise.build.walk import build
from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.recipe import parse_recipe
from quantwise.formats.content_hash import content_hash
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.integer import integer_grid
from quantwise.quantize.gptq import Gptq
from quantwise.quantize.rtn import RoundToNearest


def load(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def hessian_by_hooks(model_dir: Path, sequences: tuple[tuple[int, ...], ...]) -> dict[str, torch.Tensor]:
    """The obvious version: the whole model on one sequence at a time, without padding."""
    model = load(model_dir).float()
    sums: dict[str, torch.Tensor] = {}

    def hook(name: str):  # type: ignore[no-untyped-def]
        def add(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            x = args[0][0].double()
            sums[name] = sums.get(name, 0) + x.T @ x

        return add

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.register_forward_pre_hook(hook(name))
    with torch.no_grad():
        for sequence in sequences:
            model(torch.tensor([sequence]))
    return sums


def test_statistics_equal_those_of_the_whole_model_run_text_by_text(built, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    # In float32 all the way, so that only the way is compared.
    monkeypatch.setattr("quantwise.build.stream.products_in", lambda dtype: nullcontext())
    data = calibrate(built.model, ["One two 34.", "The small dog " * 9, "x", "ran 3.75 km " * 5], 64, 0)
    slow = hessian_by_hooks(built.model, data.sequences)
    blocks = walk_blocks(Skeleton(ModelFolder(built.model)), list(data.batches(200)))
    found = {name: seen.values["hessian"] for block in blocks for name, seen in block.items()}
    assert found.keys() == slow.keys()
    for name, hessian in found.items():
        assert torch.allclose(hessian, slow[name], rtol=1e-4, atol=1e-4 * float(slow[name].abs().max())), name
    assert found["model.layers.0.self_attn.q_proj"] is found["model.layers.0.self_attn.v_proj"]


def test_calibration_is_seeded_cut_and_hashed(built, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    texts = [f"text number {i} " * 8 for i in range(40)]
    monkeypatch.setattr(calibration, "MOST_TOKENS", 200)
    one, again, other = (calibrate(built.model, texts, 50, seed) for seed in (1, 1, 2))
    assert one == again
    assert one.hash != other.hash
    assert one.tokens == 200
    assert max(map(len, one.sequences)) <= 50
    assert 4 <= len(one.sequences) == 40 - one.unread
    assert f"reads {len(one.sequences)} of 40 texts, 200 tokens" in one.sentence
    every = [calibrate(built.model, Sample(tuple(texts)), 50, seed) for seed in (1, 2)]
    assert {(len(data.sequences), data.unread, data.hash) for data in every} == {(40, 0, every[0].hash)}
    with pytest.raises(InputError, match="no text"):
        calibrate(built.model, ["", ""], 50, 0)


def test_texts_left_unread_are_told_and_recorded(built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(calibration, "MOST_TOKENS", 100)
    told: list[str] = []
    recipes = [parse_recipe("gptq:int4-g64"), parse_recipe("rtn:int8-channel")]
    texts = [f"text number {i} " * 8 for i in range(9)]
    made = build(built.model, recipes, texts, tmp_path, tell=told.append)
    read = made[0].notes["calibration"]
    assert read["of"] == 9 > read["texts"]
    assert read["tokens"] == 100
    assert told[0].startswith(f"calibration reads {read['texts']} of 9 texts, 100 tokens; ")
    assert not made[1].notes
    whole = build(built.model, recipes, Sample(tuple(texts)), tmp_path)[0]
    assert whole.notes["calibration"]["texts"] == 9
    assert whole.hash != made[0].hash


@pytest.mark.parametrize(
    "name", ["rtn:int8-channel", "rtn:int4-g64", "gptq:int4-g64", "gptq:int4-g64-asym", "rtn:int4-tensor"]
)
def test_stock_transformers_loads_exactly_the_weights_that_were_chosen(built, name: str) -> None:  # type: ignore[no-untyped-def]
    source, recipe = ModelFolder(built.model), parse_recipe(name)
    model = load(Path(built.artifacts[name].location))
    with torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))  # the first call unpacks
    data = calibrate(built.model, texts(built), 256, 1)
    blocks = walk_blocks(Skeleton(ModelFolder(built.model)), list(data.batches()))
    statistics = {name: seen.values["hessian"] for block in blocks for name, seen in block.items()}
    for layer, hessian in statistics.items():
        read, weight = model.get_submodule(layer).weight.detach(), source[f"{layer}.weight"]
        assert read.dtype == torch.bfloat16
        if not recipe.scheme.divides(weight.shape[1]):
            assert torch.equal(read, weight)
            continue
        quantizer = Gptq() if recipe.quantizer == "gptq" else RoundToNearest()
        made = quantizer(weight.float(), integer_grid(recipe.scheme), {"hessian": hessian})
        assert torch.equal(read, made.dequantized.bfloat16()), layer
    for kept in ("model.embed_tokens.weight", "model.norm.weight"):
        assert torch.equal(model.get_parameter(kept), source[kept])


def texts(built) -> list[str]:  # type: ignore[no-untyped-def]
    return [built.text * n for n in (1, 2, 3, 1)]


def test_rows_that_do_not_split_stay_and_are_recorded(built) -> None:  # type: ignore[no-untyped-def]
    artifact = built.artifacts["rtn:int4-g64"]
    assert {d.where for d in artifact.degradations} == {f"model.layers.{i}.mlp.down_proj" for i in (0, 1)}
    config = json.loads((Path(artifact.location) / "config.json").read_text())
    assert "model.layers.0.mlp.down_proj" in config["quantization_config"]["ignore"]
    assert built.artifacts["rtn:int8-channel"].degradations == ()


def test_a_recipe_that_would_change_nothing_is_refused(tmp_path: Path) -> None:
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    write_tiny(narrow, "llama", intermediate_size=96)
    with pytest.raises(InputError, match="would change nothing"):
        build(narrow, [parse_recipe("rtn:int4-g128")], [], tmp_path / "out")


def test_bits_per_weight_add_up(built) -> None:  # type: ignore[no-untyped-def]
    bits = {name: a.bits_per_weight for name, a in built.artifacts.items()}
    assert bits["16bit"] == 16
    assert bits["rtn:int4-tensor"] < bits["rtn:int4-g64"] < bits["gptq:int4-g64-asym"] < bits["rtn:int8-channel"] < 16
    assert bits["q4_0"] < bits["q8_0"] < bits["f16"] == pytest.approx(16, abs=0.1)


def test_names_and_hashes_are_those_of_the_files(built) -> None:  # type: ignore[no-untyped-def]
    for name, artifact in built.artifacts.items():
        assert artifact.recipe == parse_recipe(name).name
        assert artifact.hash == content_hash(Path(artifact.location))
        assert artifact.bytes is not None
    assert Path(built.artifacts["16bit"].location) == built.model
    assert not list(built.out.glob(".draft*"))


def test_gguf_types_are_as_planned(built) -> None:  # type: ignore[no-untyped-def]
    header = read_gguf_header(Path(built.artifacts["q4_0"].location))
    types = {t.name: t.type for t in header.tensors}
    assert types["blk.0.attn_q.weight"] == types["blk.1.ffn_down.weight"] == "q4_0"
    assert types["token_embd.weight"] == "q8_0"
    assert types["output_norm.weight"] == "f32"
    assert (header.architecture, header.context_length) == ("llama", 256)
    assert header.chat_template == "{{ messages[0]['content'] }}"
    assert [d.where for d in built.artifacts["q4_0"].degradations] == ["token_embd.weight"]


@pytest.mark.parametrize("keep", [0, 3, 30, 5000, -1])
def test_a_truncated_gguf_is_refused(built, tmp_path: Path, keep: int) -> None:  # type: ignore[no-untyped-def]
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(Path(built.artifacts["q8_0"].location).read_bytes()[:keep])
    with pytest.raises(InputError, match=r"bad\.gguf"):
        read_gguf_header(bad)


def test_the_same_request_finds_the_same_artifacts(built) -> None:  # type: ignore[no-untyped-def]
    recipes = [parse_recipe(name) for name in ("gptq:int4-g64", "q8_0")]
    before = {p: p.stat().st_mtime_ns for p in built.out.rglob("*") if p.is_file()}
    found = build(built.model, recipes, texts(built), built.out, seed=1)
    assert found == [built.artifacts["gptq:int4-g64"], built.artifacts["q8_0"]]
    assert {p: p.stat().st_mtime_ns for p in built.out.rglob("*") if p.is_file()} == before


def test_other_calibration_is_another_artifact_and_equal_builds_are_equal_bytes(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    recipe = parse_recipe("gptq:int4-g64")
    same = build(built.model, [recipe], texts(built), tmp_path, seed=1)[0]
    assert same.hash == built.artifacts["gptq:int4-g64"].hash
    other = build(built.model, [recipe], ["quite another text " * 20], tmp_path, seed=1)[0]
    assert other.location != same.location
    assert other.hash != same.hash


def damaged(built, tmp_path: Path, change: str) -> Path:  # type: ignore[no-untyped-def]
    folder = tmp_path / "damaged"
    shutil.copytree(built.model, folder)
    weights = folder / "model.safetensors"
    match change:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "nan":
            tensors = load_file(weights)
            tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = torch.nan
            save_file(tensors, weights, metadata={"format": "pt"})
        case "no config":
            (folder / "config.json").unlink()
        case "other architecture":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt_neox"}))
        case "quantized":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {}}))
    return folder


@pytest.mark.parametrize("recipe", ["q8_0", "rtn:int4-g64"])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("truncated", "model.safetensors is damaged"),
        ("nan", r"layers\.1\.mlp\.up_proj\.weight.*NaN"),
        ("no config", "config.json"),
        ("other architecture", "neox|no decoder blocks|another model"),
        ("quantized", "quantized already"),
    ],
)
def test_bad_models_are_one_clear_line_and_nothing_is_written(
    built, tmp_path: Path, recipe: str, change: str, why: str
) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    with pytest.raises(InputError, match=why) as caught:
        build(damaged(built, tmp_path, change), [parse_recipe(recipe)], [], out)
    assert "\n" not in str(caught.value)
    assert not out.exists() or not list(out.iterdir())


def test_gptq_without_text_and_a_missing_folder_are_refused(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="calibration"):
        build(built.model, [parse_recipe("gptq:int4-g64")], [], tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        build(tmp_path / "nowhere", [parse_recipe("q8_0")], [], tmp_path)


def test_an_out_folder_that_cannot_be_one_is_refused_before_anything_is_made(  # type: ignore[no-untyped-def]
    built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="file is a file where a folder should be; choose another --out"):
            build(built.model, [parse_recipe("q8_0")], [], out)
    # Root may write everywhere, so that the kernel's answer is given here.
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(EnvironmentFailure, match="may not be written into; choose another --out"):
        build(built.model, [parse_recipe("q8_0")], [], tmp_path / "new" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_float32_model_gets_a_16_bit_artifact(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    wide = tmp_path / "wide"
    shutil.copytree(built.model, wide)
    tensors = {k: v.float() * 1.0001 for k, v in load_file(wide / "model.safetensors").items()}
    save_file(tensors, wide / "model.safetensors", metadata={"format": "pt"})
    artifact = build(wide, [parse_recipe("16bit")], [], tmp_path / "out")[0]
    read = load_file(Path(artifact.location) / "model.safetensors")
    assert all(torch.equal(read[name], tensor.bfloat16()) for name, tensor in tensors.items())
    assert json.loads((Path(artifact.location) / "config.json").read_text())["dtype"] == "bfloat16"
    assert artifact.degradations
