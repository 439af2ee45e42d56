"""Decoders some of whose layers keep a state of fixed size instead of a cache that grows (see ``families``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from quantwise.models.family import FEED_FORWARD, GATED, PLAIN, QK_NORMS, QKV, SWITCHED, TIED, Family, biased
from quantwise.models.fields import Fields
from quantwise.models.layer_kinds import all_both, all_recurrent, conv_beside, jamba_kinds, linear_beside
from quantwise.models.layer_sizes import (
    jamba_sizes,
    lfm2_moe_sizes,
    lfm2_sizes,
    mamba2_beside_sizes,
    mamba2_sizes,
    mamba_sizes,
    qwen3_next_sizes,
)
from quantwise.models.mixed_families import EXPERTS, FUSED_EXPERTS, GRANITE_MOE, ROUTER, SHARED, every, qwen_sparse


def _after_the_dense(fields: Fields, layer: int) -> bool:
    return layer >= fields.size("num_dense_layers", 2, least=0)


def _jamba_sparse(fields: Fields, layer: int) -> bool:
    period, offset = fields.size("expert_layer_period", 2), fields.size("expert_layer_offset", 1, least=0)
    return fields.size("num_experts", 16) > 1 and layer % period == offset


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
    experts=EXPERTS + ROUTER + SHARED,
    recurrent=(
        "linear_attn.A_log! mh",
        "linear_attn.dt_bias! mh",
        "linear_attn.conv1d mc,1,mk",
        "linear_attn.in_proj_ba 2*mh,h",
        "linear_attn.in_proj_qkvz mp,h",
        "linear_attn.norm md",
        "linear_attn.out_proj h,mi",
    ),
    sparse=qwen_sparse,
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

STATEFUL: Mapping[str, Family] = MappingProxyType(
    {
        "qwen3_5_text": replace(_QWEN3_NEXT, experts=(), sparse=None, recurrent=_DELTA_NET_SPLIT),
        "qwen3_5_moe_text": replace(_QWEN3_NEXT, recurrent=_DELTA_NET_SPLIT, sparse=every),
        "qwen3_next": _QWEN3_NEXT,
        "jamba": _JAMBA,
        "mamba": _MAMBA_ONLY,
        "mamba2": _MAMBA2_ONLY,
        "granitemoehybrid": replace(
            GRANITE_MOE,
            experts=(*(f"{line} ?e" for line in FUSED_EXPERTS), "shared_mlp.input_linear 2*s,h",
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
