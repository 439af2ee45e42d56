"""The decoders that llama.cpp computes, as data: what each is called there, where its tensors go, and what it demands.

Facts are those of llama.cpp's src/models/*.cpp and conversion/*.py (2026), and are checked by running the files. Paths
are those of a Hugging Face folder; within a block ``*`` is the number of an expert. What is not listed is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from quantwise.core.errors import InputError
from quantwise.formats.gguf.graph import GgufArchitecture

_QKV = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
_ATTENTION = {**_QKV, "self_attn.o_proj": "attn_output"}
_GATED = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_QK_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_AROUND = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_EXPERTS = {
    "mlp.experts.*.gate_proj": "ffn_gate_exps",
    "mlp.experts.*.up_proj": "ffn_up_exps",
    "mlp.experts.*.down_proj": "ffn_down_exps",
    "mlp.gate": "ffn_gate_inp",
}
_MIXTRAL_EXPERTS = {
    "block_sparse_moe.experts.*.w1": "ffn_gate_exps",
    "block_sparse_moe.experts.*.w3": "ffn_up_exps",
    "block_sparse_moe.experts.*.w2": "ffn_down_exps",
    "block_sparse_moe.gate": "ffn_gate_inp",
}
_SHARED = {
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
_QKV_BIASES = frozenset(_QKV.values())
_ONE_WAY = ("use_bidirectional_attention", None, (None, False))

_LLAMA = GgufArchitecture(
    name="llama",
    class_name="LlamaForCausalLM",
    parts=_ATTENTION | _GATED | _NORMS,
    whole=_WHOLE,
    biases=frozenset({*_ATTENTION.values(), *_GATED.values()}),
    rope="neighbours",
    factors=True,
)
_QWEN2 = replace(
    _LLAMA,
    name="qwen2",
    class_name="Qwen2ForCausalLM",
    biases=_QKV_BIASES,
    rope="halves",
    factors=False,
    square=True,
)
_QWEN3 = replace(_QWEN2, name="qwen3", class_name="Qwen3ForCausalLM", parts=_QWEN2.parts | _QK_NORMS, square=False)
_GEMMA = replace(
    _QWEN3,
    name="gemma",
    class_name="GemmaForCausalLM",
    parts=_LLAMA.parts,
    biases=frozenset(),
    norm_offset=1.0,
    act="gelu",
    must=(_ONE_WAY,),
    output="tied",
)
_GEMMA2 = replace(
    _GEMMA,
    name="gemma2",
    class_name="Gemma2ForCausalLM",
    parts=_LLAMA.parts | _AROUND | {"pre_feedforward_layernorm": "ffn_norm"},
    act_key="hidden_activation",
    floats=(
        ("attn_logit_softcapping", "attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", "final_logit_softcapping", 30.0),
    ),
    sliding=True,
)
_GEMMA3 = replace(
    _GEMMA2,
    name="gemma3",
    class_name="Gemma3ForCausalLM",
    parts=_GEMMA2.parts | _QK_NORMS,
    theta=1e6,
    floats=(),
    must=(_ONE_WAY, ("attn_logit_softcapping", None, (None,)), ("final_logit_softcapping", None, (None,))),
    output="any",
)
_PHI3 = replace(
    _QWEN2,
    name="phi3",
    class_name="Phi3ForCausalLM",
    parts={
        "self_attn.qkv_proj": "attn_qkv",
        "self_attn.o_proj": "attn_output",
        # Gate and up lie one over the other in both.
        "mlp.gate_up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    | _NORMS,
    biases=frozenset(),
    partial_rotary=1.0,
    eps=("rms_norm_eps", 1e-5),
)
_GRANITE = replace(
    _LLAMA,
    name="granite",
    class_name="GraniteForCausalLM",
    floats=(
        ("attention.scale", "attention_multiplier", 1.0),
        ("embedding_scale", "embedding_multiplier", 1.0),
        ("residual_scale", "residual_multiplier", 1.0),
        ("logit_scale", "logits_scaling", 1.0),
    ),
    square=True,
)
_OLMO2 = replace(
    _QWEN2,
    name="olmo2",
    class_name="Olmo2ForCausalLM",
    parts=_ATTENTION | _GATED | _QK_NORMS | _AROUND,
    biases=frozenset(),
    eps=("rms_norm_eps", 1e-5),
    output="own",
)
# Every layer has a bias, norms too.
_STARCODER2 = replace(
    _QWEN2,
    name="starcoder2",
    class_name="Starcoder2ForCausalLM",
    parts=_ATTENTION | _NORMS | {"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"},
    biases=frozenset({*_ATTENTION.values(), *_NORMS.values(), "ffn_up", "ffn_down", "output_norm"}),
    needs_biases=True,
    layer_norm=True,
    eps=("norm_epsilon", 1e-5),
    act="gelu",
)
_GPT_NEOX = replace(
    _STARCODER2,
    name="gptneox",
    class_name="GPTNeoXForCausalLM",
    parts={
        "attention.query_key_value": "attn_qkv",
        "attention.dense": "attn_output",
        "mlp.dense_h_to_4h": "ffn_up",
        "mlp.dense_4h_to_h": "ffn_down",
    }
    | _NORMS,
    whole={
        "gpt_neox.embed_in": "token_embd",
        "gpt_neox.final_layer_norm": "output_norm",
        "embed_out": "output",
    },
    blocks="gpt_neox.layers",
    biases=frozenset({"attn_qkv", "attn_output", *_NORMS.values(), "ffn_up", "ffn_down", "output_norm"}),
    partial_rotary=0.25,
    fused_by_head=True,
    eps=("layer_norm_eps", 1e-5),
    output="own",
)
_PHI = replace(
    _STARCODER2,
    name="phi2",
    class_name="PhiForCausalLM",
    parts=_QKV
    | {
        "self_attn.dense": "attn_output",
        "mlp.fc1": "ffn_up",
        "mlp.fc2": "ffn_down",
        "input_layernorm": "attn_norm",
    },
    whole=_WHOLE | {"model.final_layernorm": "output_norm"},
    biases=frozenset({*_ATTENTION.values(), "attn_norm", "ffn_up", "ffn_down", "output_norm", "output"}),
    partial_rotary=0.5,
    eps=("layer_norm_eps", 1e-5),
    must=(("qk_layernorm", False, (False,)),),
    output="own",
)
_MIXTRAL = replace(
    _LLAMA,
    class_name="MixtralForCausalLM",
    parts=_ATTENTION | _NORMS | _MIXTRAL_EXPERTS,
    theta=1e6,
    eps=("rms_norm_eps", 1e-5),
)
_QWEN2_MOE = replace(
    _QWEN2,
    name="qwen2moe",
    class_name="Qwen2MoeForCausalLM",
    parts=_ATTENTION | _NORMS | _EXPERTS | _SHARED,
    must=(
        ("norm_topk_prob", False, (False,)),
        ("decoder_sparse_step", 1, (1,)),
        ("mlp_only_layers", None, ([], None)),
    ),
    output="own",
)
_QWEN3_MOE = replace(
    _QWEN3,
    name="qwen3moe",
    class_name="Qwen3MoeForCausalLM",
    parts=_ATTENTION | _NORMS | _EXPERTS | _QK_NORMS,
    must=(("norm_topk_prob", False, (True,)), *_QWEN2_MOE.must[1:]),
)
_OLMO = replace(
    _LLAMA,
    name="olmo",
    class_name="OlmoForCausalLM",
    parts=_ATTENTION | _GATED,
    # Its norms have no weights.
    whole={module: part for module, part in _WHOLE.items() if part != "output_norm"},
    biases=frozenset(),
    factors=False,
    layer_norm=True,
    eps=(None, 1e-5),
    floats=(("attention.clamp_kqv", "clip_qkv", None),),
    square=True,
)
_OLMOE = replace(
    _QWEN3_MOE,
    name="olmoe",
    class_name="OlmoeForCausalLM",
    biases=frozenset(),
    eps=("rms_norm_eps", 1e-5),
    must=(("norm_topk_prob", False, (False,)), ("clip_qkv", None, (None,))),
    square=True,
    output="own",
)

ARCHITECTURES: Mapping[str, GgufArchitecture] = MappingProxyType(
    {
        "llama": _LLAMA,
        "mistral": replace(_LLAMA, class_name="MistralForCausalLM"),
        "qwen2": _QWEN2,
        "qwen3": _QWEN3,
        "gemma": _GEMMA,
        "gemma2": _GEMMA2,
        "gemma3_text": _GEMMA3,
        "phi3": _PHI3,
        "granite": _GRANITE,
        "olmo2": _OLMO2,
        "starcoder2": _STARCODER2,
        "gpt_neox": _GPT_NEOX,
        "mixtral": _MIXTRAL,
        "qwen2_moe": _QWEN2_MOE,
        "qwen3_moe": _QWEN3_MOE,
        "phi": _PHI,
        "smollm3": replace(
            _LLAMA,
            name="smollm3",
            class_name="SmolLM3ForCausalLM",
            biases=_QKV_BIASES,
            factors=False,
            theta=2e6,
        ),
        "olmo": _OLMO,
        "olmoe": _OLMOE,
        "seed_oss": replace(
            _QWEN2,
            name="seed_oss",
            class_name="SeedOssForCausalLM",
            parts=_LLAMA.parts | {"post_attention_layernorm": "post_attention_norm"},
            square=False,
        ),
    }
)
# Where the class is another: names that most models use, for counting only.
USUAL = replace(_LLAMA, parts=_LLAMA.parts | _QK_NORMS | _MIXTRAL_EXPERTS | _EXPERTS | _SHARED | _PHI3.parts)


def gguf_architecture(config: Mapping[str, Any]) -> GgufArchitecture:
    """The architecture of a config.json. Raises InputError where GGUF files of it are not written."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        why = "which llama.cpp does not compute" if kind == "opt" else "which are not among those known"
        raise InputError(
            f"no GGUF file is written of {kind!r} models, {why} ({', '.join(ARCHITECTURES)}); "
            "bring a .gguf, or use transformers"
        )
    return ARCHITECTURES[str(kind)]


def architecture_of_class(class_name: str) -> GgufArchitecture | None:
    """The architecture by the name of Transformers' class; None where it is not listed."""
    return next((found for found in ARCHITECTURES.values() if found.class_name == class_name), None)
