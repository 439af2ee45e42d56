"""Tiny random models of many architectures, with a byte-level tokenizer, as folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HIDDEN, INNER, VOCAB = 64, 128, 300
TEXTS = [f"text number {i}: the small dog ran {i * 7} km. " * 4 for i in range(12)]

_USUAL: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": 0.1, "tie_word_embeddings": False,
}  # fmt: skip
_WIDE_HEADS: dict[str, Any] = {"head_dim": 32}
_SLIDING: dict[str, Any] = {"head_dim": 16, "sliding_window": 8}
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
# What differs from _USUAL; None takes a key away.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True},
    "mistral": {"sliding_window": 8},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": _WIDE_HEADS,
    "gemma": dict(**_WIDE_HEADS, tie_word_embeddings=True),
    "gemma2": dict(**_SLIDING, query_pre_attn_scalar=16, tie_word_embeddings=True),
    "gemma3_text": dict(
        **_SLIDING, query_pre_attn_scalar=16, layer_types=["sliding_attention", "full_attention"],
        rope_local_base_freq=100.0
    ),
    "phi": {"num_key_value_heads": 4, "partial_rotary_factor": 0.5},
    "phi3": {},
    "gpt_neox": {"num_key_value_heads": None},
    "opt": {"num_key_value_heads": None, "intermediate_size": None, "ffn_dim": INNER, "word_embed_proj_dim": HIDDEN},
    "starcoder2": {},
    "granite": {"attention_multiplier": 0.25, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    "smollm3": {"no_rope_layers": [1, 0]},
    "olmo2": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": dict(**_EXPERTS, shared_expert_intermediate_size=64, mlp_only_layers=[1]),
    "qwen3_moe": dict(**_EXPERTS, **_WIDE_HEADS),
    "olmoe": dict(**{**_EXPERTS, "moe_intermediate_size": None}),
}  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<pad>", "<end>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokens.train_from_iterator(TEXTS, trainer)
    tokens.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<end>", "pad_token": "<pad>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_tiny(folder: Path, kind: str, **changes: Any) -> None:
    """A random model of type ``kind`` in bfloat16, its norms and biases random too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    write_tokenizer(folder)
    wanted = {**_USUAL, **CONFIGS.get(kind, {}), **changes}
    config = AutoConfig.for_model(kind, **{key: value for key, value in wanted.items() if value is not None})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape)
            elif "experts" in name or "gate" in name:
                parameter.normal_(0, 0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
