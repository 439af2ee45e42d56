"""Items of published benchmarks, from the files their authors release. Fields that carry no question are left aside.

BLiMP (Warstadt et al. 2020, arXiv 1912.00582): pairs of whole sentences. GSM8K (Cobbe et al. 2021, arXiv 2110.14168):
grade-school mathematics with the answer after ``####``. MGSM (Shi et al. 2022, arXiv 2210.03057): the same in other
languages, a question and a number separated by a tab.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantwise.core.errors import InputError
from quantwise.core.item import Item, Message
from quantwise.tasks.number_answers import read_number

INSTRUCTION = "Work it out step by step, then give the result on a line of its own, as #### and the number."
MAX_TOKENS = 512


def blimp_item(record: Mapping[str, Any], task: str, line: int) -> Item | None:
    """A choice between two sentences with an empty prompt; target 0 is the grammatical one.

    The empty prompt asks for each sentence's unconditional log-probability: summed from its first token on, after the
    beginning-of-sequence token where the tokenizer has one (without one, from the second token on). A tie is wrong, so
    the fixed order gives no advantage. None for a pair of equal sentences, which asks nothing (passive_1 has two).
    """
    good, bad = record.get("sentence_good"), record.get("sentence_bad")
    if not isinstance(good, str) or not isinstance(bad, str) or not good.strip() or not bad.strip():
        raise InputError("a BLiMP line needs the texts sentence_good and sentence_bad")
    if good == bad:
        return None
    name = str(record.get("pairID", line))
    return Item(id=name, task=task, target=0, scorer="choice", prompt="", choices=(good, bad), max_tokens=1)


def gsm8k_item(record: Mapping[str, Any], task: str, line: int) -> Item:
    """A question in plain words; the target is the number after ``####``, as it is written."""
    question, answer = record.get("question"), record.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str) or not question.strip():
        raise InputError("a GSM8K line needs the texts question and answer")
    _, mark, number = answer.rpartition("####")
    if not mark or read_number(number) is None:
        raise InputError("the answer of a GSM8K line must end in #### and a number")
    return _problem(str(line), task, question, number)


def mgsm_item(text: str, task: str, line: int) -> Item:
    """A question in any language and its number, separated by one tab. The instruction stays English."""
    question, tab, number = text.partition("\t")
    if not tab or "\t" in number or not question.strip() or read_number(number) is None:
        raise InputError("an MGSM line is a question, a tab and a number")
    return _problem(str(line), task, question, number)


def _problem(name: str, task: str, question: str, number: str) -> Item:
    message = Message("user", f"{question.strip()}\n{INSTRUCTION}")
    return Item(name, task, number.strip(), "numeric", messages=(message,), max_tokens=MAX_TOKENS)
