"""Every recipe of the table by its name: built in one walk, loaded by its runtime, answering as its numbers mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from meant_weights import meant, meant_in_gguf, model_of
from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.cache_scheme import LLAMACPP_CACHES, TRANSFORMERS_CACHES
from quantwise.core.loads import homes
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import RuntimeOptions
from quantwise.core.scheme import FIXED_SCHEMES
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.safetensors_header import read_folder
from quantwise.plan.candidate_fit import Workload, plan_candidate
from quantwise.plan.weights import artifact_bytes
from quantwise.question.propose import parse
from quantwise.runtimes import runtime_named

FOLDERS = (
    "rtn:int2-g32", "rtn:int3-channel", "rtn:int4-tensor", "rtn:int4-g128-asym", "rtn:int8-channel", "rtn:int8-tensor",
    "imatrix:int2-g64-asym", "imatrix:int3-g64", "imatrix:int4-g32", "imatrix:int8-channel",
    "gptq:int2-g32-asym", "gptq:int3-g128", "gptq:int4-g64", "gptq:int8-channel-asym", "gptq+propagate:int4-g128",
    "awq+rtn:int4-g64", "awq+gptq:int3-g32", "awq+imatrix:int4-channel-asym",
    "w8a8", "smoothquant+rtn:w8a8", "smoothquant+gptq:w8a8-static", "imatrix:w8a8-static", "w4a8", "gptq:w4a8",
    "fp8-weights", "fp8", "fp8-static", "smoothquant+rtn:fp8",
    "nf4", "nf4-dq", "llm-int8",
    "rtn:int2-g64,layout=gptq", "gptq:int3-g32,layout=gptq", "gptq:int4-g64,layout=gptq",
    "awq+rtn:int4-g64-asym,layout=gptq", "rtn:int8-channel,layout=gptq",
    "awq+rtn:int4-g64-asym,layout=awq", "gptq:int4-channel,layout=awq",
)  # fmt: skip
GGML = tuple(name for name, scheme in FIXED_SCHEMES.items() if scheme.kind == "ggml")
FILES = (
    *(f"rtn:{name}" for name in GGML), "imatrix:q2_k", "imatrix:q4_0", "awq+imatrix:q4_k_m", "awq+rtn:q4_1",
    "gptq:q2_k", "gptq:q3_k_m", "gptq:q4_k_m", "gptq:q5_k_s", "gptq:q6_k", "gptq:q4_0", "gptq:q5_1", "gptq:q8_0",
)  # fmt: skip
# One of each format and family.
QUICK = ("awq+rtn:int4-g64", "smoothquant+rtn:w8a8", "nf4-dq", "llm-int8", "gptq:int4-g64,layout=gptq",
         "awq+rtn:int4-g64-asym,layout=awq", "fp8-static", "gptq:q4_k_m")  # fmt: skip
TEXT = "once upon a time there was a small dog that ran 12 km over the hill and home again. "
TEXTS = [TEXT * 3 + str(i) for i in range(24)]
OPTIONS = RuntimeOptions(context=256, parallel=2, threads=1)
ASKED = TEXT


def write_model(folder: Path) -> None:
    """A Llama whose rows split into every block: hidden 256, feed-forward 512, two layers, seeded, bfloat16."""
    import torch
    from tiny_models import write_tiny

    write_tiny(folder, "llama", hidden_size=256, intermediate_size=512, initializer_range=0.06, attention_bias=False,
               num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256)  # fmt: skip
    assert torch.initial_seed() == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def quick(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    out = tmp_path_factory.mktemp("quick")
    return dict(zip(QUICK, build(model, [parse_recipe(r) for r in QUICK], TEXTS, out), strict=True))


@pytest.fixture(scope="module")
def every(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    out, names = tmp_path_factory.mktemp("every"), (*FOLDERS, *FILES)
    return dict(zip(names, build(model, [parse_recipe(r) for r in names], TEXTS, out), strict=True))


def told(artifact: Artifact, runtime: str, cache: str = "f16") -> list[dict[int, float]]:
    """The whole next-token distribution at every place of the text."""
    options = RuntimeOptions(cache=cache, context=256, parallel=2, threads=1)
    with runtime_named(runtime).open(artifact, options) as session:
        return session.next_token_logprobs(ASKED, 300)  # type: ignore[attr-defined,no-any-return]


@torch.no_grad()
def meant_by(model: Path, artifact: Artifact) -> torch.Tensor:
    """Log probabilities (places, vocabulary) of the weights that the artifact means, in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(model)(ASKED)["input_ids"]
    if artifact.format == "gguf":
        net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        net.load_state_dict(_from_gguf(net.state_dict(), Path(artifact.location), net.config))
    else:
        net = model_of(model, Path(artifact.location))
    opening = net.config.eos_token_id
    return net(torch.tensor([[opening, *ids]])).logits[0, :-1].float().log_softmax(-1)


