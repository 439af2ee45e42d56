"""The reference model's tokenizer: byte-level BPE with every digit on its own, which llama.cpp knows as ``smollm``."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from quantwise.tasks import SUITES
from quantwise.tasks.prose import held_out_text
from quantwise.tasks.suite import solved_items

END, PAD, SYSTEM, USER, ASSISTANT = SPECIALS = ("<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")
SIZE = 2048
CONTEXT = 1024

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def suite_text(items_each: int) -> Iterator[str]:
    """Prompts and answers of training items; long recall prompts count as a tenth, so as not to drown the others."""
    for suite in SUITES:
        count = items_each // 10 if suite.name == "recall" else items_each
        for item, answer in solved_items(suite, "train", count, seed=0):
            yield item.text
            yield answer
    yield from held_out_text("train", items_each // 10, seed=0)


def train_tokenizer(prose: Iterable[str], items_each: int = 4000) -> Tokenizer:
    """A byte-level BPE of ``SIZE`` entries over suite text and prose."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.chain(suite_text(items_each), prose), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: pathlib.Path) -> None:
    """Write tokenizer.json and tokenizer_config.json in the Hugging Face layout."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "bos_token": None,
        "eos_token": END,
        "pad_token": PAD,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
