"""Files of every architecture in stock llama.cpp: its next-token distributions beside those of Transformers.

A wrong order of rows, norm offset, rotation or scale gives 0.05 nats or more on these models, where f16 leaves 1e-5.
"""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from test_in_llamacpp import HARD, load
from tiny_models import CONFIGS, TEXTS, write_tiny

from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import RuntimeOptions
from quantwise.formats.gguf.architectures import ARCHITECTURES
from quantwise.grids import ggml_library
from quantwise.runtimes.llamacpp import LlamaCpp

pytestmark = pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)")
TEXT = "The quick dog said 17 things: naive text, (small) numbers 3*4=12! Then it ran over the hill & far away..."
_GEMMA3 = {"layer_types": None, "num_hidden_layers": 6, "rope_local_base_freq": 10000.0, "tie_word_embeddings": True}
# Where a graph of llama.cpp is fixed in what Transformers leaves open.
FIXED: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": None},
    "gemma3_text": _GEMMA3,
    "qwen2_moe": {"mlp_only_layers": []},
    "qwen3_moe": {"norm_topk_prob": True},
    "olmo": {},
    "olmoe": {"num_key_value_heads": 4},
    "seed_oss": {"head_dim": 32},
    "smollm3": {"num_hidden_layers": 4, "no_rope_layers": None},
}
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
_LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 32}
_LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 32,
    "short_factor": [1.0 + i / 8 for i in range(6)], "long_factor": [2.0 + i for i in range(6)],
    "partial_rotary_factor": 0.75,
}  # fmt: skip
VARIANTS = [
    ("llama", {"rope_parameters": _LLAMA3}),
    ("llama", {"rope_parameters": _YARN}),
    ("qwen3", {"rope_parameters": _YARN}),
    ("qwen2", {"rope_parameters": _LINEAR}),
    ("granite", {"rope_parameters": _LLAMA3, "logits_scaling": 0.5, "tie_word_embeddings": True}),
    ("gemma3_text", {**_GEMMA3, "rope_parameters": {
        "full_attention": _LINEAR, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}),
    ("gpt_neox", {"use_parallel_residual": False, "rope_parameters": {
        "rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}}),
    ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.75}}),
    ("phi3", {"original_max_position_embeddings": 32, "rope_parameters": _LONG}),
    ("mixtral", {"num_local_experts": 8, "num_experts_per_tok": 3}),
    ("olmo", {"clip_qkv": 0.5}),
    ("starcoder2", {"tie_word_embeddings": True}),
]  # fmt: skip
# The median divergence that each may have.
RECIPES = {"imatrix:q8_0": 2e-3, "gptq:q4_0": 0.2, "q8_0": 2e-3, "awq+rtn:q8_0": 2e-3}
QUICK_RECIPES = (("mixtral", "imatrix:q8_0"), ("gpt_neox", "imatrix:q8_0"), ("gemma", "awq+rtn:q8_0"))
QUICK = ("qwen3", "gemma2", "phi3", "gpt_neox", "mixtral")


class Told(NamedTuple):
    """Divergence in nats of llama.cpp from Transformers over the positions of a text. The median, not the mean: between
    two experts of nearly one score, the error of a format may choose the other.
    """

    positions: int
    largest: float
    median: float


def divergence(folder: Path, file: str) -> Told:
    """Also asserts that a hard text has the same tokens in both."""
    from tokenizers import Tokenizer

    model = load(folder)
    artifact = Artifact(file, "gguf", "unknown", 1, "f16", 16.0, 0.0)
    options = RuntimeOptions(context=256, parallel=1, threads=1)
    with LlamaCpp().open(artifact, options) as session:
        told = session.next_token_logprobs(TEXT, model.config.vocab_size)
        ids = session.tokenize(TEXT)
        assert session.tokenize(HARD) == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(HARD).ids
    with torch.no_grad():
        # The end token opens a text to which the tokenizer adds nothing.
        ours = model(torch.tensor([[1, *ids]])).logits[0, :-1].log_softmax(-1)
    theirs = torch.tensor([[at[i] for i in range(ours.shape[1])] for at in told])
    found = (ours.exp() * (ours - theirs)).sum(-1)
    return Told(len(found), float(found.max()), float(found.median()))


def write(folder: Path, kind: str, **changes: Any) -> Path:
    model = folder / "model"
    model.mkdir()
    write_tiny(model, kind, **{**FIXED.get(kind, {}), **changes})
    return model


def one(model: Path, out: Path, recipe: str) -> str:
    (artifact,) = build(model, [parse_recipe(recipe)], TEXTS, out)
    return artifact.location


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.long) for k in ARCHITECTURES])
def test_llamacpp_computes_what_transformers_does(kind: str, tmp_path: Path) -> None:
    model = write(tmp_path, kind)
    told = divergence(model, one(model, tmp_path / "out", "f16"))
    assert told.positions > 70
    assert told.largest < 1e-5


@pytest.mark.long
@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_what_else_a_config_may_say(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = write(tmp_path, kind, **changes)
    assert divergence(model, one(model, tmp_path / "out", "f16")).largest < 1e-5


# Errors of the format itself. Half of a byte's step in q8_0 is far below what a wrong order of packed rows gives.
@pytest.mark.parametrize(
    ("kind", "recipe", "most"),
    [
        pytest.param(kind, recipe, most, marks=() if (kind, recipe) in QUICK_RECIPES else pytest.mark.long)
        for kind in ARCHITECTURES
        for recipe, most in RECIPES.items()
    ],
)
def test_quantized_files_are_within_their_error(kind: str, recipe: str, most: float, tmp_path: Path) -> None:
    model = write(tmp_path, kind)
    assert 0 < divergence(model, one(model, tmp_path / "out", recipe)).median < most


def test_every_architecture_of_the_walk_is_written_or_refused_by_name(tmp_path: Path) -> None:
    assert set(CONFIGS) - set(ARCHITECTURES) == {"opt"}
    model = write(tmp_path, "opt")
    for recipe in ("q8_0", "gptq:q4_0"):
        with pytest.raises(InputError, match=r"'opt' models, which llama\.cpp does not compute"):
            one(model, tmp_path / "out", recipe)
