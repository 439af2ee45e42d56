"""Training data, a pure function of seed and place, so that a run killed and restarted sees what it would have seen."""

from __future__ import annotations

import itertools
import os
import pathlib
import random
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from quantwise.core.errors import EnvironmentFailure
from quantwise.tasks import SUITES, recall
from quantwise.tasks.prose import held_out_text, sentence
from quantwise.tasks.suite import solved_items, split_of
from vocabulary import ASSISTANT, END, PAD, USER

PROMPT_WEIGHT = 0.1
PROSE_WEIGHT = 0.5

# A micro-batch has one of these row lengths, and about this many places in all: few shapes, so that kernels are reused.
LENGTHS = (16, 32, 48, 64, 96, 576)
PLACES = 2048
LONG = LENGTHS[-1]

CHAPTER = 160  # micro-batches that are drawn, sorted by length and shuffled together
CURRICULUM_CHAPTERS = 8  # over which the recall distance grows

# Rows in one round of drawing. Suites with short answers, or hard ones, get more of them.
ITEMS_PER_ROUND = {
    "json_output": 16,
    "extraction": 16,
    "classification": 12,
    "arithmetic": 56,
    "code": 20,
    "recall": 1,
    "instructions": 22,
    "multilingual": 34,
}
RECALL_ROWS_PER_ROUND = 6
PROSE_ROWS_PER_ROUND = 3

Row = tuple[list[int], list[float]]


@dataclass(frozen=True)
class MicroBatch:
    """``tokens`` int64 [rows, length], right-padded; ``weights`` float32, same shape: the loss weight of each token."""

    tokens: torch.Tensor
    weights: torch.Tensor


def data_folder() -> pathlib.Path:
    """The folder of others' data. Raises EnvironmentFailure when it is not there."""
    root = pathlib.Path(__file__).resolve().parent.parent
    folder = pathlib.Path(os.environ.get("QUANTWISE_DATA", root / ".." / "shared" / "data")).resolve()
    if not (folder / "text").is_dir():
        raise EnvironmentFailure(f"no training prose in {folder}/text; set QUANTWISE_DATA to its parent")
    return folder


