"""Decoders with mixtures of experts, some of them with latent attention (see ``families``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from quantwise.models.dense_families import LLAMA, OLMO2, QWEN2, QWEN3
from quantwise.models.family import (
    BIASED_WHOLE,
    FEED_FORWARD,
    GATED,
    LAYER_NORMS,
    OUT,
    PLAIN,
    QK_NORMS,
    QKV,
    SWITCHED,
    Family,
    biased,
)
from quantwise.models.fields import Fields
from quantwise.models.layer_kinds import (
    all_full,
    all_sliding,
    all_sliding_if_used,
    dots_kinds,
    llama4_kinds,
    sliding_but_every,
)
from quantwise.models.layer_sizes import (
    deepseek_sizes,
    llama4_sizes,
)


def every(fields: Fields, layer: int) -> bool:
    return True


def qwen_sparse(fields: Fields, layer: int) -> bool:
    step = fields.size("decoder_sparse_step", 1)
    return layer not in (fields.number_list("mlp_only_layers") or ()) and (layer + 1) % step == 0


def _after_the_first(fields: Fields, layer: int) -> bool:
    return layer >= fields.size("first_k_dense_replace", 0, least=0)


def _llama4_sparse(fields: Fields, layer: int) -> bool:
    listed = fields.number_list("moe_layers")
    step = fields.size("interleave_moe_layer_step", 1, least=0)
    return layer in listed if listed else step > 0 and (layer + 1) % step == 0


EXPERTS = ("mlp.experts.*.gate_proj m,h", "mlp.experts.*.up_proj m,h", "mlp.experts.*.down_proj h,m")
ROUTER = ("mlp.gate e,h",)
SHARED = (
    "mlp.shared_expert.gate_proj s,h ?s",
    "mlp.shared_expert.up_proj s,h ?s",
    "mlp.shared_expert.down_proj h,s ?s",
    "mlp.shared_expert_gate 1,h ?s",
)
_SHARED_PLURAL = tuple(line.replace("shared_expert.", "shared_experts.") for line in SHARED[:3])
_MIXTRAL_EXPERTS = tuple(
    f"block_sparse_moe.{line}" for line in ("experts.*.w1 m,h", "experts.*.w3 m,h", "experts.*.w2 h,m", "gate e,h")
)
_CORRECTION = ("mlp.gate.e_score_correction_bias! e",)
FUSED_EXPERTS = (
    "block_sparse_moe.input_linear e,2*m,h",
    "block_sparse_moe.output_linear e,h,m",
    "block_sparse_moe.router.layer e,h",
)
_MIXTRAL = Family(
    PLAIN, (), experts=_MIXTRAL_EXPERTS, sparse=every, kinds=all_sliding, defaults={"num_local_experts": 8}
)
_QWEN2_MOE = replace(
    QWEN2,
    attention=biased(QKV, "+qkv_bias") + OUT,
    experts=EXPERTS + ROUTER + SHARED,
    sparse=qwen_sparse,
    defaults={"qkv_bias": True},
)
_QWEN3_MOE = replace(QWEN3, experts=EXPERTS + ROUTER, sparse=qwen_sparse, kinds=all_sliding_if_used)
_LATENT = (
    "self_attn.q_proj q,h ?direct",
    "self_attn.q_a_proj lq,h ?lq +attention_bias",
    "self_attn.q_a_layernorm lq ?lq",
    "self_attn.q_b_proj q,lq ?lq",
    "self_attn.kv_a_proj_with_mqa lr,h +attention_bias",
    "self_attn.kv_a_layernorm l",
    "self_attn.kv_b_proj lb,l",
    "self_attn.o_proj h,o +attention_bias",
)
_DEEPSEEK2 = Family(
    _LATENT,
    GATED,
    experts=EXPERTS + ROUTER + _SHARED_PLURAL,
    sparse=_after_the_first,
    sizes=deepseek_sizes,
)
_GPT_OSS = Family(
    (*SWITCHED, "self_attn.sinks! heads"),
    (),
    experts=(
        "mlp.experts.gate_up_proj! e,h,2*m",
        "mlp.experts.gate_up_proj_bias! e,2*m",
        "mlp.experts.down_proj! e,m,h",
        "mlp.experts.down_proj_bias! e,h",
        "mlp.router e,h +",
    ),
    sparse=every,
    kinds=sliding_but_every(2),
    defaults={"attention_bias": True, "head_dim": 64, "num_local_experts": 128, "sliding_window": 128},
)
_LLAMA4 = Family(
    SWITCHED,
    FEED_FORWARD,
    experts=(
        "feed_forward.experts.gate_up_proj! e,h,2*m",
        "feed_forward.experts.down_proj! e,m,h",
        "feed_forward.router e,h",
        "feed_forward.shared_expert.gate_proj m,h",
        "feed_forward.shared_expert.up_proj m,h",
        "feed_forward.shared_expert.down_proj h,m",
    ),
    sparse=_llama4_sparse,
    sizes=llama4_sizes,
    kinds=llama4_kinds,
    window="attention_chunk_size",
    defaults={
        "attention_chunk_size": 8192,
        "num_local_experts": 16,
        "head_dim": 128,
        "vocab_size": 202048,
        "num_experts_per_tok": 1,
    },
)
GRANITE_MOE = Family(SWITCHED, (), experts=FUSED_EXPERTS, sparse=every, defaults={"num_local_experts": 8})

MIXED: Mapping[str, Family] = MappingProxyType(
    {
        "mixtral": _MIXTRAL,
        "phimoe": replace(
            _MIXTRAL,
            attention=SWITCHED,
            norms=LAYER_NORMS,
            whole=BIASED_WHOLE,
            output="lm_head v,h +lm_head_bias",
            defaults={"num_local_experts": 16},
        ),
        "qwen2_moe": _QWEN2_MOE,
        "qwen3_moe": _QWEN3_MOE,
        "olmoe": replace(
            OLMO2, norms=LLAMA.norms, experts=EXPERTS + ROUTER, sparse=every, defaults={"num_experts": 64}
        ),
        "deepseek_v2": _DEEPSEEK2,
        "deepseek_v3": replace(_DEEPSEEK2, experts=_DEEPSEEK2.experts + _CORRECTION,
                               defaults={"first_k_dense_replace": 3}),
        "glm4_moe": Family(
            (*biased(QKV, "+attention_bias"), *OUT, *(f"{line} ?use_qk_norm" for line in QK_NORMS)),
            GATED,
            experts=_DEEPSEEK2.experts + _CORRECTION,
            sparse=_after_the_first,
            defaults={"first_k_dense_replace": 1},
        ),
        "dots1": Family(
            SWITCHED + QK_NORMS,
            GATED,
            experts=_DEEPSEEK2.experts + _CORRECTION,
            sparse=_after_the_first,
            kinds=dots_kinds,
            defaults={"sliding_window": 4096},
        ),
        "minimax_m2": replace(
            _MIXTRAL,
            attention=(*PLAIN, "self_attn.q_norm q", "self_attn.k_norm kv"),
            experts=(*_MIXTRAL_EXPERTS, "block_sparse_moe.e_score_correction_bias! e"),
            kinds=all_full,
        ),
        "gpt_oss": _GPT_OSS,
        "llama4_text": _LLAMA4,
        "granitemoe": GRANITE_MOE,
    }
)  # fmt: skip
