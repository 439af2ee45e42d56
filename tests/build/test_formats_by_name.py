"""Every kind of recipe by its name, built in one walk."""

import json
from pathlib import Path

import pytest
import torch
from test_in_llamacpp import STORY, compare

from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.recipe import parse_recipe
from quantwise.formats.gguf.header import read_gguf_header

RECIPES = {
    "imatrix:int4-g32": "compressed-tensors",
    "smoothquant+gptq:w8a8": "compressed-tensors",
    "rtn:w8a8-static": "compressed-tensors",
    "fp8-static": "compressed-tensors",
    "fp8-weights": "compressed-tensors",
    "awq+gptq:int4-g32,layout=gptq": "gptq",
    "awq+rtn:int4-g32-asym,layout=awq": "awq",
    "nf4-dq": "bitsandbytes",
    "llm-int8": "bitsandbytes",
    "gptq:q4_0": "gguf",
    "awq+imatrix:q8_0": "gguf",
}


@pytest.fixture(scope="module")
def made(built, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:  # type: ignore[no-untyped-def]
    model, out = built.model, tmp_path_factory.mktemp("out")
    artifacts = build(model, [parse_recipe(r) for r in RECIPES], [built.text * 3] * 4, out)
    return {"model": Artifact(str(model), "safetensors", "", 0), **dict(zip(RECIPES, artifacts, strict=True))}


def logits(folder: str) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    with torch.no_grad():
        return model(torch.arange(2, 42).reshape(2, 20)).logits.float()


@pytest.mark.parametrize("name", RECIPES)
def test_its_format_and_record(made: dict[str, Artifact], name: str) -> None:
    artifact = made[name]
    assert (artifact.recipe, artifact.format) == (parse_recipe(name).name, RECIPES[name])
    assert artifact.bits_per_weight is not None
    assert artifact.bits_per_weight < 12
    if artifact.format != "gguf":
        assert "quantization_config" in json.loads((Path(artifact.location) / "config.json").read_text())


@pytest.mark.parametrize("name", [name for name, form in RECIPES.items() if form == "compressed-tensors"])
def test_transformers_reads_it_close_to_the_model(made: dict[str, Artifact], name: str) -> None:
    p, q = logits(made["model"].location).log_softmax(-1), logits(made[name].location).log_softmax(-1)
    assert 0 < float((p.exp() * (p - q)).sum(-1).mean()) < (0.1 if "int4" in name else 0.01)


def test_gptq_packs_the_matrices_of_blocks_and_rounding_the_rest(made: dict[str, Artifact]) -> None:
    header = read_gguf_header(Path(made["gptq:q4_0"].location))
    types = {t.name: t.type for t in header.tensors}
    assert types["blk.1.attn_q.weight"] == "q4_0"
    assert types["token_embd.weight"] not in ("f16", "q4_0")


@pytest.mark.parametrize(("name", "most"), [("gptq:q4_0", 0.5), ("awq+imatrix:q8_0", 1e-2)])
def test_llamacpp_computes_as_the_model_does(made: dict[str, Artifact], name: str, most: float) -> None:
    pytest.importorskip("xllamacpp")
    assert compare(Path(made["model"].location), made[name].location, [STORY]) < most
