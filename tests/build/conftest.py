"""A small random Llama whose rows are multiples of 64 but for one, and what is built from it once for all tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantwise.core.artifact import Artifact

RECIPES = ["16bit", "rtn:int8-channel", "rtn:int4-g64", "gptq:int4-g64", "gptq:int4-g64-asym", "rtn:int4-tensor", "f16",
           "bf16", "q8_0", "q4_0"]  # fmt: skip
TEXT = "In 1984, the small dog said: \"It's 12 o'clock, isn't it?\" — naïve café, 北京 😀.\n\n  Then\the ran 3.75 km. "


def write_model(folder: Path) -> None:
    """Hidden 128, ffn 160 (no multiple of 64), 2 layers, 4 heads of 32 over 2, byte-level BPE with single digits."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<pad>", "<end>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokens.train_from_iterator([TEXT] * 3, trainer)
    tokens.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<end>", "pad_token": "<pad>", "chat_template": "{{ messages[0]['content'] }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokens.get_vocab_size(), hidden_size=128, intermediate_size=160, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=256,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0, initializer_range=0.08,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


@dataclass(frozen=True)
class Built:
    """The model's folder, the folder of artifacts, and the artifacts by recipe."""

    model: Path
    out: Path
    artifacts: dict[str, Artifact]
    text: str = TEXT


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    from quantwise.build.walk import build
    from quantwise.core.recipe import parse_recipe

    model, out = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("out")
    write_model(model)
    recipes = [parse_recipe(text) for text in RECIPES]
    artifacts = build(model, recipes, [TEXT * n for n in (1, 2, 3, 1)], out, seed=1)
    return Built(model, out, dict(zip(RECIPES, artifacts, strict=True)))
