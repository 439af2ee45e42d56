"""A tiny Llama that says what follows a word, whatever came before: so every answer of a server is known beforehand.

Attention and feed-forward are zero, so that the last layer sees the embedding of the last token alone, which is one of
a kind; the rows of the output layer say which token follows it.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models

END, UNKNOWN = "<|end|>", "<|unknown|>"
LONG = [f"a{n} " for n in range(20)]
CALL = '{"name": "weather", "arguments": {"city": "Oslo"}}'
RECORD = '{"bird": "gull"}'
HIDDEN = 256
# Logits of the two words that may follow "coin"; bfloat16 holds both, and all other tokens have 0.
LIKELIER, LESS_LIKELY = 88.0, 87.0

CHAINS = (
    ["short", "<think>", "so ", "be it", "</think>", "42", END],
    ["long", "<thinking>", *LONG, "</thinking>", "42"],
    ["endless", "<reasoning>", "hm ", "hm "],
    ["call", CALL, END],
    ["record", RECORD, END],
    ["coin", "heads", END],
    ["tails", END],
)


def write_chain_model(folder: Path, context: int = 2048) -> Path:
    """Config, weights and tokenizer; returns ``folder``."""
    words = [END, UNKNOWN, *dict.fromkeys(w for chain in CHAINS for w in chain if w != END)]
    number = {word: i for i, word in enumerate(words)}
    follows = {a: b for chain in CHAINS for a, b in pairwise(chain)}
    size = 64
    assert len(words) <= size <= HIDDEN
    # A row of one entry of sqrt(HIDDEN) comes out of the last norm as it is.
    embedding = torch.eye(size, HIDDEN) * HIDDEN**0.5
    head = torch.zeros(size, HIDDEN)
    for word, after in follows.items():
        head[number[after], number[word]] = LIKELIER / HIDDEN**0.5
    head[number["tails"], number["coin"]] = LESS_LIKELY / HIDDEN**0.5
    block, ones = "model.layers.0", torch.ones(HIDDEN)
    tensors = {"model.embed_tokens.weight": embedding, "lm_head.weight": head, "model.norm.weight": ones}
    tensors |= {f"{block}.{name}_layernorm.weight": ones.clone() for name in ("input", "post_attention")}
    for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"):
        tensors[f"{block}.{name}_proj.weight"] = torch.zeros(HIDDEN, HIDDEN)
    folder.mkdir(parents=True)
    stored = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "vocab_size": size,
        "hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 4, "head_dim": 64, "hidden_act": "silu", "max_position_embeddings": context,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": number[END],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder, words)
    return folder


def _write_tokenizer(folder: Path, words: list[str]) -> None:
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token=UNKNOWN))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(END), AddedToken(UNKNOWN)])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words[2:]])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "unk_token": UNKNOWN,
                "chat_template": template}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
