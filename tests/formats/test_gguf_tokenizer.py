"""Which tokenizers become GGUF tokenizers, under which name, and which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.formats.gguf.tokenizer import read_tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPACES = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}


def split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def write(folder: Path, pre: Any, normalizer: Any = None, **model: Any) -> Path:
    parts: dict[str, Any] = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {"<e>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]],
    }  # fmt: skip
    parts |= model
    data = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": normalizer, "pre_tokenizer": pre,
        "post_processor": None, "decoder": None, "model": parts,
        "added_tokens": [{"id": 0, "content": "<e>", "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(data))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<e>", "chat_template": "{{ messages }}"}))
    return folder


@pytest.mark.parametrize(
    ("pre", "name"),
    [
        (BYTE_LEVEL, "gpt-2"),
        ({"type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}, "smollm"),
        ({"type": "Sequence", "pretokenizers": [split(QWEN2), BYTE_LEVEL | {"use_regex": False}]}, "qwen2"),
        ({"type": "Sequence", "pretokenizers": [split(QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")),
                                                BYTE_LEVEL | {"use_regex": False}]}, "llama-bpe"),
    ],
)  # fmt: skip
def test_byte_level_splitting_rules_are_recognised(tmp_path: Path, pre: Any, name: str) -> None:
    made = read_tokenizer(write(tmp_path, pre), {"vocab_size": 6, "bos_token_id": 1})
    assert (made.model, made.pre) == ("gpt2", name)
    assert made.tokens == ["<e>", "a", "b", "ab", "[PAD4]", "[PAD5]"]
    assert made.types == [3, 1, 1, 1, 5, 5]
    assert made.merges == ["a b"]
    assert made.special == {"bos": 1, "eos": 0}
    assert not made.add_bos
    assert made.chat_template == "{{ messages }}"


def test_sentencepiece_merges_become_scores(tmp_path: Path) -> None:
    vocab = {"<e>": 0, "<0x41>": 1, "▁": 2, "a": 3, "b": 4, "ab": 5, "▁ab": 6}
    merges = [["a", "b"], ["▁", "ab"]]
    folder = write(tmp_path, None, SPACES, vocab=vocab, merges=merges, byte_fallback=True, unk_token="<e>")
    made = read_tokenizer(folder, {"vocab_size": 7})
    assert made.model == "llama"
    assert made.scores[5] > made.scores[6] > made.scores[3]
    assert made.types[:3] == [2, 6, 1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pre": split(r"\w+")}, "splits words"),
        ({"pre": None}, "splits words"),
        ({"pre": BYTE_LEVEL | {"add_prefix_space": True}}, "splits words"),
        (
            {"pre": {"type": "Sequence", "pretokenizers": [DIGITS | {"individual_digits": False}, BYTE_LEVEL]}},
            "splits words",
        ),
        ({"pre": BYTE_LEVEL, "normalizer": {"type": "Lowercase"}}, "normalises"),
        ({"pre": None, "normalizer": SPACES}, "no byte fallback"),
        ({"pre": None, "normalizer": SPACES, "byte_fallback": True, "merges": []}, "no merge produces"),
    ],
)
def test_what_llamacpp_cannot_do_is_refused_by_name(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_tokenizer(write(tmp_path, **change), {"vocab_size": 6})


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="embeddings"):
        read_tokenizer(write(tmp_path, BYTE_LEVEL), {"vocab_size": 3})
