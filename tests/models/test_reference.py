"""The model that ships with the package: its tokenizer and chat template, and what the suites assume of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantwise.core.item import Item
from quantwise.models import reference
from quantwise.tasks import SUITES, recall
from quantwise.tasks.suite import items, solved_items

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return transformers.AutoTokenizer.from_pretrained(reference.path())


def test_the_folder_is_complete_and_small() -> None:
    names = {file.name for file in reference.path().iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    } <= names
    assert sum(file.stat().st_size for file in reference.path().iterdir() if file.is_file()) < 12_000_000


def test_the_shape_is_the_promised_one() -> None:
    from safetensors import safe_open

    config = json.loads((reference.path() / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"]
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    assert (config["head_dim"], config["max_position_embeddings"]) == (64, 1024)
    with safe_open(str(reference.path() / "model.safetensors"), "pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
        kinds = {str(weights.get_slice(name).get_dtype()) for name in shapes}
    assert kinds == {"BF16"}
    assert all(shape[1] % 256 == 0 for shape in shapes.values() if len(shape) == 2)
    assert 3_000_000 < sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in shapes.values()) < 6_000_000


@pytest.mark.parametrize(
    "text",
    ["Hello, world!", "  two  spaces\n\nand lines ", "1234567", "ღამე, თოვლი", "いえ, ねこ", "खिड़की", "emoji 🙂 x"],
)
def test_text_survives_the_tokenizer(tokenizer: transformers.PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_stand_alone_and_nothing_is_put_before_the_text(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("a 4096") == ["a", "Ġ", "4", "0", "9", "6"]
    assert tokenizer.bos_token is None
    assert len(tokenizer) == 2048


def test_the_chat_template_writes_turns_and_ends_answers(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q1"},
        {"role": "assistant", "content": "A1"},
        {"role": "user", "content": "Q2"},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>S<|user|>Q1<|assistant|>A1<|end|><|user|>Q2<|assistant|>"
    marks = {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"}
    assert [token for token in tokenizer.tokenize(text) if token.startswith("<|")] == [
        "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|user|>", "<|assistant|>",
    ]  # fmt: skip
    assert marks <= set(tokenizer.get_vocab())
    assert tokenizer.eos_token == "<|end|>"


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_answers_fit_into_their_token_limit(tokenizer: transformers.PreTrainedTokenizerFast, suite: object) -> None:
    for item, answer in solved_items(suite, "screen", 60):
        assert len(tokenizer.encode(answer)) + 1 < item.max_tokens


def test_recall_asks_from_afar(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    for item in items(recall.SUITE, "screen", 40, seed=5):
        before, after = halves(item)
        assert len(tokenizer.encode(after)) >= 300
        assert len(tokenizer.encode(before + after)) < 700


def halves(item: Item) -> tuple[str, str]:
    """The prompt up to the end of the fact that is asked for, and what lies between it and the question."""
    name, code = item.target[:-3], item.target[-3:]
    fact = recall.fact_sentence(name, code)
    place = item.text.index(fact) + len(fact)
    return item.text[:place], item.text[place : item.text.rindex(recall.question(name))]


def test_path_is_the_packaged_folder() -> None:
    assert reference.path() == Path(reference.__file__).parent
