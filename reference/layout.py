"""The reference model's shape, and its folder in the Hugging Face layout."""

from __future__ import annotations

import json
import pathlib

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from vocabulary import CONTEXT, END, PAD, SIZE, save_tokenizer

_KEPT = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings", "rope_parameters", "rms_norm_eps", "hidden_act",
    "tie_word_embeddings", "attention_bias", "mlp_bias", "attention_dropout", "initializer_range",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


def shape(tokenizer: Tokenizer) -> LlamaConfig:
    """Grouped-query attention, head dimension 64, every row a multiple of 256, so that k-quants apply to all of it."""
    return LlamaConfig(
        vocab_size=SIZE,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
    )


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: pathlib.Path) -> None:
    """Write weights (bfloat16), configuration and tokenizer; each file replaces its predecessor in one move."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    partial = folder / "model.safetensors.partial"
    save_file(weights, str(partial), metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(folder / "model.safetensors")
    known = model.config.to_dict()
    config = {name: known[name] for name in _KEPT} | {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    # Readers older than ``rope_parameters`` look for the bare name.
    config["rope_theta"] = known["rope_parameters"]["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    generation = {
        "do_sample": False,
        "eos_token_id": config["eos_token_id"],
        "pad_token_id": config["pad_token_id"],
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    save_tokenizer(tokenizer, folder)
