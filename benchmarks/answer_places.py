"""Which tokens of the held-out texts are a model's own answer: what a user reads, among much that is only asked."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from quantwise.chat import ChatTemplate
from quantwise.core.item import Message
from quantwise.tasks import SUITES
from quantwise.tasks.suite import solved_items
from trained_models import HELD_OUT_EACH, Trained


def tokens_of(trained: Trained, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, nothing added."""
    tokenizer = Tokenizer.from_file(str(trained.folder / "tokenizer.json"))
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def answers(trained: Trained, texts: Sequence[str]) -> list[list[bool]]:
    """For each token of each text: whether it is of the answer, its end included. Prose has none."""
    template = ChatTemplate.from_folder(trained.folder)
    assert template is not None
    asked = {}
    for suite in SUITES:
        for item, answer in solved_items(suite, "screen", HELD_OUT_EACH):
            whole = template.render((*item.messages, Message("assistant", answer)), add_generation_prompt=False)
            asked[whole] = template.render(item.messages, add_generation_prompt=True)
    found = []
    prompts = tokens_of(trained, [asked.get(text, text) for text in texts])
    for prompt, ids in zip(prompts, tokens_of(trained, texts), strict=True):
        if ids[: len(prompt)] != prompt:
            raise SystemExit("the tokens of a question change where its answer follows; places cannot be told apart")
        found.append([place >= len(prompt) for place in range(len(ids))])
    return found
