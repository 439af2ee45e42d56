"""Tiny configs of every family, and what Transformers makes of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

_BASE: dict[str, Any] = {
    "vocab_size": 48, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
_MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
_LATENT = {
    "kv_lora_rank": 24, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 12, "num_key_value_heads": 4,
    "n_routed_experts": 4, "n_shared_experts": 2, "moe_intermediate_size": 12, "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
}  # fmt: skip
_LINEAR = {"head_dim": 12, "linear_key_head_dim": 6, "linear_value_head_dim": 10, "linear_num_key_heads": 2,
           "linear_num_value_heads": 4}  # fmt: skip
_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 6, "mamba_n_groups": 2}

# Model type, and what differs; a type may come more than once.
TINY: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 12, "tie_word_embeddings": True}),
    ("llama", {"num_key_value_heads": None}),
    ("mistral", {"sliding_window": 16}),
    ("mistral", {"sliding_window": None, "head_dim": 12}),
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 16}),
    ("qwen3", {"head_dim": 12}),
    ("gemma", {"head_dim": 12}),
    ("gemma2", {"head_dim": 12, "num_hidden_layers": 3}),
    ("gemma3_text", {"head_dim": 12, "num_hidden_layers": 7, "sliding_window": 16}),
    ("phi3", {"sliding_window": 16}),
    ("granite", {"attention_bias": True}),
    ("smollm3", {}),
    ("seed_oss", {"head_dim": 12}),
    ("olmo", {}),
    ("olmo2", {}),
    ("olmo3", {"num_hidden_layers": 5}),
    ("starcoder2", {}),
    ("gpt_neox", {}),
    ("gpt_neox", {"attention_bias": False, "tie_word_embeddings": True}),
    ("opt", {"ffn_dim": 40, "word_embed_proj_dim": 32}),
    ("opt", {"ffn_dim": 40, "word_embed_proj_dim": 20, "do_layer_norm_before": False, "enable_bias": False}),
    ("phi", {"qk_layernorm": True}),
    ("mixtral", {"num_local_experts": 4}),
    ("phimoe", {"num_local_experts": 4, "attention_bias": True, "lm_head_bias": True}),
    ("qwen2_moe", {**_MIXTURE, "shared_expert_intermediate_size": 14, "mlp_only_layers": [0]}),
    ("qwen3_moe", {**_MIXTURE, "head_dim": 12, "decoder_sparse_step": 2}),
    ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    ("deepseek_v2", {**_LATENT, "q_lora_rank": None}),
    ("deepseek_v3", {**_LATENT, "q_lora_rank": 20, "n_group": 2, "topk_group": 1}),
    ("glm4_moe", {**_LATENT, "head_dim": 12, "attention_bias": True, "use_qk_norm": True, "n_group": 1,
                  "topk_group": 1}),
    ("gpt_oss", {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 3}),
    ("llama4_text", {"num_hidden_layers": 5, "head_dim": 12, "num_local_experts": 4, "intermediate_size_mlp": 44,
                     "interleave_moe_layer_step": 2, "attention_chunk_size": 16}),
    ("qwen3_next", {**_MIXTURE, **_LINEAR, "num_hidden_layers": 5, "shared_expert_intermediate_size": 14}),
    ("jamba", {"num_hidden_layers": 6, "num_experts": 4, "use_mamba_kernels": False, "mamba_d_state": 6,
               "mamba_dt_rank": 5}),
    ("mamba", {"state_size": 6, "intermediate_size": 64}),
    ("mamba2", {"num_heads": 8, "head_dim": 8, "state_size": 6, "n_groups": 2, "use_bias": True}),
    ("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ("granitemoehybrid", {**_MAMBA2, "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 14,
                          "layer_types": ["mamba", "attention"]}),
    ("granitemoehybrid", {**_MAMBA2, "num_local_experts": 0, "num_experts_per_tok": 0, "shared_intermediate_size": 14,
                          "layer_types": ["attention", "mamba"]}),
    ("falcon_h1", {**_MAMBA2, "mamba_d_ssm": 64, "mamba_rms_norm": True}),
    ("lfm2", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16}),
    ("cohere", {"use_qk_norm": True}),
    ("cohere2", {"num_hidden_layers": 5}),
    ("exaone4", {"num_hidden_layers": 5}),
    ("falcon", {"multi_query": True}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    ("falcon", {"multi_query": False, "parallel_attn": False}),
    ("stablelm", {"use_qkv_bias": True}),
    ("nemotron", {"mlp_bias": True, "head_dim": 12}),
    ("gemma4_text", {"head_dim": 12, "global_head_dim": 20, "num_hidden_layers": 7, "sliding_window": 16,
                     "vocab_size_per_layer_input": 40, "hidden_size_per_layer_input": 6, "num_kv_shared_layers": 0}),
    ("gemma4_text", {"head_dim": 12, "global_head_dim": 20, "num_hidden_layers": 12, "num_kv_shared_layers": 3,
                     "hidden_size_per_layer_input": 0, "use_double_wide_mlp": True, "sliding_window": 16}),
    ("gemma4_text", {"head_dim": 12, "global_head_dim": 20, "num_hidden_layers": 6, "enable_moe_block": True,
                     "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 12, "attention_k_eq_v": True,
                     "num_global_key_value_heads": 1, "hidden_size_per_layer_input": 0}),
    ("ministral3", {"head_dim": 12}),
    ("glm4", {"head_dim": 12}),
    ("hunyuan_v1_dense", {"head_dim": 12}),
    ("arcee", {"mlp_bias": True}),
    ("ernie4_5", {"head_dim": 12, "use_bias": True}),
    ("dots1", {**_LATENT, "head_dim": 12, "n_group": 1, "topk_group": 1}),
    ("minimax_m2", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 12, "rotary_dim": 6}),
    ("qwen3_5_text", {**_LINEAR, "num_hidden_layers": 5}),
    ("qwen3_5_moe_text", {**_MIXTURE, **_LINEAR, "num_hidden_layers": 4, "shared_expert_intermediate_size": 14}),
    ("lfm2_moe", {**_MIXTURE, "layer_types": ["conv", "full_attention", "conv"], "num_hidden_layers": 3,
                  "num_dense_layers": 1}),
]  # fmt: skip


def write_tiny(kind: str, differing: dict[str, Any], folder: Path) -> Any:
    """Save a tiny model of random weights as Transformers does; returns its configuration."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = AutoConfig.for_model(kind, **{**_BASE, **differing})
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return config
