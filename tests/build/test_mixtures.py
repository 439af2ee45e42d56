"""Recipes on mixtures of experts: built, read back by the runtime, and computed as their numbers mean; or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_gguf_architectures import FIXED
from tiny_models import TEXTS, write_tiny

from meant_weights import RoundsInputs, meant
from quantwise.build.experts import SeparateExperts
from quantwise.build.held_out import divergences, held_out
from quantwise.build.skeleton import Skeleton
from quantwise.build.walk import build
from quantwise.build.watch import whole
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.question import pose
from quantwise.question.request import Request
from quantwise.runtimes.transformers_folder import filled, model_of

KINDS = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe")
RECIPES = (
    "rtn:int8-channel", "gptq:int4-g32-asym", "w8a8", "smoothquant+rtn:w8a8", "fp8", "fp8-static",
    "rtn:int4-g32,layout=gptq", "awq+rtn:int4-g32-asym,layout=awq", "imatrix:int3-channel-asym",
    "rtn:layerwise-int4-g32",
)  # fmt: skip
REFUSED = {
    "nf4": "cannot hold this mixture of experts: bitsandbytes", "nf4-dq": "bitsandbytes", "llm-int8": "bitsandbytes",
    "distil+rtn:int4-g32": "scales of experts are not trained", "distil+gptq:q8_0": "scales of experts are not trained",
}  # fmt: skip


@pytest.fixture(scope="module", params=[KINDS[0], *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS[1:])])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny(folder, request.param, **FIXED.get(request.param, {}))
    return folder


@torch.no_grad()
def by_hand(source: Path, artifact: Path, ids: torch.Tensor) -> torch.Tensor:
    """Logits of the source's tree, experts separate, with the weights that the artifact means, slowly read."""
    skeleton = Skeleton(ModelFolder(source))
    stored = load_file(artifact / "model.safetensors")
    settings = json.loads((artifact / "config.json").read_text())["quantization_config"]
    inputs = (settings.get("config_groups") or {"group_0": {}})["group_0"].get("input_activations")
    weights = meant(artifact)
    with whole(skeleton) as live:
        for name, parameter in live.named_parameters():
            of_folder = skeleton.stored_name(name)
            layer = of_folder.removesuffix(".weight")
            value = weights[layer].float() if layer in weights else stored[of_folder].float()
            parameter.copy_(value.reshape(parameter.shape))
            if inputs and layer in weights:
                fixed = stored.get(f"{layer}.input_scale")
                path = name.removesuffix(".weight")
                old = live.get_submodule(path)
                assert isinstance(old, torch.nn.Linear)
                live.set_submodule(path, RoundsInputs(old, inputs["type"], None if fixed is None else float(fixed)))
        logits: torch.Tensor = live(input_ids=ids).logits[0]
    return logits


def test_they_compute_what_their_numbers_mean(model: Path, tmp_path: Path) -> None:
    data = held_out(model, TEXTS[:1])
    made = build(model, [parse_recipe(r) for r in RECIPES], [t * 3 for t in TEXTS], tmp_path)
    plain = next(data.reference())
    for recipe, artifact in zip(RECIPES, made, strict=True):
        wanted = by_hand(model, Path(artifact.location), data.ids[0]).log_softmax(-1)
        own = float((plain.exp() * (plain - wanted)).sum())
        # An FP8 code is far from the next; sums in another order make some inputs fall to it.
        give = 0.1 if recipe.startswith("fp8") else 0.02
        assert own > 0
        assert float(divergences(data, artifact).sum()) == pytest.approx(own, rel=give), recipe


@torch.no_grad()
def test_the_runtime_rounds_inputs_of_experts_too(model: Path, tmp_path: Path) -> None:
    """In bfloat16, as it is served; and each step of a generation, when few experts are chosen."""
    (artifact,) = build(model, [parse_recipe("w8a8")], [], tmp_path)
    live = model_of(Path(artifact.location))
    kinds = {type(m).__name__ for name, m in live.named_modules() if name.endswith(".experts")}
    assert "RoundedExperts" in kinds
    assert not [n for n, p in live.named_parameters() if re.search(r"experts|self_attn.._proj", n) and p.ndim > 1]
    data = held_out(model, TEXTS[:1])
    wanted = by_hand(model, Path(artifact.location), data.ids[0]).log_softmax(-1)
    ours = live(input_ids=data.ids[0]).logits[0].float().log_softmax(-1)
    assert float((wanted.exp() * (wanted - ours)).sum(-1).median()) < 2e-3
    assert live.generate(data.ids[0][:, :5], max_new_tokens=3, do_sample=False).shape[1] <= 8


@pytest.mark.parametrize("recipe", REFUSED)
def test_what_no_runtime_reads_is_refused_before_anything_is_built(model: Path, tmp_path: Path, recipe: str) -> None:
    for ask in (
        lambda: pose.fits_here(Request(model=model, candidates=("rtn:int8-channel", recipe), context=64)),
        lambda: build(model, [parse_recipe("rtn:int8-channel"), parse_recipe(recipe)], TEXTS, tmp_path),
    ):
        with pytest.raises(InputError, match=rf"{re.escape(parse_recipe(recipe).name)}.*{REFUSED[recipe]}"):
            ask()
    assert not list(tmp_path.iterdir())


def test_an_expert_whose_rows_do_not_split_is_refused_by_the_quick_look(tmp_path: Path) -> None:
    write_tiny(tmp_path, "mixtral", intermediate_size=96)
    with pytest.raises(InputError, match="cannot hold this mixture of experts: rows of 96 are no multiple of 64"):
        pose.fits_here(Request(model=tmp_path, candidates=("rtn:int4-g64",), context=64))


def test_an_expert_that_no_text_reached_has_no_fixed_scale(tmp_path: Path) -> None:
    write_tiny(tmp_path, "mixtral", num_local_experts=16, num_experts_per_tok=1)
    with pytest.raises(InputError, match=r"never reached .*, so its inputs have no fixed scale; give more texts"):
        build(tmp_path, [parse_recipe("w8a8-static")], ["just a few words to read"], tmp_path / "out")


def test_an_incomplete_layer_is_named(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from quantwise.core.errors import RuntimeFailure
    from quantwise.models.config import quantization_settings

    (artifact,) = build(model, [parse_recipe("rtn:int4-g32-asym")], [], tmp_path)
    file = Path(artifact.location) / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if ".experts.1." in name and name.endswith("weight_packed"))
    save_file({n: t for n, t in tensors.items() if n != gone}, file)
    with pytest.raises(RuntimeFailure, match=r"experts\.1\..* is no complete compressed-tensors layer"):
        filled(Path(artifact.location), quantization_settings(Path(artifact.location)), torch.float32)


def test_fused_and_separate_experts_are_one_function(model: Path) -> None:
    """What the tests above stand on: the tree of separate experts answers as Transformers' own does."""
    data = held_out(model, TEXTS[:1])
    skeleton = Skeleton(ModelFolder(model))
    with whole(skeleton) as live, torch.no_grad():
        assert any(isinstance(module, SeparateExperts) for module in live.modules())
        ours = live(input_ids=data.ids[0]).logits[0].log_softmax(-1)
    assert float((ours - next(data.reference())).abs().max()) < 1e-3
