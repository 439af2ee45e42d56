"""What a build says it will write is what it writes at most, and not much more."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_auto import write_wide
from tiny_models import TEXTS

from quantwise.build.walk import build
from quantwise.core.recipe import parse_recipe
from quantwise.formats.safetensors_folder import side_files
from quantwise.formats.safetensors_header import read_folder
from quantwise.grids import ggml_library
from quantwise.models.config import read_config
from quantwise.plan.build_job import Texts, artifact_bytes_at_most, plan_build

MIXES = ["q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k", "q8_0", "q4_0", "q4_1",
         "q5_0", "q5_1", "f16", "bf16"]  # fmt: skip
FOLDERS = ["rtn:int2-g32-asym", "rtn:int4-g64,layout=gptq", "rtn:int4-g64,layout=awq", "nf4", "nf4-dq", "llm-int8",
           "fp8", "w8a8", "w4a8"]  # fmt: skip


def real(place: Path) -> int:
    """Bytes of an artifact's folder, the tokenizer's copies left out."""
    copied = {file.name for file in side_files(place)} - {"quantize_config.json"}
    return sum(file.stat().st_size for file in place.iterdir() if file.name not in copied)


@pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)")
@pytest.mark.parametrize("untied", [False, True])
def test_artifacts_are_no_larger_than_planned(tmp_path: Path, untied: bool) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_wide(model, tied=not untied)
    recipes = [parse_recipe(text) for text in (*MIXES, *FOLDERS)]
    shape, entries = read_config(model), read_folder(model)
    beside = sum(file.stat().st_size for file in side_files(model))
    for artifact, recipe in zip(build(model, recipes, TEXTS, tmp_path / "out"), recipes, strict=True):
        held = real(Path(artifact.location) if Path(artifact.location).is_dir() else Path(artifact.location).parent)
        planned = artifact_bytes_at_most(entries, recipe, shape)
        gguf = recipe.scheme.format == "gguf"
        assert held <= planned + 2 * beside * gguf, recipe.name
        # What is not tensors is small beside a model of any use: here it is counted.
        assert planned <= held + 5 * 200 * len(entries), recipe.name
        assert artifact_bytes_at_most(entries, recipe) >= 0.99 * (held - 2 * beside * gguf), recipe.name


def test_disk_is_enough_while_everything_lies_there(tmp_path: Path) -> None:
    """The most that is there at any step of a walk with passes of its own."""
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    write_wide(model)
    recipes = [parse_recipe(r) for r in ("gptq:int4-g64", "gptq+propagate:int3-g128", "distil+rtn:int4-g128")]
    most = 0

    def look(*_: object) -> None:
        nonlocal most
        most = max(most, sum(file.stat().st_size for file in out.rglob("*") if file.is_file()))

    build(model, recipes, TEXTS[:4], out, progress=look)
    look()
    tokens = 4 * 128
    shape, beside = read_config(model), sum(file.stat().st_size for file in side_files(model))
    planned = plan_build(read_folder(model), recipes, Texts(tokens, 128), None, shape, beside).disk
    assert most <= planned
