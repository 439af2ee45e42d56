"""Folders of the reference model, loaded by real vLLM on a CPU, against the weights that they mean in Transformers.

Runs in an environment of its own (`make test-vllm`), because vLLM pins other versions of Transformers.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import NEW_TOKENS

from quantwise.core.recipe import parse_recipe
from quantwise.core.scheme import Scheme
from quantwise.formats.awq_layout import write_awq
from quantwise.formats.compressed_tensors import IntegerLayer, write_compressed
from quantwise.formats.gptq_layout import write_gptq
from quantwise.formats.safetensors_folder import ModelFolder, write_sixteen_bit
from quantwise.grids.float8 import Float8Grid, input_scale, to_bytes
from quantwise.grids.integer import integer_grid
from quantwise.models import reference

# All folders are answered for by one process, before the first test.
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(3600),
    # This environment's libraries are not ours to choose.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed; run `make test-vllm`"),
]

TEXTS = (
    "<|user|>What is 1247 + 3586?<|assistant|>",
    "<|user|>Write a function that returns the larger of two numbers.<|assistant|>",
    "<|system|>Answer briefly.<|user|>The code of the red box is Toven617. What is the code?<|assistant|>",
    "Once upon a time a small dog ran over the hill and",
)
REFERENCE_MODEL = reference.path()
# What vLLM 0.32 has a kernel for on a CPU.
LOADED = (
    "16bit", "rtn:int4-g128", "rtn:int4-g64", "rtn:int4-g64-asym", "rtn:w8a8", "rtn:w8a8-static", "rtn:w4a8",
    "rtn:fp8", "rtn:fp8-static", "rtn:fp8-weights", "rtn:int4-g128,layout=gptq", "rtn:int4-channel,layout=gptq",
    "rtn:int4-g64-asym,layout=awq", "rtn:int4-g128,layout=awq",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A folder, and the weights that its codes stand for."""

    folder: Path
    weights: dict[str, torch.Tensor]


def write(recipe: str, folder: Path) -> Made:
    """The reference model by rounding; scales of inputs that are fixed cover -16 .. 16."""
    source, scheme = ModelFolder(REFERENCE_MODEL), parse_recipe(recipe).scheme
    if scheme.kind == "float":
        write_sixteen_bit(folder, source)
        return Made(folder, {})
    layers, weights = {}, {}
    for key in (name for name in source if "_proj." in name):
        layers[key.removesuffix(".weight")], weights[key] = _layer(source[key], scheme)
    writers = {"gptq": write_gptq, "awq": write_awq, "compressed-tensors": write_compressed}
    writers[scheme.format](folder, source, layers, scheme, ["lm_head"])
    return Made(folder, weights)


def _layer(weight: torch.Tensor, scheme: Scheme) -> tuple[IntegerLayer, torch.Tensor]:
    largest = torch.full((weight.shape[1],), 16.0)
    if scheme.kind == "float8":
        grid = Float8Grid("tensor" if scheme.granularity == "tensor" else "channel")
        codes, steps = grid.quantize(weight)
        fixed = input_scale(largest) if scheme.activations == "fp8-tensor" else None
        return IntegerLayer(to_bytes(codes), steps.scale, input_scale=fixed), grid.decode(codes, steps)
    integers = integer_grid(scheme)
    codes, steps = integers.quantize(weight)
    fixed = largest[:1] / 127 if scheme.activations == "int8-tensor" else None
    return IntegerLayer(codes, steps.scale, steps.zero, fixed), integers.decode(codes, steps)


def prompts() -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(REFERENCE_MODEL / "tokenizer.json"))
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """What is written for each recipe."""
    return {recipe: write(recipe, tmp_path_factory.mktemp("folder")) for recipe in LOADED}


@pytest.fixture(scope="module")
def in_vllm(folders: dict[str, Made]) -> dict[str, Any]:
    """vLLM's answers by recipe, each a list for the prompts, or the text of an error."""
    recipes = {str(made.folder): recipe for recipe, made in folders.items()}
    script = Path(__file__).with_name("answers.py")
    command = [sys.executable, str(script), json.dumps(list(recipes)), json.dumps(prompts())]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, Any] = dict.fromkeys(LOADED, f"the process ended early: {ran.stderr[-2000:]}")
    for line in ran.stdout.splitlines():
        if line.startswith("ANSWERS "):
            answer = json.loads(line.removeprefix("ANSWERS "))
            found[recipes[answer["folder"]]] = answer.get("answers") or answer["error"]
    return found


@torch.no_grad()
def in_transformers(made: Made, inputs_rounded: bool) -> list[dict[str, Any]]:
    """The same answers from Transformers."""
    from transformers import AutoModelForCausalLM

    # Where inputs are rounded too, compressed-tensors itself must run the folder; else the meant weights are put in.
    model = AutoModelForCausalLM.from_pretrained(made.folder if inputs_rounded else REFERENCE_MODEL, dtype="bfloat16")
    if not inputs_rounded:
        for key, weight in made.weights.items():
            model.get_submodule(key.removesuffix(".weight")).weight.copy_(weight)
    found = []
    for prompt in prompts():
        ids = torch.tensor([prompt])
        logprobs = model(ids).logits[0, :-1].float().log_softmax(-1)
        seen = logprobs.gather(1, ids[0, 1:].unsqueeze(1)).squeeze(1).tolist()
        tokens: list[int] = []
        for _ in range(NEW_TOKENS):
            tokens.append(int(model(torch.tensor([prompt + tokens])).logits[0, -1].argmax()))
        found.append({"tokens": tokens, "logprobs": seen})
    return found


@pytest.mark.parametrize("recipe", LOADED)
def test_vllm_answers_as_the_codes_mean(recipe: str, folders: dict[str, Made], in_vllm: dict[str, Any]) -> None:
    assert not isinstance(in_vllm[recipe], str), in_vllm[recipe]
    pairs = list(
        zip(
            in_vllm[recipe],
            in_transformers(folders[recipe], bool(parse_recipe(recipe).scheme.activations)),
            strict=True,
        )
    )
    far = torch.cat([(torch.tensor(a["logprobs"]) - torch.tensor(b["logprobs"])).abs() for a, b in pairs])
    same = [x == y for a, b in pairs for x, y in zip(a["tokens"], b["tokens"], strict=True)]
    print(f"\n{recipe}: log prob differs by {far.mean():.4f} in the mean, {far.max():.4f} at most; "
          f"{sum(same)} of {len(same)} greedy tokens are equal")  # fmt: skip
    assert far.mean() < 0.05
    assert sum(same) / len(same) > 0.8
