"""Families of tokenizers in stock llama.cpp: the same text, the same tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_in_llamacpp import HARD, STORY
from tiny_models import TEXTS, write_tiny
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import RuntimeOptions
from quantwise.formats.gguf.tokenizer import _SPLITS
from quantwise.grids import ggml_library
from quantwise.runtimes.llamacpp import LlamaCpp

pytestmark = [
    pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)"),
    pytest.mark.long,
]
SPECIAL = ["<pad>", "<end>", "<unk>", "<bos>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]
TRAINED = [*TEXTS, STORY * 3, "It's HTTPServer's camelCase, don't YOU'LL shout! 12345 67", "\n\n  x\t y\r\n"]


def byte_level(expression: str) -> Tokenizer:
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokens.decoder = decoders.ByteLevel()
    return train(tokens, pre_tokenizers.ByteLevel.alphabet(), SPECIAL)


def spaced(normalizer: Any, splitter: Any) -> Tokenizer:
    """SentencePiece's manner, with bytes for what is not in the vocabulary, and a token before every text."""
    tokens = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    if normalizer is not None:
        tokens.normalizer = normalizer
    if splitter is not None:
        tokens.pre_tokenizer = splitter
    made = train(tokens, [], SPECIAL + BYTES)
    data = json.loads(made.to_str())
    # The trainer takes bytes for special tokens, which they are not.
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in SPECIAL]
    made = Tokenizer.from_str(json.dumps(data))
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 3)]
    )
    return made


def train(tokens: Tokenizer, alphabet: list[str], special: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokens.train_from_iterator(TRAINED, trainer)
    return tokens


def gemma() -> Tokenizer:
    return spaced(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"))


def mistral() -> Tokenizer:
    return spaced(None, pre_tokenizers.Metaspace(prepend_scheme="always", split=False))


def never() -> Tokenizer:
    return spaced(None, pre_tokenizers.Metaspace(prepend_scheme="never", split=False))


FAMILIES = {name: (lambda text=text: byte_level(text)) for text, name in _SPLITS.items()}
FAMILIES |= {"gemma": gemma, "mistral": mistral, "never": never}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_tokens(name: str, tmp_path: Path) -> None:
    tokens = FAMILIES[name]()
    model = tmp_path / "model"
    model.mkdir()
    write_tiny(model, "qwen2", vocab_size=640)
    tokens.save(str(model / "tokenizer.json"))
    settings = {"eos_token": "<end>", "pad_token": "<pad>", "bos_token": "<bos>", "unk_token": "<unk>"}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    (artifact,) = build(model, [parse_recipe("q8_0")], [], tmp_path / "out")
    options = RuntimeOptions(context=256, parallel=1, threads=1)
    with LlamaCpp().open(Artifact(artifact.location, "gguf", "unknown", 1, "q8_0", 8.5, 0.0), options) as session:
        for text in (HARD, STORY, *TRAINED[-2:], "a", " lead", "two  spaces ", "x\n\n\ny"):
            if name == "mistral" and text.startswith(" "):
                assert "before a text that begins with one" in artifact.degradations[0].what
                continue
            assert session.tokenize(text) == tokens.encode(text).ids, text
