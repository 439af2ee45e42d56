"""Quantized folders of the reference model on torch's kernels: same answers, stored codes, planned bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from meant_weights import meant
from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.errors import RuntimeFailure
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import Ask, RuntimeOptions
from quantwise.formats.safetensors_header import read_folder
from quantwise.models import reference
from quantwise.models.config import folder_format, quantization_settings
from quantwise.plan.candidate_fit import Workload, plan_candidate
from quantwise.question.propose import parse
from quantwise.runtimes import transformers_folder
from quantwise.runtimes.packed_folder import packed_model
from quantwise.runtimes.packed_linear import PackedInt4, PackedInt8
from quantwise.runtimes.rounded_inputs import RoundedLinear
from quantwise.runtimes.stored_layer import PARTS, SCALE, stored_layer
from quantwise.runtimes.transformers import Transformers
from quantwise.testing.runtime_contract import check_session

PACKED = [
    "rtn:int8-channel", "rtn:int4-g64", "rtn:int4-g64-asym", "rtn:int4-channel", "rtn:int4-tensor",
    "rtn:int4-g64,layout=gptq", "rtn:int8-channel,layout=gptq", "rtn:int4-g128-asym,layout=awq",
    "layerwise-int4-channel",
]  # fmt: skip
ROUNDED = ["w8a8"]
EXPANDED = ["rtn:int3-g64", "rtn:int8-g64", "w4a8", "fp8"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    names = [*PACKED, *ROUNDED, *EXPANDED]
    made = build(reference.path(), [parse_recipe(name) for name in names], [], tmp_path_factory.mktemp("made"))
    return {name: Path(artifact.location) for name, artifact in zip(names, made, strict=True)}


def logits(model: nn.Module, columns: int) -> torch.Tensor:
    ids = torch.randint(2, 2000, (2, columns), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model(ids).logits.float()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", PACKED)
def test_answers_are_those_of_the_stored_numbers(name: str, folders: Mapping[str, Path]) -> None:
    """In float32, where orders of summing are all that is left of a difference, few rows and many."""
    folder, settings = folders[name], quantization_settings(folders[name])
    packed = packed_model(folder, settings, torch.float32)
    assert packed is not None
    plain = AutoModelForCausalLM.from_pretrained(reference.path(), dtype=torch.float32).eval()
    values = meant(folder)
    assert len(values) == 28
    for layer, weight in values.items():
        plain.get_submodule(layer).weight.data = weight
    for columns in (2, 40):
        one, two = logits(packed, columns), logits(plain, columns)
        p, q = two.log_softmax(-1), one.log_softmax(-1)
        assert abs(float((p.exp() * (p - q)).sum(-1).mean())) < 1e-5
        assert torch.equal(one.argmax(-1), two.argmax(-1))


@pytest.mark.parametrize("name", PACKED)
def test_codes_are_the_stored_ones_and_no_linear_layer_is_left(name: str, folders: Mapping[str, Path]) -> None:
    folder, settings = folders[name], quantization_settings(folders[name])
    model = packed_model(folder, settings, torch.bfloat16)
    assert model is not None
    method, entries = str(settings["quant_method"]), read_folder(folder)
    layers = [n.removesuffix(f".{SCALE[method]}") for n in entries if n.endswith(SCALE[method])]
    assert len(layers) == 28
    for layer in layers:
        own = {p: stored_tensor(folder, f"{layer}.{p}") for p in PARTS[method] if f"{layer}.{p}" in entries}
        module = model.get_submodule(layer)
        assert isinstance(module, PackedInt8 | PackedInt4)
        assert torch.equal(module.codes(), stored_layer(own, settings).codes)
    left = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    assert left == ["lm_head"]


def stored_tensor(folder: Path, name: str) -> torch.Tensor:
    from quantwise.formats.safetensors_folder import ModelFolder

    return ModelFolder(folder, quantized=True)[name]


@pytest.mark.parametrize("name", [*PACKED, *ROUNDED, *EXPANDED])
def test_sessions_say_how_they_compute_and_hold_the_planned_bytes(name: str, folders: Mapping[str, Path]) -> None:
    folder = folders[name]
    artifact = Artifact(str(folder), folder_format(folder), "", None)
    with Transformers().open(artifact, RuntimeOptions(context=256)) as session:
        session.ask([Ask(text="once upon a time", max_tokens=2)])
        found = session.footprint()
    assert found.executes == ("dequantized" if name in EXPANDED else "packed")
    for candidate, model in ((f"{name}@transformers", reference.path()), (str(folder), None)):
        read = parse(candidate)
        assert read.computes_as_stored == (name not in EXPANDED)
        planned = plan_candidate(read, model, Workload(256)).weights_bytes
        assert planned is not None
        # The plan counts no buffers of the model itself: the frequencies of its rotary embedding.
        assert found.weights_bytes is not None
        assert 0 <= found.weights_bytes - planned <= 512


@pytest.mark.parametrize("name", ["rtn:int8-channel", "rtn:int4-g64-asym"])
def test_the_contract_is_kept(
    name: str, folders: Mapping[str, Path], options: RuntimeOptions, prompts: list[str]
) -> None:
    artifact = Artifact(str(folders[name]), "compressed-tensors", "", None)
    with Transformers().open(artifact, options) as session:
        check_session(session, prompts)


def test_a_tree_that_names_its_layers_otherwise_is_expanded(tmp_path: Path, folders: Mapping[str, Path]) -> None:
    """Nothing is packed in part: a layer without a place in the tree leaves the folder to the dequantized path."""
    settings = quantization_settings(folders["rtn:int4-g64"])
    for file in folders["rtn:int4-g64"].iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())
    config["num_hidden_layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert packed_model(tmp_path, settings, torch.bfloat16) is None


def test_rounded_inputs_are_multiplied_in_eight_bits(folders: Mapping[str, Path]) -> None:
    model = transformers_folder.model_of(folders["w8a8"])
    kinds = [type(m) for m in model.modules() if isinstance(m, nn.Linear | RoundedLinear)]
    assert kinds.count(RoundedLinear) == 28
    assert kinds.count(nn.Linear) == 1


def test_elsewhere_than_on_a_processor_weights_are_expanded_and_said_to_be(
    folders: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way to a GPU, walked on the processor under its other name."""
    monkeypatch.setattr(transformers_folder, "device", lambda: "cpu:0")
    for name in ("rtn:int8-channel", "rtn:int4-g64,layout=gptq"):
        artifact = Artifact(str(folders[name]), folder_format(folders[name]), "", None)
        with Transformers().open(artifact, RuntimeOptions(context=256)) as session:
            (reply,) = session.ask([Ask(text="once upon a time", max_tokens=2)])
            assert (reply.error, session.footprint().executes) == (None, "dequantized")
    rounding = Artifact(str(folders["w8a8"]), "compressed-tensors", "", None)
    with (
        pytest.raises(RuntimeFailure, match="rounds inputs, which is computed here on a processor only; unset QUANT"),
        Transformers().open(rounding, RuntimeOptions(context=256)),
    ):
        pass
