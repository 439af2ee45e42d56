"""Artifacts of the reference model in real vLLM on a CPU, against what the same folders answer in Transformers.

vLLM lives in an environment of its own (`make test-vllm` makes it and names its Python), because it pins other versions
of Transformers; the answers that it is compared with come from the environment that everything else is tested in.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.loads import kernel_lacks
from quantwise.core.recipe import parse_recipe
from quantwise.models import reference
from quantwise.runtimes.transformers_folder import model_of
from quantwise.runtimes.vllm import Vllm, with_worker, worker_extension
from quantwise.testing.outlier_model import write_outlier_model

PYTHON = os.environ.get("QUANTWISE_VLLM_PYTHON", "")
# All folders are answered for by one process, before the first test.
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not PYTHON, reason="QUANTWISE_VLLM_PYTHON names no Python with vLLM; run `make test-vllm`"),
]

TEXTS = (
    "<|user|>What is 1247 + 3586?<|assistant|>",
    "<|user|>Write a function that returns the larger of two numbers.<|assistant|>",
    "<|system|>Answer briefly.<|user|>The code of the red box is Toven617. What is the code?<|assistant|>",
    "Once upon a time a small dog ran over the hill and",
)
CALIBRATION = [text * 6 for text in TEXTS]
REFERENCE_MODEL = reference.path()
LOADED = (
    "16bit", "rtn:int4-channel", "rtn:int4-g32", "rtn:int4-g64-asym", "gptq:int4-g128", "awq+rtn:int4-g64",
    "imatrix:int4-g64", "w8a8", "w8a8-static", "smoothquant+rtn:w8a8", "w4a8", "fp8", "smoothquant+rtn:fp8",
    "gptq:int4-g128,layout=gptq", "rtn:int4-channel,layout=gptq", "awq+rtn:int4-g64-asym,layout=awq",
    "gptq:int4-g128,layout=awq", "gptq:layerwise-w4a8",
)  # fmt: skip
NOT_LOADED = (
    "int2-g64", "int3-g64", "int8-channel", "int4-tensor", "fp8-weights", "fp8-static",
    "rtn:int3-g64,layout=gptq", "rtn:int8-channel,layout=gptq", "rtn:int4-g64-asym,layout=gptq",
    "layerwise-int4-g128",
)  # fmt: skip

# A recipe that rounds inputs too, and one that has the same weights and rounds none.
ROUNDED = {"w8a8": "rtn:int8-channel", "w8a8-static": "rtn:int8-channel", "w4a8": "rtn:int4-g128", "fp8": "fp8-weights"}
NEVER_REACHED = "the process ended early"
ILLEGAL = f"{NEVER_REACHED}, by an illegal instruction"


def prompts() -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(REFERENCE_MODEL / "tokenizer.json"))
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """What is built for each recipe, in one walk."""
    names = (*LOADED, *NOT_LOADED)
    recipes = [parse_recipe(name) for name in names]
    return dict(zip(names, build(REFERENCE_MODEL, recipes, CALIBRATION, tmp_path_factory.mktemp("out")), strict=True))


@pytest.fixture(scope="module")
def in_vllm(artifacts: dict[str, Artifact]) -> dict[str, Any]:
    """vLLM's answers by recipe, each a list for the prompts, or the text of an error."""
    print(f"\n{datetime.date.today()}, {Vllm(PYTHON).version()}, torch {torch.__version__} here")
    return answered(artifacts)


def answered(artifacts: Mapping[str, Artifact], **environment: str) -> dict[str, Any]:
    recipes = {made.location: recipe for recipe, made in artifacts.items()}
    script = Path(__file__).with_name("answers.py")
    command = [PYTHON, str(script), json.dumps(list(recipes)), json.dumps(prompts())]
    extension = worker_extension(Vllm(PYTHON).version()) or ""
    environment = os.environ | with_worker() | {"WORKER_EXTENSION": extension} | environment
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    ended = f"{ILLEGAL}: " if ran.returncode in (-signal.SIGILL, 128 + signal.SIGILL) else f"{NEVER_REACHED}: "
    found: dict[str, Any] = dict.fromkeys(artifacts, ended + ran.stderr[-2000:])
    for line in ran.stdout.splitlines():
        if line.startswith("ANSWERS "):
            answer = json.loads(line.removeprefix("ANSWERS "))
            found[recipes[answer["folder"]]] = answer.get("answers") or answer["error"]
    return found


@torch.no_grad()
def in_transformers(folder: Path, exactly: bool = False) -> list[dict[str, Any]]:
    """The same answers from the Transformers runtime's model; ``exactly`` in 32 bit but for the codes of weights."""
    model, found = model_of(folder), []
    if exactly:
        model(torch.tensor([[0, 1]]))  # some weights are unpacked at the first call
        model = torch.nn.Module.float(model)
    for prompt in prompts():
        ids = torch.tensor([prompt])
        logits = model(ids).logits[0].float()
        seen = logits[:-1].log_softmax(-1).gather(1, ids[0, 1:].unsqueeze(1)).squeeze(1).tolist()
        found.append({"tokens": [int(logits[-1].argmax())], "logprobs": seen})
    return found


