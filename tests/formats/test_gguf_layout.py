"""Where tensors of a folder go in a GGUF file, beside the gguf package's own tables; and what is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantwise.core.errors import InputError
from quantwise.formats.gguf.architectures import ARCHITECTURES, architecture_of_class
from quantwise.formats.gguf.layout import Target, expert_count, targets
from quantwise.formats.gguf.parameters import approximations, gguf_parameters
from quantwise.formats.gguf.rope import factor_tensors, rope_kind, rope_theta, rotated
from quantwise.formats.gguf.tensors import arrange, layout
from quantwise.formats.safetensors_header import TensorEntry

gguf = pytest.importorskip("gguf")
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 128, "vocab_size": 300, "query_pre_attn_scalar": 16,
}  # fmt: skip


def config(kind: str, **changes: Any) -> dict[str, Any]:
    tied = ARCHITECTURES[kind].output == "tied"
    own = {"norm_topk_prob": True} if kind == "qwen3_moe" else {}
    sliding = {"sliding_window": 8} if ARCHITECTURES[kind].sliding else {}
    return {"model_type": kind, "tie_word_embeddings": tied, **SIZES, **own, **sliding, **changes}


def modules(kind: str) -> list[str]:
    architecture = ARCHITECTURES[kind]
    # Where the output matrix is always the embedding, there is none in the file.
    whole = [name for name, part in architecture.whole.items() if (part, architecture.output) != ("output", "tied")]
    return [*whole, *(f"{architecture.blocks}.1.{path}" for path in architecture.parts)]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_names_are_those_of_the_gguf_package(kind: str) -> None:
    """Its table is for all architectures at once; llama.cpp loads only the tensors listed for one."""
    architecture = ARCHITECTURES[kind]
    number = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.name)
    allowed = {gguf.TENSOR_NAMES[tensor].replace("{bid}", "1") for tensor in gguf.MODEL_TENSORS[number]}
    theirs = gguf.get_tensor_name_map(number, 6)
    found = set()
    for module in modules(kind):
        (target,) = targets({f"{module.replace('*', '0')}.weight": (64, 64)}, architecture, tied=False)
        name = target.name.removesuffix(".weight")
        merged = module.replace(".*", "").replace("block_sparse_moe.experts", "feed_forward.experts")
        expected = theirs.get_name(merged if "experts" not in merged else merged.removeprefix("model."))
        assert name == (expected or theirs.get_name(merged)), module
        found.add(name)
    assert found <= allowed
    assert architecture_of_class(architecture.class_name).name == architecture.name  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_keys_are_those_of_the_gguf_package(kind: str) -> None:
    known = {
        value
        for group in (gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope)
        for name, value in vars(group).items()
        if not name.startswith("_")
    }
    made = gguf_parameters(config(kind, num_experts_per_tok=2), experts=4)
    assert {f"{{arch}}.{key}" for key in made} <= known
    assert made["expert_count"] == 4


def test_experts_are_stacked_in_the_order_of_their_numbers() -> None:
    names = [f"model.layers.0.mlp.experts.{i}.up_proj.weight" for i in (10, 2, 0, 1, *range(3, 10))]
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (8, 4)) | {"model.layers.0.mlp.gate.weight": (11, 4)}
    made = targets(shapes, ARCHITECTURES["qwen3_moe"], tied=False)
    assert [target.name for target in made] == ["blk.0.ffn_up_exps.weight", "blk.0.ffn_gate_inp.weight"]
    assert made[0].shape == (11, 8, 4)
    assert made[0].sources == tuple(f"model.layers.0.mlp.experts.{i}.up_proj.weight" for i in range(11))
    assert expert_count(made) == 11
    del shapes[names[1]]
    with pytest.raises(InputError, match=r"ffn_up_exps\.weight are not complete"):
        targets(shapes, ARCHITECTURES["qwen3_moe"], tied=False)


def test_what_has_no_place_is_named() -> None:
    llama = ARCHITECTURES["llama"]
    for name in ("model.layers.0.self_attn.g_proj.weight", "model.layers.0.input_layernorm.bias", "score.weight"):
        with pytest.raises(InputError, match=f"'{name}' has no place"):
            targets({name: (4, 4)}, llama, tied=False)
        assert targets({name: (4, 4)}, llama, tied=False, strict=False)[0].name == name
    assert not targets({"model.layers.0.self_attn.rotary_emb.inv_freq": (4,)}, llama, tied=False)
    assert not targets({"lm_head.weight": (4, 4)}, llama, tied=True)


def test_a_bias_that_the_graph_wants_is_missed() -> None:
    name = "model.layers.0.mlp.c_fc.weight"
    entries = {name: TensorEntry(name, "F32", (4, 4), Path("m"), 0, 64)}
    with pytest.raises(InputError, match="which this model lacks"):
        layout(entries, config("starcoder2"))


def test_rows_of_heads_are_reordered_as_rotation_wants() -> None:
    rows = np.arange(64)[:, None] * np.ones((1, 3), np.float32)
    q = Target("blk.0.attn_q.weight", (64, 3), ("q",))
    assert arrange(q, rows, config("llama"))[:6, 0].tolist() == [0, 8, 1, 9, 2, 10]
    assert arrange(q, rows.astype(np.uint8), config("granite")).dtype == np.uint8
    assert arrange(q, rows, config("qwen3")) is rows
    k = Target("blk.0.attn_k.bias", (32,), ("k",))
    assert arrange(k, np.arange(32), config("llama", num_key_value_heads=2))[:4].tolist() == [0, 8, 1, 9]
    norm = Target("blk.0.attn_q_norm.weight", (16,), ("n",))
    assert arrange(norm, rows[:16, 0], config("llama")).tolist() == rows[:16, 0].tolist()
    assert arrange(norm, rows[:16, 0], config("gemma3_text")).tolist() == (rows[:16, 0] + 1).tolist()


def test_a_fused_matrix_by_heads_becomes_queries_keys_and_values() -> None:
    """Against a slow way: row (head, what, number) goes to (what, head, number)."""
    rows = np.arange(4 * 3 * 16)
    slow = [rows[head * 48 + what * 16 + i] for what in range(3) for head in range(4) for i in range(16)]
    for target in ("blk.0.attn_qkv.weight", "blk.0.attn_qkv.bias"):
        assert arrange(Target(target, (192,), ("f",)), rows, config("gpt_neox")).tolist() == slow
    assert arrange(Target("blk.0.attn_qkv.weight", (192, 1), ("f",)), rows[:, None], config("phi3"))[1, 0] == 1


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("cohere", {}, "no GGUF file is written of 'cohere' models"),
        ("opt", {}, "which llama.cpp does not compute"),
        ("llama", {"hidden_act": "relu"}, "activation is 'relu'"),
        ("gemma", {"tie_word_embeddings": False}, "is not the embedding"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma2", {"query_pre_attn_scalar": 17}, "query_pre_attn_scalar is 17, not 16"),
        ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping is null"),
        ("gemma2", {"layer_types": ["full_attention"] * 6}, "but for one in 2"),
        ("gemma3_text", {"sliding_window_pattern": 4}, "but for one in 6"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ("smollm3", {"no_rope_layers": [1] * 6}, "rotary embedding are not one in 4"),
        ("qwen2", {"head_dim": 32}, "not as wide"),
        ("olmo2", {"tie_word_embeddings": True}, "output matrix is the embedding"),
        ("olmoe", {"num_key_value_heads": 2}, "fewer heads of keys"),
        ("olmoe", {"clip_qkv": 1.0}, "clip_qkv is 1.0"),
        ("qwen2_moe", {"mlp_only_layers": [1]}, "mlp_only_layers"),
        ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob is False"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rotary scaling 'dynamic'"),
        ("qwen3", {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "rotary scaling 'llama3'"),
        ("qwen3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rotary scaling 'yarn'"),
        ("gemma3_text", {"rope_scaling": {**_YARN}}, "rotary scaling 'yarn'"),
        ("llama", {"rope_scaling": {**_YARN, "beta_fast": 16}}, "rotary scaling 'yarn'"),
        ("llama", {"partial_rotary_factor": 0.5}, "rotates whole heads; this model 50%"),
        ("llama", {"vocab_size": None}, "lacks vocab_size"),
    ],
)
def test_what_another_graph_computes_is_refused(kind: str, changes: dict[str, Any], why: str) -> None:
    settings = {**config("llama"), "model_type": kind} if kind not in ARCHITECTURES else config(kind)
    with pytest.raises(InputError, match=why):
        gguf_parameters({**settings, **changes})


def test_what_is_computed_a_little_otherwise_is_told() -> None:
    assert "tanh" in approximations(config("gpt_neox", hidden_act="gelu"))[0].what
    assert not approximations(config("phi", hidden_act="gelu_new"))
    assert "the last 8" in approximations(config("mistral", sliding_window=8))[0].what
    for unused in ({"sliding_window": 8, "use_sliding_window": False}, {"sliding_window": 128}, {}):
        assert not approximations(config("qwen2", **unused))
    assert not approximations(config("gemma2"))
    assert not approximations(config("qwen3", sliding_window=8, layer_types=["full_attention"] * 6))


def test_rotary_numbers_have_moved_between_versions_of_transformers() -> None:
    assert rope_theta({"rope_theta": 7.0}) == rope_theta({"rope_parameters": {"rope_theta": 7.0}}) == 7.0
    assert rope_theta({"rotary_emb_base": 9}) == 9.0
    layers = {"full_attention": {"rope_theta": 3.0}, "sliding_attention": {"rope_theta": 4.0}}
    assert rope_theta({"rope_parameters": layers}) == 3.0
    assert rope_theta({"rope_parameters": layers}, layers="sliding_attention") == 4.0
    assert rope_theta({"rope_local_base_freq": 5.0, "rope_theta": 6.0}, layers="sliding_attention") == 5.0
    neox = ARCHITECTURES["gpt_neox"]
    assert rotated({"rotary_pct": 0.5}, neox, 16) == 8
    assert rotated({}, neox, 16) == 4
    long = {"type": "su", "long_factor": [2.0] * 6, "short_factor": [1.0] * 6}
    old = config("phi3", rope_scaling=long, original_max_position_embeddings=32, partial_rotary_factor=0.75)
    assert rope_kind(old) == "longrope"
    assert gguf_parameters(old)["rope.scaling.original_context_length"] == 32
    assert list(factor_tensors(old, ARCHITECTURES["phi3"], 16)) == [
        "rope_factors_long.weight",
        "rope_factors_short.weight",
    ]
    with pytest.raises(InputError, match="has not 8 long and short factors"):
        factor_tensors({**old, "partial_rotary_factor": 1.0}, ARCHITECTURES["phi3"], 16)


def test_the_factors_of_llama_3_are_those_of_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    made = LlamaConfig(hidden_size=512, num_attention_heads=4, rope_parameters=rope)
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](made, "cpu")
    (factors,) = factor_tensors({"rope_parameters": rope}, ARCHITECTURES["llama"], 128).values()
    ours = [5e5 ** (-2 * i / 128) / factor for i, factor in enumerate(factors)]
    assert all(math.isclose(a, float(b), rel_tol=1e-5) for a, b in zip(ours, frequencies, strict=True))
    assert {1.0, 8.0} < set(factors)
