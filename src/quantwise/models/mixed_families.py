"""Decoders with mixtures of experts, latent attention, or layers that keep a state (see ``families``)."""

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
    TIED,
    Family,
    biased,
)
from quantwise.models.fields import Fields
from quantwise.models.layer_kinds import (
    all_both,
    all_full,
    all_recurrent,
    all_sliding,
    all_sliding_if_used,
    conv_beside,
    dots_kinds,
    jamba_kinds,
    linear_beside,
    llama4_kinds,
    sliding_but_every,
)
from quantwise.models.layer_sizes import (
    deepseek_sizes,
    jamba_sizes,
    lfm2_moe_sizes,
    lfm2_sizes,
    llama4_sizes,
    mamba2_beside_sizes,
    mamba2_sizes,
    mamba_sizes,
    qwen3_next_sizes,
)


def _every(fields: Fields, layer: int) -> bool:
    return True


def _qwen_sparse(fields: Fields, layer: int) -> bool:
    step = fields.size("decoder_sparse_step", 1)
    return layer not in (fields.number_list("mlp_only_layers") or ()) and (layer + 1) % step == 0


def _after_the_first(fields: Fields, layer: int) -> bool:
    return layer >= fields.size("first_k_dense_replace", 0, least=0)


def _after_the_dense(fields: Fields, layer: int) -> bool:
    return layer >= fields.size("num_dense_layers", 2, least=0)


def _llama4_sparse(fields: Fields, layer: int) -> bool:
    listed = fields.number_list("moe_layers")
    step = fields.size("interleave_moe_layer_step", 1, least=0)
    return layer in listed if listed else step > 0 and (layer + 1) % step == 0


def _jamba_sparse(fields: Fields, layer: int) -> bool:
    period, offset = fields.size("expert_layer_period", 2), fields.size("expert_layer_offset", 1, least=0)
    return fields.size("num_experts", 16) > 1 and layer % period == offset


_EXPERTS = ("mlp.experts.*.gate_proj m,h", "mlp.experts.*.up_proj m,h", "mlp.experts.*.down_proj h,m")
_ROUTER = ("mlp.gate e,h",)
_SHARED = (
    "mlp.shared_expert.gate_proj s,h ?s",
    "mlp.shared_expert.up_proj s,h ?s",
    "mlp.shared_expert.down_proj h,s ?s",
    "mlp.shared_expert_gate 1,h ?s",
)
_SHARED_PLURAL = tuple(line.replace("shared_expert.", "shared_experts.") for line in _SHARED[:3])
_MIXTRAL_EXPERTS = tuple(
    f"block_sparse_moe.{line}" for line in ("experts.*.w1 m,h", "experts.*.w3 m,h", "experts.*.w2 h,m", "gate e,h")
)
_CORRECTION = ("mlp.gate.e_score_correction_bias! e",)
_FUSED_EXPERTS = (
    "block_sparse_moe.input_linear e,2*m,h",
    "block_sparse_moe.output_linear e,h,m",
    "block_sparse_moe.router.layer e,h",
)
_MAMBA2 = (
    "mamba.A_log! mh",
    "mamba.D! mh",
    "mamba.dt_bias! mh",
    "mamba.conv1d mc,1,mk +mamba_conv_bias",
    "mamba.in_proj mp,h +mamba_proj_bias",
    "mamba.out_proj h,mi +mamba_proj_bias",
)
_MAMBA = ("A_log! mi,ms", "D! mi", "conv1d mi,1,mk +{0}", "dt_proj mi,mr +", "in_proj 2*mi,h +{1}",
          "out_proj h,mi +{1}", "x_proj mx,mi")  # fmt: skip