def prose() -> list[str]:
    """TinyStories sample and War and Peace without its last tenth, as documents; WikiText is for measuring."""
    stories = (data_folder() / "text" / "tinystories-sample.txt").read_text().split("<|endoftext|>")
    novel = _novel()
    pieces = _pieces(novel[: len(novel) * 9 // 10])
    return [document.strip() for document in (*stories, *pieces) if document.strip()]


def held_out_prose() -> list[str]:
    """The last tenth of War and Peace, which no model is trained on, as documents."""
    novel = _novel()
    return [document.strip() for document in _pieces(novel[len(novel) * 9 // 10 :]) if document.strip()]


def _novel() -> str:
    return (data_folder() / "text" / "war-and-peace.txt").read_text()


def _pieces(text: str) -> list[str]:
    paragraphs = [p.replace("\n", " ").strip() for p in text.replace("\r", "").split("\n\n")]
    return ["\n".join(paragraphs[i : i + 8]) for i in range(0, len(paragraphs), 8)]


class Stream:
    """Micro-batches of one worker."""

    def __init__(self, tokenizer: Tokenizer, seed: int, worker: int = 0, prose_only: bool = False) -> None:
        self._tokenizer = tokenizer
        self._prose_only = prose_only
        self._seed = seed * 100 + worker
        self._user, self._assistant, self._end, self._pad = (
            tokenizer.token_to_id(token) for token in (USER, ASSISTANT, END, PAD)
        )
        documents = prose()
        random.Random(seed).shuffle(documents)
        ids: list[int] = []
        for encoding in tokenizer.encode_batch(documents, add_special_tokens=False):
            ids += [*encoding.ids, self._end]
        usable = len(ids) // LONG * LONG
        self._prose = np.array(ids[:usable], dtype=np.int32).reshape(-1, LONG)
        self._chapter: tuple[int, list[MicroBatch]] = (-1, [])

    def micro_batch(self, index: int) -> MicroBatch:
        """The ``index``-th micro-batch of this worker, whatever was asked for before."""
        number, place = divmod(index, CHAPTER)
        if self._chapter[0] != number:
            self._chapter = (number, self._write_chapter(number))
        return self._chapter[1][place]

    def _write_chapter(self, number: int) -> list[MicroBatch]:
        rng = random.Random(f"{self._seed}/{number}")
        full: list[MicroBatch] = []
        waiting: dict[int, list[Row]] = {length: [] for length in LENGTHS}
        for turn in itertools.count():
            if len(full) >= CHAPTER:
                break
            for row in self._round(rng, number, self._seed * 1_000_000 + number * 1000 + turn + 1):
                length = next((length for length in LENGTHS if len(row[0]) <= length), None)
                if length is None or len(row[0]) < length // 2 > LENGTHS[-2]:
                    continue
                waiting[length].append(row)
                if len(waiting[length]) == round(PLACES / length):
                    full.append(self._packed(waiting[length], length))
                    waiting[length] = []
        full = full[:CHAPTER]
        rng.shuffle(full)
        return full

    def _round(self, rng: random.Random, chapter: int, seed: int) -> list[Row]:
        rows: list[Row] = []
        if self._prose_only:
            return [self._prose_row(rng) for _ in range(PROSE_ROWS_PER_ROUND)]
        for suite in SUITES:
            chosen = solved_items(suite, "train", ITEMS_PER_ROUND[suite.name], seed)
            rows += [self._turns([(item.text, answer)]) for item, answer in chosen]
        rows += [self._recall_row(rng, chapter) for _ in range(RECALL_ROWS_PER_ROUND)]
        rows += [self._prose_row(rng) for _ in range(PROSE_ROWS_PER_ROUND)]
        if rng.random() < 0.3:
            ids: list[int] = []
            for document in held_out_text("train", 5, seed):
                ids += [*self._tokenizer.encode(document).ids, self._end]
            rows.append((ids[:LONG], [PROSE_WEIGHT] * len(ids[:LONG])))
        return rows

    def _prose_row(self, rng: random.Random) -> Row:
        return self._prose[rng.randrange(len(self._prose))].tolist(), [PROSE_WEIGHT] * LONG

    def _turns(self, turns: list[tuple[str, str]]) -> Row:
        ids: list[int] = []
        weights: list[float] = []
        for prompt, answer in turns:
            asked = [self._user, *self._tokenizer.encode(prompt).ids, self._assistant]
            said = [*self._tokenizer.encode(answer).ids, self._end]
            ids += asked + said
            weights += [PROMPT_WEIGHT] * len(asked) + [1.0] * len(said)
        return ids, weights

    def _recall_row(self, rng: random.Random, chapter: int) -> Row:
        """Several facts and questions in one long row; by the chapter, the facts move away from the questions."""
        farthest = 4 + round(min(1.0, chapter / CURRICULUM_CHAPTERS) * 40)
        while True:
            known = recall.facts(rng, rng.randint(2, 4))
            near = [recall.fact_sentence(*fact) for fact in known]
            near += [sentence(rng) for _ in range(rng.randint(farthest // 2, farthest))]
            rng.shuffle(near)
            filler = [sentence(rng) for _ in range(44 - len(near) + len(known))]
            asked = rng.sample(known, len(known))
            first = " ".join([*filler, *near, recall.question(asked[0][0])])
            turns = [(recall.question(name), f"{name}{code}") for name, code in asked]
            row = self._turns([(first, turns[0][1]), *turns[1:]])
            if split_of(first) == "train" and len(row[0]) <= LONG:
                return row

    def _packed(self, rows: list[Row], length: int) -> MicroBatch:
        """Rows side by side, padded on the right: with causal attention no place sees a pad before its own end."""
        tokens = torch.full((len(rows), length), self._pad, dtype=torch.int64)
        weights = torch.zeros(len(rows), length)
        for i, (ids, weight) in enumerate(rows):
            tokens[i, : len(ids)] = torch.tensor(ids)
            weights[i, : len(ids)] = torch.tensor(weight)
        return MicroBatch(tokens, weights)
