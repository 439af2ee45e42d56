"""Layer-wise schemes: which matrix takes which of the two, and that libraries read it as it was meant."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.utils import match_named_modules, match_targets
from tiny_models import CONFIGS, TEXTS, write_tiny

from meant_weights import meant, model_of
from quantwise.build.skeleton import Skeleton
from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError
from quantwise.core.layerwise import Assignment
from quantwise.core.loads import kernel_lacks
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import RuntimeOptions
from quantwise.core.scheme import parse_scheme
from quantwise.formats.compressed_tensors import quantization_config
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.formats.safetensors_header import read_folder
from quantwise.plan.candidate_fit import Workload, plan_candidate
from quantwise.plan.weights import artifact_bytes
from quantwise.question.propose import parse
from quantwise.runtimes import runtime_named

FOLDERS = ("gptq:layerwise-int4-g64", "rtn:layerwise-int3-channel", "smoothquant+rtn:layerwise-w4a8")
PARTS = ("gptq:int4-g64", "gptq:int8-g64")
MIDDLE = re.compile(r"model\.layers\.[12]\.mlp\..*")


def write_deep(folder: Path, kind: str) -> None:
    """Four blocks, so that two are neither first nor last; rows of 128 and 256."""
    by_layer = {"layer_types": None, "no_rope_layers": None, "mlp_only_layers": []}
    changes = {name: value for name, value in by_layer.items() if name in CONFIGS[kind]}
    write_tiny(folder, kind, hidden_size=128, intermediate_size=256, num_hidden_layers=4, **changes)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_deep(folder, "mistral")
    return folder


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    names = (*FOLDERS, *PARTS)
    found = build(model, [parse_recipe(r) for r in names], TEXTS, tmp_path_factory.mktemp("out"))
    return dict(zip(names, found, strict=True))


def test_middle_feed_forward_layers_take_the_lower_scheme_and_all_else_the_higher(made: dict[str, Artifact]) -> None:
    """Each matrix is to the bit what the plain recipe of its own scheme makes of it."""
    mixed, low, high = (meant(Path(made[name].location)) for name in (FOLDERS[0], *PARTS))
    assert sum(bool(MIDDLE.match(name)) for name in mixed) == 6
    assert len(mixed) == 28
    for name, values in mixed.items():
        assert torch.equal(values, (low if MIDDLE.match(name) else high)[name]), name


@pytest.mark.parametrize("recipe", FOLDERS)
def test_transformers_answers_as_the_numbers_mean(model: Path, made: dict[str, Artifact], recipe: str) -> None:
    from transformers import AutoTokenizer

    options = RuntimeOptions(context=128, parallel=1, threads=1)
    with runtime_named("transformers").open(made[recipe], options) as session:
        places = session.next_token_logprobs(TEXTS[0], 300)  # type: ignore[attr-defined]
        held = session.footprint().weights_bytes
    wanted = model_of(model, Path(made[recipe].location))
    ids = AutoTokenizer.from_pretrained(model)(TEXTS[0])["input_ids"]
    with torch.no_grad():
        logits = wanted(torch.tensor([[wanted.config.eos_token_id, *ids]])).logits[0, :-1].float().log_softmax(-1)
    answered = torch.full_like(logits, float("nan"))
    for i, place in enumerate(places):
        answered[i, list(place)] = torch.tensor(list(place.values()))
    known = ~answered.isnan()
    assert known.float().mean() > 0.9
    assert float((logits - answered)[known].abs().mean()) < (0.05 if "a8" in recipe else 0.02)
    planned = plan_candidate(parse(made[recipe].location), None, Workload(64)).weights_bytes
    assert held == pytest.approx(planned, abs=2048)
    assert planned == plan_candidate(parse(recipe), model, Workload(64)).weights_bytes


@pytest.mark.parametrize("recipe", FOLDERS)
def test_bytes_are_planned_exactly(model: Path, made: dict[str, Artifact], recipe: str) -> None:
    stored = sum(entry.bytes for entry in read_folder(Path(made[recipe].location)).values())
    assert artifact_bytes(recipe, model) == stored


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_library_finds_the_group_that_was_meant(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of every architecture: by its own matching of names, and by the names in the folder, which planning reads. It
    warns of groups that it finds no layer for.
    """
    write_deep(tmp_path, kind)
    skeleton = Skeleton(ModelFolder(tmp_path))
    scheme, assigned = parse_scheme("layerwise-int4-g64"), Assignment.of(skeleton.source.entries)
    assert assigned.last == 3
    config = QuantizationConfig.model_validate(quantization_config(scheme, ["lm_head"], assigned))
    bits = {t: group.weights.num_bits for group in config.config_groups.values() for t in group.targets}
    seen = set()
    for index in range(4):
        for name in skeleton.linear_layers(index):
            module = skeleton.model.get_submodule(name)
            theirs = bits[match_targets(name, module, list(bits))[0]]
            spared = skeleton.architecture.tensor_class(name) == "attention" or index in (0, 3)
            if assigned.mixture:
                spared = ".experts." not in name
            assert theirs == (8 if spared else 4), name
            assert assigned.scheme_of(skeleton.stored_name(f"{name}.weight"), scheme).bits == theirs
            seen.add(theirs)
    assert seen == {4, 8}
    assert len(list(match_named_modules(skeleton.model, list(bits), ["lm_head"], warn_on_fail=True))) >= 24
    assert not [record for record in caplog.records if record.name.startswith("compressed_tensors")]


