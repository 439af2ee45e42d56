"""Errors propagated: each block is quantized for the inputs that the quantized blocks before it give."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TEXTS, write_tiny

from meant_weights import meant
from quantwise.build import stream
from quantwise.build.calibration import calibrate
from quantwise.build.job import Job
from quantwise.build.skeleton import Skeleton
from quantwise.build.statistics import Seen
from quantwise.build.walk import build
from quantwise.core.recipe import parse_recipe

PLAIN, OWN = "gptq:int3-g64", "gptq+propagate:int3-g64"


def hessian(folder: Path, replaced: Mapping[str, torch.Tensor], layer: str) -> torch.Tensor:
    """Of the inputs of a layer in a whole float32 model some of whose weights are ``replaced``, text by text."""
    from transformers import AutoModelForCausalLM

    live = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, weight in replaced.items():
        live.get_submodule(name).weight.data = weight.bfloat16().float()
    seen: list[torch.Tensor] = []
    live.get_submodule(layer).register_forward_pre_hook(lambda _, args: seen.append(args[0][0].double()))
    with torch.no_grad():
        for sequence in calibrate(folder, TEXTS, 128, 0).sequences:
            live(torch.tensor([sequence]))
    rows = torch.cat(seen)
    return rows.T @ rows


def test_a_block_sees_what_the_quantized_blocks_before_it_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path, "llama", num_hidden_layers=3)
    monkeypatch.setattr(stream, "products_in", lambda dtype: contextlib.nullcontext())
    found: dict[tuple[str, int], Mapping[str, Seen]] = {}
    quantize = Job.quantize

    def recorded(job: Job, skeleton: Skeleton, index: int, seen: Mapping[str, Seen]) -> Any:
        found[job.recipe.name, index] = dict(seen)
        return quantize(job, skeleton, index, seen)

    monkeypatch.setattr(Job, "quantize", recorded)
    made = build(tmp_path, [parse_recipe(PLAIN), parse_recipe(OWN)], TEXTS, tmp_path / "out")
    weights = meant(Path(made[1].location))
    for index in range(3):
        layer = f"model.layers.{index}.self_attn.q_proj"
        before = {name: w for name, w in weights.items() if int(name.split(".")[2]) < index}
        for recipe, replaced in ((PLAIN, {}), (OWN, before)):
            wanted = hessian(tmp_path, replaced, layer)
            seen = found[recipe, index][layer].values["hessian"]
            assert torch.allclose(seen, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max())), (recipe, index)
    for index in (1, 2):  # and that is not nothing
        layer = f"model.layers.{index}.self_attn.q_proj"
        plain, own = (found[recipe, index][layer].values["hessian"] for recipe in (PLAIN, OWN))
        assert float((plain - own).norm() / plain.norm()) > 0.02, index
    assert made[0].hash != made[1].hash
