"""``auto`` on mixtures of experts: the experts that a file holds in one tensor share a type, and llama.cpp runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_gguf_architectures import divergence
from test_in_llamacpp import load
from tiny_models import TEXTS, write_tiny
from torch import Tensor

from meant_weights import meant_in_gguf
from quantwise.build.calibration import calibrate
from quantwise.build.held_out import divergences_of, held_out
from quantwise.build.preflight import check_recipes
from quantwise.build.walk import build
from quantwise.build.watch import set_aside
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.grids import ggml_library
from quantwise.plan.weights import artifact_bytes

pytestmark = pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)")
RECIPE = "rtn+auto:4.5bpw"
# One block of four experts, of which two are chosen.
MODELS: dict[str, dict[str, Any]] = {
    "mixtral": {"intermediate_size": 256},
    "qwen3_moe": {"moe_intermediate_size": 256, "head_dim": 64, "norm_topk_prob": True},
}
WIDE: dict[str, Any] = {"hidden_size": 256, "num_key_value_heads": 4, "num_hidden_layers": 1}
STACKS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Artifact]:
    model = tmp_path_factory.mktemp("model")
    write_tiny(model, request.param, **WIDE, **MODELS[request.param])
    artifact = build(model, [parse_recipe(RECIPE)], TEXTS, tmp_path_factory.mktemp("out"))[0]
    return request.param, model, artifact


def test_the_budget_is_held_to_and_planned(made: tuple[str, Path, Artifact]) -> None:
    _, model, artifact = made
    header = read_gguf_header(Path(artifact.location))
    assert artifact.bits_per_weight == header.bits_per_weight
    assert 4.3 < header.bits_per_weight <= 4.5
    stored = sum(tensor.bytes for tensor in header.tensors)
    assert 0.95 * artifact_bytes(RECIPE, model) < stored <= artifact_bytes(RECIPE, model)


def test_each_stack_is_one_choice(made: tuple[str, Path, Artifact]) -> None:
    _, _, artifact = made
    types = artifact.notes["types"]
    assert len(types) == 9
    units = [f"model.layers.0.mlp.experts.*.{part}.weight" for part in ("gate_proj", "up_proj", "down_proj")]
    stored = {tensor.name: tensor for tensor in read_gguf_header(Path(artifact.location)).tensors}
    for unit, part in zip(units, STACKS, strict=True):
        assert stored[f"blk.0.{part}.weight"].type == types[unit]
        assert len(stored[f"blk.0.{part}.weight"].shape) == 3
    assert stored["blk.0.ffn_gate_inp.weight"].type == "f32"
    assert len(set(types.values())) > 1


def test_the_measured_divergence_is_that_of_the_file(made: tuple[str, Path, Artifact]) -> None:
    kind, model, artifact = made
    live = load(model)
    live.load_state_dict(from_gguf(live.state_dict(), Path(artifact.location), rotated=kind == "mixtral"))
    data = held_out(model, watched_texts(model))
    assert artifact.notes["watched_tokens"] == int(data.positions.sum())
    found = divergences_of(data, live).sum() / data.positions.sum()
    assert np.isclose(found, artifact.notes["measured_divergence"], rtol=2e-3)


def test_stock_llama_cpp_runs_it(made: tuple[str, Path, Artifact]) -> None:
    _, model, artifact = made
    told = divergence(model, artifact.location)
    assert told.positions > 30
    assert told.median < 5 * artifact.notes["measured_divergence"] + 0.02


def watched_texts(model: Path) -> list[str]:
    from tokenizers import Tokenizer

    tokens = Tokenizer.from_file(str(model / "tokenizer.json"))
    aside = [list(s) for s, watched in set_aside(calibrate(model, TEXTS, 128, 0).sequences) if watched]
    return [text for text in TEXTS if tokens.encode(text).ids[:128] in aside]


def from_gguf(own: dict[str, Tensor], file: Path, *, rotated: bool) -> dict[str, Tensor]:
    """The weights of a mixture with one block as the file means them, by their names in Transformers."""
    values = meant_in_gguf(file)
    names = {
        "model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp",
        "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
        **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    }  # fmt: skip
    found = {}
    for name in own:
        inside = name.removeprefix("model.layers.0.")
        at = "" if inside == name else "blk.0."
        if inside == "mlp.experts.gate_up_proj":
            value = torch.cat([values["blk.0.ffn_gate_exps.weight"], values["blk.0.ffn_up_exps.weight"]], 1)
        elif inside == "mlp.experts.down_proj":
            value = values["blk.0.ffn_down_exps.weight"]
        else:
            value = values[f"{at}{names[inside.removesuffix('.weight')]}.weight"]
        if rotated and inside in ("self_attn.q_proj.weight", "self_attn.k_proj.weight"):
            # llama.cpp rotates neighbours, Transformers halves.
            value = value.reshape(4, value.shape[0] // 8, 2, -1).swapaxes(1, 2)
        found[name] = value.reshape(own[name].shape)
    return found


def test_experts_are_chosen_for_by_what_they_cost_together(tmp_path: Path) -> None:
    """With little room, matrices that hardly matter give way: here experts whose outputs are a hundredth as large."""
    from safetensors.torch import load_file, save_file

    (tmp_path / "model").mkdir()
    write_tiny(tmp_path / "model", "mixtral", **WIDE, **MODELS["mixtral"])
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if name.endswith(".w2.weight"):
            tensors[name] = tensors[name] / 100
    save_file(tensors, file, metadata={"format": "pt"})
    artifact = build(tmp_path / "model", [parse_recipe("rtn+auto:3.2bpw")], TEXTS, tmp_path / "out")[0]
    types = artifact.notes["types"]
    assert {kind for unit, kind in types.items() if "experts" in unit} == {"q2_k"}
    assert all(kind != "q2_k" for unit, kind in types.items() if "self_attn" in unit)


@pytest.mark.parametrize("recipe", ["distil+auto:4.5bpw", "distil+gptq:q4_k_m"])
def test_scales_of_experts_are_not_trained(tmp_path: Path, recipe: str) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    write_tiny(model, "mixtral", **WIDE, **MODELS["mixtral"])
    for refused in (lambda: build(model, [parse_recipe(recipe)], TEXTS, out),
                    lambda: check_recipes(model, [parse_recipe(recipe)])):  # fmt: skip
        with pytest.raises(InputError, match=r"scales of experts are not trained; leave distil\+ out"):
            refused()
    assert not list(out.glob("*"))