@pytest.mark.parametrize(("kind", "experts"), [("mixtral", "block_sparse_moe"), ("qwen3_moe", "mlp")])
def test_of_a_mixture_only_experts_take_the_lower_scheme(tmp_path: Path, kind: str, experts: str) -> None:
    """And Transformers, which unpacks experts and all else by a group each, reads both."""
    from transformers import AutoModelForCausalLM

    (tmp_path / "model").mkdir()
    write_tiny(tmp_path / "model", kind, hidden_size=128, intermediate_size=256)
    recipe = "rtn:layerwise-int4-g64"
    artifact = build(tmp_path / "model", [parse_recipe(recipe)], [], tmp_path / "out")[0]
    assert artifact_bytes(recipe, tmp_path / "model") == sum(
        entry.bytes for entry in read_folder(Path(artifact.location)).values()
    )
    values = meant(Path(artifact.location))
    live = AutoModelForCausalLM.from_pretrained(artifact.location, dtype=torch.float32)
    for layer in (0, 1):
        block, name = live.model.layers[layer], f"model.layers.{layer}"
        down = values[f"{name}.{experts}.experts.2.{'w2' if kind == 'mixtral' else 'down_proj'}"]
        query = values[f"{name}.self_attn.q_proj"]
        assert torch.equal(block.mlp.experts.down_proj[2], down.bfloat16().float())
        assert torch.equal(block.self_attn.q_proj.weight, query.bfloat16().float())
        assert len(down[0, :64].unique()) <= 15
        assert len(query[0, :64].unique()) > 20


def test_vllm_takes_rounded_inputs_on_a_cpu_and_no_eight_bits_alone(tmp_path: Path) -> None:
    assert kernel_lacks("vllm-cpu", parse_scheme("layerwise-w4a8")) is None
    why = kernel_lacks("vllm-cpu", parse_scheme("layerwise-int4-g128"))
    assert why is not None
    assert "layerwise-w4a8" in why


def test_two_layouts_in_one_folder_are_named_for_what_they_are(made: dict[str, Artifact]) -> None:
    """Eight-bit codes behind rounded inputs lie unpacked, four-bit ones packed."""
    settings = json.loads((Path(made[FOLDERS[2]].location) / "config.json").read_text())["quantization_config"]
    assert settings["format"] == "mixed-precision"
    assert [group["format"] for group in settings["config_groups"].values()] == ["int-quantized", "pack-quantized"]
    packed = {entry.name for entry in read_folder(Path(made[FOLDERS[2]].location)).values()}
    assert "model.layers.1.mlp.up_proj.weight_packed" in packed
    assert "model.layers.0.mlp.up_proj.weight" in packed


def test_a_model_whose_blocks_are_all_outermost_is_refused(tmp_path: Path) -> None:
    """With two blocks nothing would take the scheme that the recipe names."""
    (tmp_path / "model").mkdir()
    write_tiny(tmp_path / "model", "llama")
    with pytest.raises(InputError, match=r"rtn:layerwise-int4-g64 .* use rtn:int8-g64"):
        build(tmp_path / "model", [parse_recipe("rtn:layerwise-int4-g64")], [], tmp_path / "out")


@pytest.mark.long
def test_scales_of_both_schemes_are_trained(model: Path, made: dict[str, Artifact], tmp_path: Path) -> None:
    recipe = "distil+gptq:layerwise-int2-g64"
    artifact = build(model, [parse_recipe(recipe)], TEXTS, tmp_path)[0]
    told = artifact.notes["watched_divergence"]
    assert told["after"] < told["before"]
    plain = build(model, [parse_recipe("gptq:layerwise-int2-g64")], TEXTS, tmp_path)[0]
    trained, given = meant(Path(artifact.location)), meant(Path(plain.location))
    assert all(not torch.equal(values, given[name]) for name, values in trained.items())
    assert all(float((values - given[name]).norm() / given[name].norm()) < 0.2 for name, values in trained.items())
