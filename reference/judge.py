"""How well the model does on screening items: a quick look during training, and real greedy generation at the end."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaForCausalLM

from quantwise.core.item import Item
from quantwise.tasks import SUITES
from quantwise.tasks.scorers import score
from quantwise.tasks.suite import Suite, items, solved_items
from vocabulary import ASSISTANT, END, PAD, USER


@torch.no_grad()
def quick_accuracy(model: LlamaForCausalLM, tokenizer: Tokenizer, count: int, seed: int = 0) -> dict[str, float]:
    """Share of screening items whose full answer is the likeliest token at every place, given the answer so far.

    One forward pass an item instead of a generation; a lower bound of greedy accuracy, as other answers may be right.
    """
    user, assistant, end, pad = (tokenizer.token_to_id(token) for token in (USER, ASSISTANT, END, PAD))
    shares: dict[str, float] = {}
    for suite in SUITES:
        rows = []
        for item, answer in solved_items(suite, "screen", count, seed):
            asked = [user, *tokenizer.encode(item.text).ids, assistant]
            rows.append((asked, [*tokenizer.encode(answer).ids, end]))
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        right = 0
        for start in range(0, len(rows), 20):
            group = rows[start : start + 20]
            length = max(len(asked) + len(said) for asked, said in group)
            tokens = torch.full((len(group), length), pad)
            for i, (asked, said) in enumerate(group):
                tokens[i, : len(asked) + len(said)] = torch.tensor(asked + said)
            likeliest = model(input_ids=tokens, use_cache=False).logits.argmax(-1)
            for i, (asked, said) in enumerate(group):
                right += likeliest[i, len(asked) - 1 : len(asked) + len(said) - 1].tolist() == said
        shares[suite.name] = right / count
    return shares


@torch.no_grad()
def text_loss(model: LlamaForCausalLM, tokenizer: Tokenizer, texts: list[str], longest: int = 512) -> float:
    """Mean cross-entropy of the next token in nats, over the first ``longest`` tokens of each text."""
    total, positions = 0.0, 0
    for text in texts:
        ids = tokenizer.encode(text).ids[:longest]
        if len(ids) > 1:
            tokens = torch.tensor([ids])
            logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
            total += float(functional.cross_entropy(logits, tokens[0, 1:], reduction="sum"))
            positions += len(ids) - 1
    return total / positions


@torch.no_grad()
def greedy_outputs(model: LlamaForCausalLM, tokenizer: Tokenizer, asked: list[Item], rows: int = 50) -> list[str]:
    """Greedy answers, in the order of the items; prompts of equal length share a batch, so nothing is ever padded."""
    user, assistant, end, pad = (tokenizer.token_to_id(token) for token in (USER, ASSISTANT, END, PAD))
    by_length: dict[int, list[int]] = {}
    prompts = [[user, *tokenizer.encode(item.text).ids, assistant] for item in asked]
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    outputs = [""] * len(asked)
    for indices in by_length.values():
        for start in range(0, len(indices), rows):
            group = indices[start : start + rows]
            tokens = torch.tensor([prompts[i] for i in group])
            longest = max(asked[i].max_tokens for i in group)
            made = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=longest,
                do_sample=False,
                eos_token_id=end,
                pad_token_id=pad,
            )[:, tokens.shape[1] :].tolist()
            for i, answer in zip(group, made, strict=True):
                kept = answer[: asked[i].max_tokens]
                kept = kept[: kept.index(end)] if end in kept else kept
                outputs[i] = tokenizer.decode(kept, skip_special_tokens=True)
    return outputs


def greedy_scores(model: LlamaForCausalLM, tokenizer: Tokenizer, suite: Suite, count: int, seed: int) -> list[float]:
    """Scores of greedy answers to ``count`` screening items of a suite."""
    asked = items(suite, "screen", count, seed)
    return [score(item, output) for item, output in zip(asked, greedy_outputs(model, tokenizer, asked), strict=True)]
