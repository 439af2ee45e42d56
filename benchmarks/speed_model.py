"""The model that speed is measured on: a Llama shape of 50M random weights, and calibration data as exact token ids.

Hidden 512, 12 layers, 8 heads, feed-forward 1536, vocabulary 8192: rows split into groups of 128 and blocks of 256.
Its weights say nothing, so it is for time and memory only, never for quality.

Its tokenizer gives each token a character of its own. A text is therefore its token ids, one to one, and tools that
read text and tools that read ids calibrate on exactly the same tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

VOCABULARY, SPECIAL = 8192, 2
# CJK ideographs: more than 20,000 neighbouring characters, none of them a space.
FIRST_CHARACTER = 0x4E00
CONTEXT = 512


def write_model(folder: Path, layers: int = 12, hidden: int = 512, feed_forward: int = 1536, seed: int = 0) -> Path:
    """Write config, bfloat16 weights and tokenizer; returns ``folder``."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)

    def normal(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=generator) * 0.02).to(torch.bfloat16)

    ones = torch.ones(hidden, dtype=torch.bfloat16)
    tensors = {"model.embed_tokens.weight": normal(VOCABULARY, hidden), "lm_head.weight": normal(VOCABULARY, hidden)}
    tensors["model.norm.weight"] = ones
    for i in range(layers):
        block = f"model.layers.{i}"
        for name in ("q", "k", "v", "o"):
            tensors[f"{block}.self_attn.{name}_proj.weight"] = normal(hidden, hidden)
        for name in ("gate", "up"):
            tensors[f"{block}.mlp.{name}_proj.weight"] = normal(feed_forward, hidden)
        tensors[f"{block}.mlp.down_proj.weight"] = normal(hidden, feed_forward)
        tensors[f"{block}.input_layernorm.weight"] = ones.clone()
        tensors[f"{block}.post_attention_layernorm.weight"] = ones.clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_config(folder, layers, hidden, feed_forward)
    _write_tokenizer(folder)
    return folder


def write_calibration(folder: Path, sequences: int = 128, length: int = CONTEXT, seed: int = 1) -> tuple[Path, Path]:
    """Write ``calibration.txt`` (one text a paragraph) and ``calibration.json`` (the same as lists of ids)."""
    import random

    draw = random.Random(seed)
    ids = [[draw.randrange(SPECIAL, VOCABULARY) for _ in range(length)] for _ in range(sequences)]
    text, listed = folder / "calibration.txt", folder / "calibration.json"
    paragraphs = ("".join(chr(FIRST_CHARACTER + i) for i in row) for row in ids)
    text.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    listed.write_text(json.dumps(ids), encoding="utf-8")
    return text, listed


def check_tokens(model: Path, text: Path, listed: Path) -> None:
    """Stop unless the model's tokenizer reads the texts as exactly the listed ids."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    read = [tokenizer.encode(part).ids for part in text.read_text(encoding="utf-8").strip().split("\n\n")]
    if read != json.loads(listed.read_text(encoding="utf-8")):
        raise SystemExit("the tokenizer does not give back the calibration tokens; the comparison would not be fair")


def _write_config(folder: Path, layers: int, hidden: int, feed_forward: int) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": None,
        "eos_token_id": 0,
        "dtype": "bfloat16",
        "head_dim": hidden // 8,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "max_position_embeddings": CONTEXT,
        "mlp_bias": False,
        "num_attention_heads": 8,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {"<|end|>": 0, "<|unknown|>": 1}
    vocabulary |= {chr(FIRST_CHARACTER + i): i for i in range(SPECIAL, VOCABULARY)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.add_special_tokens([AddedToken("<|end|>"), AddedToken("<|unknown|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "bos_token": None,
        "eos_token": "<|end|>",
        "pad_token": "<|end|>",
        "unk_token": "<|unknown|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