_MIXTRAL = Family(
    PLAIN, (), experts=_MIXTRAL_EXPERTS, sparse=_every, kinds=all_sliding, defaults={"num_local_experts": 8}
)
_QWEN2_MOE = replace(
    QWEN2,
    attention=biased(QKV, "+qkv_bias") + OUT,
    experts=_EXPERTS + _ROUTER + _SHARED,
    sparse=_qwen_sparse,
    defaults={"qkv_bias": True},
)
_QWEN3_MOE = replace(QWEN3, experts=_EXPERTS + _ROUTER, sparse=_qwen_sparse, kinds=all_sliding_if_used)
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
    experts=_EXPERTS + _ROUTER + _SHARED_PLURAL,
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
    sparse=_every,
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
_DELTA_NET_SPLIT = (
    "linear_attn.A_log! mh",
    "linear_attn.dt_bias! mh",
    "linear_attn.conv1d mc,1,mk",
    "linear_attn.in_proj_a mh,h",
    "linear_attn.in_proj_b mh,h",
    "linear_attn.in_proj_qkv mc,h",
    "linear_attn.in_proj_z mi,h",
    "linear_attn.norm md",
    "linear_attn.out_proj h,mi",
)
_QWEN3_NEXT = Family(
    ("self_attn.q_proj 2*q,h +attention_bias", *SWITCHED[1:], *QK_NORMS),
    GATED,
    experts=_EXPERTS + _ROUTER + _SHARED,
    recurrent=(
        "linear_attn.A_log! mh",
        "linear_attn.dt_bias! mh",
        "linear_attn.conv1d mc,1,mk",
        "linear_attn.in_proj_ba 2*mh,h",
        "linear_attn.in_proj_qkvz mp,h",
        "linear_attn.norm md",
        "linear_attn.out_proj h,mi",
    ),
    sparse=_qwen_sparse,
    sizes=qwen3_next_sizes,
    kinds=linear_beside,
    defaults={"head_dim": 256},
)
_JAMBA = Family(
    PLAIN,
    FEED_FORWARD,
    norms=("input_layernorm h", "pre_ff_layernorm h"),
    experts=(*(line.replace("feed_forward.", "feed_forward.experts.*.") for line in FEED_FORWARD),
             "feed_forward.router e,h"),
    recurrent=(
        *(f"mamba.{line}".format("mamba_conv_bias", "mamba_proj_bias") for line in _MAMBA),
        "mamba.dt_layernorm mr",
        "mamba.b_layernorm ms",
        "mamba.c_layernorm ms",
    ),
    sparse=_jamba_sparse,
    whole=("model.embed_tokens v,h", "model.final_layernorm h"),
    sizes=jamba_sizes,
    kinds=jamba_kinds,
    defaults={"mamba_conv_bias": True, "num_experts": 16, "num_experts_per_tok": 2},
)  # fmt: skip
_MAMBA_ONLY = Family(
    (),
    (),
    norms=("norm h",),
    recurrent=tuple(f"mixer.{line}".format("use_conv_bias", "use_bias") for line in _MAMBA),
    blocks="backbone.layers",
    whole=("backbone.embeddings v,h", "backbone.norm_f h"),
    sizes=mamba_sizes,
    kinds=all_recurrent,
    defaults=TIED | {"use_conv_bias": True},
)
_MAMBA2_ONLY = replace(
    _MAMBA_ONLY,
    recurrent=(
        *(line.replace("mamba.", "mixer.").replace("mamba_conv_bias", "use_conv_bias")
          .replace("mamba_proj_bias", "use_bias") for line in _MAMBA2),
        "mixer.norm mi",
    ),
    sizes=mamba2_sizes,
    defaults={"use_conv_bias": True},
)  # fmt: skip
_GRANITE_MOE = Family(SWITCHED, (), experts=_FUSED_EXPERTS, sparse=_every, defaults={"num_local_experts": 8})

_LFM2 = Family(
    (*QKV, "self_attn.out_proj h,q", "self_attn.q_layernorm d", "self_attn.k_layernorm d"),
    ("feed_forward.w1 f,h", "feed_forward.w3 f,h", "feed_forward.w2 h,f"),
    norms=("operator_norm h", "ffn_norm h"),
    recurrent=("conv.conv h,1,mk +conv_bias", "conv.in_proj 3*h,h +conv_bias", "conv.out_proj h,h +conv_bias"),
    whole=("model.embed_tokens v,h", "model.embedding_norm h"),
    sizes=lfm2_sizes,
    kinds=conv_beside,
    defaults=TIED,
)

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
            OLMO2, norms=LLAMA.norms, experts=_EXPERTS + _ROUTER, sparse=_every, defaults={"num_experts": 64}
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
        "qwen3_5_text": replace(_QWEN3_NEXT, experts=(), sparse=None, recurrent=_DELTA_NET_SPLIT),
        "qwen3_5_moe_text": replace(_QWEN3_NEXT, recurrent=_DELTA_NET_SPLIT, sparse=_every),
        "gpt_oss": _GPT_OSS,
        "llama4_text": _LLAMA4,
        "qwen3_next": _QWEN3_NEXT,
        "jamba": _JAMBA,
        "mamba": _MAMBA_ONLY,
        "mamba2": _MAMBA2_ONLY,
        "granitemoe": _GRANITE_MOE,
        "granitemoehybrid": replace(
            _GRANITE_MOE,
            experts=(*(f"{line} ?e" for line in _FUSED_EXPERTS), "shared_mlp.input_linear 2*s,h",
                     "shared_mlp.output_linear h,s"),
            recurrent=(*_MAMBA2, "mamba.norm mi"),
            sizes=mamba2_beside_sizes,
            kinds=all_recurrent,
            defaults={"mamba_conv_bias": True},
        ),
        "falcon_h1": Family(
            SWITCHED,
            biased(FEED_FORWARD, "+mlp_bias"),
            norms=("input_layernorm h", "pre_ff_layernorm h"),
            recurrent=(*_MAMBA2, "mamba.norm mi ?mamba_rms_norm"),
            whole=("model.embed_tokens v,h", "model.final_layernorm h"),
            sizes=mamba2_beside_sizes,
            kinds=all_both,
            defaults={"mamba_conv_bias": True},
        ),
        "lfm2": _LFM2,
        "lfm2_moe": replace(
            _LFM2,
            experts=(
                "feed_forward.experts.*.w1 m,h",
                "feed_forward.experts.*.w3 m,h",
                "feed_forward.experts.*.w2 h,m",
                "feed_forward.gate e,h",
                "feed_forward.expert_bias! e",
            ),
            sparse=_after_the_dense,
            sizes=lfm2_moe_sizes,
        ),
    }
)  # fmt: skip
