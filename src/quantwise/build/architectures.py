"""What the modules of a decoder-only Transformers model are, as data: blocks, linear layers, norms, and who feeds whom.

Read from the model files of Transformers 5. A model type that is not listed is refused, since a module in an unknown
place could read anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quantwise.build.architecture import Architecture, Group
from quantwise.core.errors import InputError

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATED = ("mlp.gate_proj", "mlp.up_proj")
_INTO_ATTENTION = Group("input_layernorm", _QKV)
_VALUES = Group("self_attn.v_proj", ("self_attn.o_proj",))
_GATE = Group("mlp.up_proj", ("mlp.down_proj",))
_QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")

_LLAMA = Architecture(
    blocks="model.layers",
    embeddings=("model.embed_tokens",),
    final_norm="model.norm",
    attention=(*_QKV, "self_attn.o_proj"),
    feed_forward=(*_GATED, "mlp.down_proj"),
    norms=("input_layernorm", "post_attention_layernorm"),
    groups=(_INTO_ATTENTION, _VALUES, Group("post_attention_layernorm", _GATED), _GATE),
)
_QWEN3 = replace(_LLAMA, norms=(*_LLAMA.norms, *_QK_NORMS))
_GEMMA2 = replace(
    _LLAMA,
    norms=(*_LLAMA.norms, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    groups=(_INTO_ATTENTION, _VALUES, Group("pre_feedforward_layernorm", _GATED), _GATE),
    norm_offset=1.0,
)
_PHI3 = replace(
    _LLAMA,
    attention=("self_attn.qkv_proj", "self_attn.o_proj"),
    feed_forward=("mlp.gate_up_proj", "mlp.down_proj"),
    groups=(
        Group("input_layernorm", ("self_attn.qkv_proj",)),
        Group("self_attn.qkv_proj", ("self_attn.o_proj",), rows="values"),
        Group("post_attention_layernorm", ("mlp.gate_up_proj",)),
        Group("mlp.gate_up_proj", ("mlp.down_proj",), rows="second half"),
    ),
)
# Attention and feed-forward layer read the same norm side by side.
_PHI = replace(
    _LLAMA,
    final_norm="model.final_layernorm",
    attention=(*_QKV, "self_attn.dense"),
    feed_forward=("mlp.fc1", "mlp.fc2"),
    norms=("input_layernorm", "self_attn.q_layernorm", "self_attn.k_layernorm"),
    groups=(
        Group("input_layernorm", (*_QKV, "mlp.fc1")),
        Group("self_attn.v_proj", ("self_attn.dense",)),
    ),
)
# Queries, keys and values of a head lie together in the rows of the fused matrix, so its values are no one block.
_GPT_NEOX = Architecture(
    blocks="gpt_neox.layers",
    embeddings=("gpt_neox.embed_in",),
    final_norm="gpt_neox.final_layer_norm",
    attention=("attention.query_key_value", "attention.dense"),
    feed_forward=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    norms=("input_layernorm", "post_attention_layernorm"),
    groups=(
        Group("input_layernorm", ("attention.query_key_value",)),
        Group("post_attention_layernorm", ("mlp.dense_h_to_4h",)),
    ),
    stored=(("lm_head.", "embed_out."),),
    base="gpt_neox",
)
# A scale passes through relu; another activation is refused in ``architecture_of``.
_OPT = Architecture(
    blocks="model.decoder.layers",
    embeddings=tuple(f"model.decoder.{n}" for n in ("embed_tokens", "embed_positions", "project_in", "project_out")),
    final_norm="model.decoder.final_layer_norm",
    attention=(*_QKV, "self_attn.out_proj"),
    feed_forward=("fc1", "fc2"),
    norms=("self_attn_layer_norm", "final_layer_norm"),
    groups=(
        Group("self_attn_layer_norm", _QKV),
        Group("self_attn.v_proj", ("self_attn.out_proj",)),
        Group("final_layer_norm", ("fc1",)),
        Group("fc1", ("fc2",)),
    ),
)
_EXPERT_GATED = ("mlp.experts.*.gate_proj", "mlp.experts.*.up_proj")
_EXPERT_GATE = Group("mlp.experts.*.up_proj", ("mlp.experts.*.down_proj",))
_MIXTRAL = replace(
    _LLAMA,
    feed_forward=(*_EXPERT_GATED, "mlp.experts.*.down_proj"),
    groups=(
        _INTO_ATTENTION,
        _VALUES,
        Group("post_attention_layernorm", _EXPERT_GATED, routers=("mlp.gate",)),
        _EXPERT_GATE,
    ),
    routers=("mlp.gate",),
    experts="mlp.experts",
    stored=(
        (".mlp.", ".block_sparse_moe."),
        (".gate_proj.", ".w1."),
        (".up_proj.", ".w3."),
        (".down_proj.", ".w2."),
    ),
)
_SHARED_GATED = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj")
# Some of its blocks may have one ordinary feed-forward layer instead of experts.
_QWEN2_MOE = replace(
    _LLAMA,
    feed_forward=(
        *_MIXTRAL.feed_forward,
        *_LLAMA.feed_forward,
        *_SHARED_GATED,
        "mlp.shared_expert.down_proj",
    ),
    groups=(
        _INTO_ATTENTION,
        _VALUES,
        Group(
            "post_attention_layernorm",
            (*_EXPERT_GATED, *_GATED, *_SHARED_GATED),
            routers=("mlp.gate", "mlp.shared_expert_gate"),
        ),
        _EXPERT_GATE,
        _GATE,
        Group("mlp.shared_expert.up_proj", ("mlp.shared_expert.down_proj",)),
    ),
    routers=("mlp.gate", "mlp.shared_expert_gate"),
    experts="mlp.experts",
)
_QWEN3_MOE = replace(_QWEN2_MOE, norms=_QWEN3.norms)
# Norms after each layer: nothing but the residual stream feeds q, k, v, gate and up.
_OLMO2 = replace(
    _QWEN3,
    norms=("post_attention_layernorm", "post_feedforward_layernorm", *_QK_NORMS),
    groups=(_VALUES, _GATE),
)
_STARCODER2 = replace(
    _LLAMA,
    feed_forward=("mlp.c_fc", "mlp.c_proj"),
    groups=(_INTO_ATTENTION, _VALUES, Group("post_attention_layernorm", ("mlp.c_fc",))),
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "granite": _LLAMA,
    "smollm3": _LLAMA,
    "seed_oss": _LLAMA,
    "olmo": replace(_LLAMA, norms=(), groups=(_GATE,)),
    "olmo2": _OLMO2,
    "qwen3": _QWEN3,
    "gemma": replace(_LLAMA, norm_offset=1.0),
    "gemma2": _GEMMA2,
    "gemma3_text": replace(_GEMMA2, norms=(*_GEMMA2.norms, *_QK_NORMS)),
    "phi3": _PHI3,
    "phi": _PHI,
    "starcoder2": _STARCODER2,
    "gpt_neox": _GPT_NEOX,
    "opt": _OPT,
    "mixtral": _MIXTRAL,
    "qwen2_moe": _QWEN2_MOE,
    "qwen3_moe": _QWEN3_MOE,
    "olmoe": _QWEN3_MOE,
}


def architecture_of(config: Mapping[str, Any], modules: Mapping[str, str]) -> Architecture:
    """The architecture of a model with this config.json; ``modules`` are all its modules that hold weights, by their
    full names, with the names of their classes.

    Raises InputError that names the modules which have no place, or the model type where it is not listed.
    """
    kind = str(config.get("model_type"))
    known = ARCHITECTURES.get(kind)
    homeless = _without_place(known or _LLAMA, modules)
    if homeless:
        shown = ", ".join(f"{name} ({modules[name]})" for name in homeless[:6])
        more = f" and {len(homeless) - 6} more" if len(homeless) > 6 else ""
        raise InputError(f"modules of this {kind!r} model have no known place: {shown}{more}; {_allowed()}")
    if known is None:
        raise InputError(f"model type {kind!r} is not known, though its modules have Llama's names; {_allowed()}")
    if kind == "opt" and config.get("activation_function", "relu") != "relu":
        return replace(known, groups=known.groups[:-1])
    return known


def _without_place(architecture: Architecture, modules: Mapping[str, str]) -> list[str]:
    """Each kind of homeless module once, with the number of the first block that has it."""
    first: dict[str, str] = {}
    for name in modules:
        if architecture.tensor_class(name) is None:
            first.setdefault(re.sub(r"\.\d+\.", ".*.", name), name)
    return list(first.values())


def _allowed() -> str:
    return f"known model types: {', '.join(ARCHITECTURES)}; bring an artifact that another tool made"