def _from_gguf(own: dict[str, torch.Tensor], file: Path, config: object) -> dict[str, torch.Tensor]:
    import gguf

    values = meant_in_gguf(file)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    found = {}
    for name in own:
        value = values[names.get_name(name, try_suffixes=(".weight", ".bias"))]
        heads = {"q_proj": 4, "k_proj": 2}
        for part, count in heads.items():
            if f".{part}." in name:
                # llama.cpp rotates neighbours, Transformers halves.
                split = value.reshape(count, value.shape[0] // count // 2, 2, -1)
                value = split.swapaxes(1, 2).reshape(value.shape)
        found[name] = value.reshape(own[name].shape)
    return found


def check(model: Path, recipe: str, artifact: Artifact, runtime: str) -> None:
    wanted, places = meant_by(model, artifact), told(artifact, runtime)
    assert len(places) == len(wanted)
    answered = torch.full_like(wanted, float("nan"))
    for i, place in enumerate(places):
        answered[i, list(place)] = torch.tensor(list(place.values()))
    known = ~answered.isnan()
    assert known.float().mean() > 0.9
    far = (wanted - answered)[known].abs().mean()
    # Where inputs are rounded, sums in another order make some fall to other codes; llama.cpp rounds them to 8 bits.
    inputs = parse_recipe(recipe).scheme.activations or ("int8" if artifact.format == "gguf" else "")
    most = 0.1 if inputs.startswith("fp8") else 0.05 if inputs or "llm-int8" in recipe else 0.02
    print(f"{recipe}: log probabilities {float(far):.4f} from what its numbers mean")
    assert float(far) < most, recipe


@pytest.mark.parametrize("recipe", QUICK)
def test_one_of_each_family(model: Path, quick: dict[str, Artifact], recipe: str) -> None:
    if recipe in ("nf4-dq", "llm-int8"):
        pytest.importorskip("bitsandbytes")
    check(model, recipe, quick[recipe], homes(quick[recipe].format)[0])


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_recipe(model: Path, every: dict[str, Artifact]) -> None:
    pytest.importorskip("bitsandbytes")
    for recipe, artifact in every.items():
        candidate = parse(recipe)
        check(model, recipe, artifact, candidate.runtime)
        planned_as_it_is(model, recipe, artifact)


def planned_as_it_is(model: Path, recipe: str, artifact: Artifact) -> None:
    """Bytes on disk and in memory are planned to the byte before the artifact is there, and from its headers after."""
    path = Path(artifact.location)
    found = read_gguf_header(path).tensors if artifact.format == "gguf" else read_folder(path).values()
    stored = sum(tensor.bytes for tensor in found)
    # Only the digits of one number per matrix are unknown beforehand: the mean of the scales.
    give = 14 * 3 if "nf4-dq" in recipe else 0
    assert abs(artifact_bytes(recipe, model) - stored) <= give, recipe
    of_recipe, of_file = (
        plan_candidate(candidate, model, Workload(64)).weights_bytes
        for candidate in (parse(recipe), parse(artifact.location))
    )
    assert of_recipe is not None
    assert of_file is not None
    assert abs(of_recipe - of_file) <= give, recipe
    if artifact.format != "gguf":
        with runtime_named("transformers").open(artifact, OPTIONS) as session:
            held = session.footprint().weights_bytes
        # It keeps a table for rotary embeddings too.
        assert held == pytest.approx(of_file, abs=2048), recipe


@pytest.mark.parametrize("recipe", QUICK)
def test_the_plan_is_what_is_stored_and_held(model: Path, quick: dict[str, Artifact], recipe: str) -> None:
    if recipe in ("nf4-dq", "llm-int8"):
        pytest.importorskip("bitsandbytes")
    planned_as_it_is(model, recipe, quick[recipe])


def test_every_scheme_is_on_the_list() -> None:
    named = {parse_recipe(name).scheme.name for name in (*FOLDERS, *FILES)}
    assert set(FIXED_SCHEMES) - {"16bit", "f16", "bf16"} <= named
    assert {parse_recipe(name).quantizer for name in FOLDERS} == {"rtn", "imatrix", "gptq"}


def test_the_slow_reader_sees_what_was_meant(model: Path, quick: dict[str, Artifact]) -> None:
    """Rounding of weights is small beside the weights, in every layout; a reader that is off by one would show."""
    from safetensors.torch import load_file

    stored = load_file(model / "model.safetensors")
    for recipe in ("nf4-dq", "llm-int8", "gptq:int4-g64,layout=gptq"):
        for name, value in meant(Path(quick[recipe].location)).items():
            weight = stored[f"{name}.weight"].float()
            assert float((value - weight).norm() / weight.norm()) < (0.02 if recipe == "llm-int8" else 0.2)


@pytest.mark.long
def test_every_cache_scheme(model: Path, tmp_path: Path) -> None:
    source = Artifact(str(model), "safetensors", "", None)
    plain = told(source, "transformers")
    file = build(model, [parse_recipe("q8_0")], [], tmp_path)[0]
    for cache in (name for name in TRANSFORMERS_CACHES if name != "f16"):
        near(plain, told(source, "transformers", cache), 0.1)
    plain = told(file, "llamacpp")
    for cache in (*(name for name in LLAMACPP_CACHES if name != "f16"), "q8_0/q4_0"):
        near(plain, told(file, "llamacpp", cache), 0.1)


def near(plain: list[dict[int, float]], other: list[dict[int, float]], most: float) -> None:
    from quantwise.stats.divergence import divergence

    assert divergence([plain], [other]).mean_kl < most


def test_what_is_brought_back_is_known_by_its_format(quick: dict[str, Artifact]) -> None:
    for artifact in quick.values():
        found = parse(artifact.location)
        assert found.runtime == homes(artifact.format)[0]
        if artifact.format != "gguf":
            assert json.loads((Path(artifact.location) / "quantwise.json").read_text())["format"] == artifact.format
