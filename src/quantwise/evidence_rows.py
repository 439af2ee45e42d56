"""Rows of an evidence file become measurements of this run: whole blocks, of the same items, each scored again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from quantwise.core.artifact import Candidate
from quantwise.core.errors import InputError, QuantwiseError
from quantwise.core.evidence import ANSWERED, Measurement, Stage
from quantwise.core.item import Item
from quantwise.core.question import Question, TaskQuestion
from quantwise.evidence_file import EvidenceFile, item_hash
from quantwise.tasks import scorers
from quantwise.tasks.readers import read_all
from quantwise.tasks.task import Task

STAGES: tuple[Stage, ...] = ("screen", "aa", "certify")


def frozen_tasks(question: Question) -> dict[str, Task]:
    """The tasks as they were frozen. Raises InputError where one has changed since."""
    tasks = {task.name: task for task in read_all([t.source for t in question.tasks])}
    for frozen in question.tasks:
        if tasks[frozen.name].source_hash != frozen.source_hash:
            raise InputError(f"{frozen.source} has changed since the question was frozen; its rows cannot be checked")
    return tasks


def whole_rows(
    question: Question, chosen: Candidate, found: EvidenceFile, file: Path
) -> tuple[list[Item], list[Measurement], dict[str, int]]:
    """Items and rows of the whole blocks, in this run's order, and how many certification items of each task are not
    among them. Raises InputError for an item that is another one here, and for a score that its output does not get."""
    given: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in found.rows:
        given[row["stage"], row["task"]][row["item"]].append(row)
    tasks = frozen_tasks(question)
    items: list[Item] = []
    rows: list[Measurement] = []
    left_out: dict[str, int] = {}
    for task in question.tasks:
        for stage in STAGES:
            by_item = given.get((stage, task.name), {})
            taken = _whole_blocks(question, task, tasks[task.name], stage, set(by_item))
            for block, item in taken:
                items.append(item)
                _check_repeats(question, stage, item, by_item[item.id], file)
                rows += [_measurement(chosen, block, item, row, file) for row in by_item[item.id]]
            if stage == "certify" and len(by_item) > len(taken):
                left_out[task.name] = len(by_item) - len(taken)
    return items, rows, left_out


def _check_repeats(question: Question, stage: Stage, item: Item, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Raise InputError where repeats of an item are missing or too many, so that nobody can choose among them."""
    wanted = question.decoding.repeats if stage == "certify" and not item.choices else 1
    if len(rows) != wanted:
        raise InputError(f"{file}: item {item.id} of {item.task} has {len(rows)} of {wanted} repeats; export it again")


def _whole_blocks(
    question: Question, frozen: TaskQuestion, task: Task, stage: Stage, there: set[str]
) -> list[tuple[int, Item]]:
    """Items with their block, from the first block on as long as all items of a block are ``there``."""
    if stage != "certify":
        items = task.supply("screen", frozen.screen_items, question.seed)
        return [(0, item) for item in items] if items and {i.id for i in items} <= there else []
    # One block more than the rows can fill, so that a last block that is short of items is known from a file's end.
    most = len(there) + question.block
    supplied = task.supply("certify", min(most, frozen.items) if question.mode == "fixed" else most, question.seed)
    taken: list[tuple[int, Item]] = []
    for first in range(0, len(supplied), question.block):
        block = supplied[first : first + question.block]
        if not {item.id for item in block} <= there:
            break
        taken += [(first // question.block, item) for item in block]
    return taken


def _measurement(chosen: Candidate, block: int, item: Item, row: Mapping[str, Any], file: Path) -> Measurement:
    if row["item_hash"] != item_hash(item):
        raise InputError(
            f"{file}: item {item.id} of {item.task} is another one here; give both machines the same items"
        )
    if not _agrees(item, row):
        raise InputError(
            f"{file}: item {item.id} of {item.task} says {row['score']:g}, which its output does not get; export again"
        )
    return Measurement(
        candidate=chosen.name,
        stage=cast(Stage, row["stage"]),
        task=item.task,
        item=item.id,
        repeat=row["repeat"],
        block=block,
        score=float(row["score"]),
        finish=row["finish"],
        output=row["output"],
        cluster=item.cluster,
        prompt_tokens=row["prompt_tokens"],
        output_tokens=row["output_tokens"],
        error=row["error"],
    )


def _agrees(item: Item, row: Mapping[str, Any]) -> bool:
    """Whether the score is that of the output, scored here.

    Log-probabilities of choices are kept with four digits, so that near ties could be either way.
    """
    if row["finish"] not in ANSWERED:
        return bool(row["score"] == 0.0)
    if not item.choices:
        return bool(abs(scorers.score(item, row["output"]) - row["score"]) < 1e-9)
    try:
        told = [float(text) for text in row["output"].split()]
        nudged = [[p + (step if i == item.target else 0.0) for i, p in enumerate(told)] for step in (-2e-4, 2e-4)]
        return row["score"] in [scorers.score_choice(item, values) for values in nudged]
    except (ValueError, QuantwiseError):
        return False