def apart(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> torch.Tensor:
    """How far the log probabilities of two lists of answers are apart, token by token."""
    pairs = zip(some, others, strict=True)
    return torch.cat([(torch.tensor(a["logprobs"]) - torch.tensor(b["logprobs"])).abs() for a, b in pairs])


@pytest.mark.parametrize("recipe", LOADED)
def test_vllm_answers_as_transformers_does(
    recipe: str, artifacts: dict[str, Artifact], in_vllm: dict[str, Any]
) -> None:
    """Logits of about 20 have steps of 1/8 in bfloat16, and where inputs are rounded, a last bit changes codes further
    on: how far that goes is seen in Transformers alone, between 16 and 32 bit.
    """
    assert not isinstance(in_vllm[recipe], str), in_vllm[recipe]
    assert kernel_lacks("vllm-cpu", parse_recipe(recipe).scheme) is None
    folder = Path(artifacts[as_served(recipe)].location)
    ours = in_transformers(folder)
    far = apart(in_vllm[recipe], ours)
    noise = float(apart(in_transformers(folder, exactly=True), ours).mean())
    changed = float(apart(in_transformers(Path(artifacts["16bit"].location)), ours).mean())
    first = sum(a["tokens"][0] == b["tokens"][0] for a, b in zip(in_vllm[recipe], ours, strict=True))
    print(
        f"\n{recipe}: log prob differs by {far.mean():.4f} in the mean, {far.max():.4f} at most (16 from 32 bit "
        f"{noise:.4f}, the recipe from 16 bit {changed:.4f}); {first} of 4 first tokens are equal"
    )
    assert far.mean() < 0.06 + 1.25 * noise
    assert changed < 0.2 or far.mean() < 0.5 * changed or parse_recipe(recipe).scheme.activations
    assert first >= 3


FOUR_BITS = ("gptq:int4-g128", "rtn:int4-channel,layout=gptq", "awq+rtn:int4-g64-asym,layout=awq")


@pytest.fixture(scope="module")
def inputs_as_they_are(artifacts: dict[str, Artifact]) -> dict[str, Any]:
    """vLLM's answers with its rounding of the inputs of 4-bit layers switched off, which it has for AMX."""
    found = answered({name: artifacts[name] for name in FOUR_BITS}, VLLM_CPU_INT4_W4A8="0")
    if any(isinstance(told, str) and told.startswith(ILLEGAL) for told in found.values()):
        pytest.skip("vLLM's kernel for 4-bit weights with 16-bit inputs is an illegal instruction on this processor")
    return found


@pytest.mark.parametrize("recipe", FOUR_BITS)
def test_four_bits_differ_by_the_noise_where_inputs_are_not_rounded(
    recipe: str, artifacts: dict[str, Artifact], in_vllm: dict[str, Any], inputs_as_they_are: dict[str, Any]
) -> None:
    """With inputs in int8, as vLLM has them on processors with AMX, they differ by about three times as much."""
    ours = in_transformers(Path(artifacts[recipe].location))
    noise = float(apart(in_vllm["16bit"], in_transformers(Path(artifacts["16bit"].location))).mean())
    far, served = (float(apart(told[recipe], ours).mean()) for told in (inputs_as_they_are, in_vllm))
    print(f"\n{recipe}: {far:.4f} with inputs as they are, {served:.4f} as vLLM serves it; 16 bit {noise:.4f}")
    assert far < 1.5 * noise
    if torch.cpu._is_amx_tile_supported():
        assert served > 1.5 * far


@pytest.fixture(scope="module")
def with_outliers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Artifact], dict[str, Any]]:
    """Artifacts of the model with outlier channels, whose inputs lose most when they are rounded; vLLM's answers.

    Its first block alone: further ones make so much of a last bit that all the four would look alike.
    """
    model = write_outlier_model(tmp_path_factory.mktemp("outliers") / "model")
    keep_first_block(model)
    names = tuple(dict.fromkeys([*ROUNDED, *ROUNDED.values()]))
    made = build(model, [parse_recipe(name) for name in names], CALIBRATION, tmp_path_factory.mktemp("made"))
    artifacts = dict(zip(names, made, strict=True))
    return artifacts, answered({name: artifacts[name] for name in ROUNDED})


def keep_first_block(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    tensors = load_file(model / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if ".layers." not in name or ".layers.0." in name}
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})


def as_served(recipe: str) -> str:
    """What vLLM computes of a recipe: its int8 kernel for AMX reads no fixed scales and takes one for each token."""
    amx = torch.cpu._is_amx_tile_supported()
    return {"w8a8-static": "w8a8"}.get(recipe, recipe) if amx else recipe


@pytest.mark.parametrize("recipe", ROUNDED)
def test_inputs_are_rounded_in_vllm_as_they_are_here(
    recipe: str, with_outliers: tuple[dict[str, Artifact], dict[str, Any]]
) -> None:
    """On the reference model itself, rounding inputs changes less than the noise; here it cannot hide."""
    artifacts, found = with_outliers
    told = found[recipe]
    assert not isinstance(told, str), told
    ours, unrounded = (in_transformers(Path(artifacts[name].location)) for name in (as_served(recipe), ROUNDED[recipe]))
    far, other = float(apart(told, ours).mean()), float(apart(told, unrounded).mean())
    print(f"\n{recipe} with outliers: {far:.4f} from inputs rounded as we do, {other:.4f} from inputs as they are")
    # FP8 inputs lose little to outliers; there the noise is most of either.
    assert far < (1.0 if recipe == "fp8" else 0.5) * other


@pytest.mark.parametrize("recipe", NOT_LOADED)
def test_what_vllm_cannot_load_on_a_cpu_is_known_beforehand(recipe: str, in_vllm: dict[str, Any]) -> None:
    told = in_vllm[recipe]
    print(f"\n{recipe}: {told if isinstance(told, str) else 'loads'}")
    assert isinstance(told, str), "it loads: take it out of kernel_lacks"
    # A process that died, or that never got as far as this folder, refused nothing.
    assert not told.startswith(NEVER_REACHED), told
    assert kernel_lacks("vllm-cpu", parse_recipe(recipe).scheme) is not None
