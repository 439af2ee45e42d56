"""Decoders whose every layer is attention and one dense feed-forward layer (see ``families``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from quantwise.models.family import (
    BIASED_WHOLE,
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
    all_sliding,
    qwen2_kinds,
    sliding_but_every,
)
from quantwise.models.layer_sizes import falcon_sizes, gemma4_layer, gemma4_sizes, opt_sizes


def _with_experts(fields: Fields, layer: int) -> bool:
    return fields.flag("enable_moe_block")


_AROUND = ("pre_feedforward_layernorm h", "post_feedforward_layernorm h")
LLAMA = Family(SWITCHED, biased(GATED, "+mlp_bias"))
QWEN2 = Family(biased(QKV) + OUT, GATED, kinds=qwen2_kinds)
QWEN3 = replace(QWEN2, attention=SWITCHED + QK_NORMS)
_GEMMA = Family(SWITCHED, GATED, defaults=TIED | {"head_dim": 256})
_GEMMA2 = replace(
    _GEMMA,
    norms=LLAMA.norms + _AROUND,
    kinds=sliding_but_every(2),
    defaults={**_GEMMA.defaults, "sliding_window": 4096},
)
_GEMMA3 = replace(
    _GEMMA2,
    attention=SWITCHED + QK_NORMS,
    kinds=sliding_but_every(6),
    # Published configs of the larger ones say no more than what differs from these.
    defaults={
        **_GEMMA2.defaults,
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
    },
)
_GEMMA4 = Family(
    (
        "self_attn.q_proj q,h +attention_bias",
        "self_attn.k_proj kv,h +attention_bias ?own",
        "self_attn.v_proj kv,h +attention_bias ?values",
        "self_attn.o_proj h,o +attention_bias",
        "self_attn.q_norm d",
        "self_attn.k_norm d ?own",
    ),
    GATED,
    norms=(
        *_GEMMA2.norms,
        "layer_scalar! 1",
        "per_layer_input_gate p,h ?p",
        "per_layer_projection h,p ?p",
        "post_per_layer_input_norm h ?p",
    ),
    experts=(
        *GATED,
        "router.proj e,h",
        "router.scale! h",
        "router.per_expert_scale! e",
        "experts.gate_up_proj! e,2*m,h",
        "experts.down_proj! e,h,m",
        "post_feedforward_layernorm_1 h",
        "post_feedforward_layernorm_2 h",
        "pre_feedforward_layernorm_2 h",
    ),
    sparse=_with_experts,
    whole=(
        "model.embed_tokens v,h",
        "model.norm h",
        "model.embed_tokens_per_layer pv,pa ?p",
        "model.per_layer_model_projection pa,h ?p",
        "model.per_layer_projection_norm p ?p",
    ),
    sizes=gemma4_sizes,
    kinds=sliding_but_every(6),
    defaults={**TIED, "head_dim": 256, "num_key_value_heads": 4, "vocab_size": 262144, "sliding_window": 512},
    adjust=gemma4_layer,
)
OLMO2 = Family(
    (*SWITCHED, "self_attn.q_norm q", "self_attn.k_norm kv"),
    GATED,
    norms=("post_attention_layernorm h", "post_feedforward_layernorm h"),
)
_STARCODER2 = Family(
    biased(PLAIN, "+use_bias"),
    biased(("mlp.c_fc f,h", "mlp.c_proj h,f"), "+use_bias"),
    norms=LAYER_NORMS,
    whole=BIASED_WHOLE,
    kinds=all_sliding,
    defaults=TIED | {"use_bias": True},
)
_OPT_NORM = " +layer_norm_elementwise_affine ?layer_norm_elementwise_affine"
_OPT = Family(
    biased((*QKV, "self_attn.out_proj h,q"), "+enable_bias"),
    biased(("fc1 f,h", "fc2 h,f"), "+enable_bias"),
    norms=(f"self_attn_layer_norm h{_OPT_NORM}", f"final_layer_norm h{_OPT_NORM}"),
    blocks="model.decoder.layers",
    whole=(
        "model.decoder.embed_tokens v,w",
        "model.decoder.embed_positions n,h",
        "model.decoder.project_in h,w ?projected",
        "model.decoder.project_out w,h ?projected",
        f"model.decoder.final_layer_norm h{_OPT_NORM} ?final_norm",
    ),
    output="lm_head v,w",
    sizes=opt_sizes,
    defaults=TIED | {"enable_bias": True, "layer_norm_elementwise_affine": True, "do_layer_norm_before": True},
)

DENSE: Mapping[str, Family] = MappingProxyType(
    {
        "llama": LLAMA,
        "mistral": Family(PLAIN, GATED, kinds=all_sliding),
        "qwen2": QWEN2,
        "qwen3": QWEN3,
        "gemma": _GEMMA,
        "gemma2": _GEMMA2,
        "gemma3_text": _GEMMA3,
        "gemma4_text": _GEMMA4,
        "phi3": Family(
            ("self_attn.qkv_proj q3,h", "self_attn.o_proj h,q"),
            ("mlp.gate_up_proj 2*f,h", "mlp.down_proj h,f"),
            kinds=all_sliding,
        ),
        "granite": LLAMA,
        "smollm3": LLAMA,
        "seed_oss": Family(
            biased(QKV, "+attention_bias") + biased(OUT, "+attention_out_bias"),
            biased(GATED, "+mlp_bias"),
            defaults={"attention_bias": True, "head_dim": 128},
        ),
        "olmo": replace(LLAMA, dense=GATED, norms=(), whole=("model.embed_tokens v,h",)),
        "olmo2": OLMO2,
        "olmo3": replace(OLMO2, kinds=sliding_but_every(4), defaults={"sliding_window": 4096}),
        "starcoder2": _STARCODER2,
        "gpt_neox": Family(
            biased(("attention.query_key_value 3*q,h", "attention.dense h,q"), "+attention_bias"),
            biased(("mlp.dense_h_to_4h f,h", "mlp.dense_4h_to_h h,f")),
            norms=LAYER_NORMS,
            blocks="gpt_neox.layers",
            whole=("gpt_neox.embed_in v,h", "gpt_neox.final_layer_norm h +"),
            output="embed_out v,h",
            defaults={"attention_bias": True},
        ),
        "opt": _OPT,
        "phi": Family(
            (*biased((*QKV, "self_attn.dense h,q")), "self_attn.q_layernorm d + ?qk_layernorm",
             "self_attn.k_layernorm d + ?qk_layernorm"),
            biased(("mlp.fc1 f,h", "mlp.fc2 h,f")),
            norms=("input_layernorm h +",),
            whole=("model.embed_tokens v,h", "model.final_layernorm h +"),
            output="lm_head v,h +",
        ),
        "cohere": Family(
            (*SWITCHED, "self_attn.q_norm heads,d ?use_qk_norm", "self_attn.k_norm kv_heads,d ?use_qk_norm"),
            GATED,
            norms=("input_layernorm h",),
            defaults=TIED,
        ),
        "cohere2": Family(
            SWITCHED,
            GATED,
            norms=("input_layernorm h",),
            kinds=sliding_but_every(4),
            defaults=TIED | {"sliding_window": 4096},
        ),
        "exaone4": replace(
            OLMO2,
            attention=PLAIN + QK_NORMS,
            kinds=sliding_but_every(4),
            defaults={"sliding_window": 4096},
        ),
        "falcon": Family(
            biased(("self_attention.query_key_value q3,h", "self_attention.dense h,q"), "+bias"),
            biased(("mlp.dense_h_to_4h f,h", "mlp.dense_4h_to_h h,f"), "+bias"),
            norms=(
                "input_layernorm h + ?one_norm",
                "post_attention_layernorm h + ?norm_after",
                "ln_attn h + ?two_norms",
                "ln_mlp h + ?two_norms",
            ),
            blocks="transformer.h",
            whole=("transformer.word_embeddings v,h", "transformer.ln_f h +"),
            sizes=falcon_sizes,
            defaults=TIED | {"multi_query": True, "parallel_attn": True, "max_position_embeddings": 2048},
        ),
        "ministral3": Family(PLAIN, GATED, kinds=all_sliding),
        "glm4": Family(
            biased(QKV, "+attention_bias") + OUT,
            ("mlp.gate_up_proj 2*f,h", "mlp.down_proj h,f"),
            norms=(*LLAMA.norms, "post_self_attn_layernorm h", "post_mlp_layernorm h"),
            defaults={"attention_bias": True},
        ),
        "hunyuan_v1_dense": Family(
            (*SWITCHED, "self_attn.query_layernorm d", "self_attn.key_layernorm d"), GATED
        ),
        "arcee": Family(SWITCHED, biased(("mlp.up_proj f,h", "mlp.down_proj h,f"), "+mlp_bias")),
        "ernie4_5": Family(biased(PLAIN, "+use_bias"), biased(GATED, "+use_bias"), defaults=TIED | {"head_dim": 128}),
        "stablelm": Family(
            (*biased(QKV, "+use_qkv_bias"), *OUT),
            GATED,
            norms=LAYER_NORMS,
            whole=BIASED_WHOLE,
        ),
        "nemotron": Family(
            SWITCHED,
            biased(("mlp.up_proj f,h", "mlp.down_proj h,f"), "+mlp_bias"),
            norms=LAYER_NORMS,
            whole=BIASED_WHOLE,
        ),
    }
)  # fmt: skip
