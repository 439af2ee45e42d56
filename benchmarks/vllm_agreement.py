"""Does vLLM on a CPU name the same next token as the Transformers runtime, for one and the same folder?

    QUANTWISE_VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/vllm_agreement.py [--write]
    python benchmarks/vllm_agreement.py --only 16bit w8a8       some of the rows; what was measured before is kept
    python benchmarks/vllm_agreement.py --work DIR              where (default runs/vllm-agreement)

The reference model's exports, at every position of held-out texts that nobody trained or calibrated on, and apart from
these at the positions where the text is a model's answer to a suite's question. Each row is compared with that of 16
bit at the same positions; intervals resample whole texts. Among equal logits the lowest token id counts, on both sides:
bfloat16 has many ties. How much of it is rounding alone: the same folder in Transformers twice, in bfloat16 with
another attention (the same sums in another order), and in float32; ``computed_otherwise``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from answer_places import answers, tokens_of
from computed_otherwise import logits, model_in
from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.errors import RuntimeFailure
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import Runtime, RuntimeOptions
from quantwise.models.reference import path as reference_path
from quantwise.runtimes.transformers import Transformers
from quantwise.runtimes.vllm import Vllm
from quantwise.stats.bootstrap import Estimate, bootstrap_ratio
from this_machine import line
from trained_models import ROOT, Trained, reference_model

PAGE = ROOT / "docs" / "vllm-agreement.md"
SWITCH = "VLLM_CPU_INT4_W4A8"
CONTEXT, TOP, ALLOWED = 1024, 4, 0.01


@dataclass(frozen=True, slots=True)
class Row:
    """A recipe in vLLM, with or without its int8 inputs of 4-bit layers, beside the Transformers runtime, or
    (``rounded``) beside what Transformers computes where linear layers round their inputs to int8 too.
    """

    recipe: str
    int8_inputs: bool = True
    rounded: bool = False

    @property
    def name(self) -> str:
        """As in the table."""
        with_switch = f"`{self.recipe}`" + ("" if self.int8_inputs else f", `{SWITCH}=0`")
        return with_switch + (", beside int8 inputs" if self.rounded else "")


FOUR_BITS = ("gptq:int4-g128,layout=gptq", "awq+rtn:int4-g64-asym,layout=awq")
ROWS = (
    *(Row(recipe) for recipe in ("16bit", "w8a8", "fp8", *FOUR_BITS)),
    *(Row(recipe, int8_inputs=False) for recipe in FOUR_BITS),
    *(Row(recipe, rounded=True) for recipe in FOUR_BITS),
)

Picks = list[list[int]]


class Kept:
    """Answers on disk, so that a run that was cut off goes on."""

    def __init__(self, work: Path, texts: Sequence[str]) -> None:
        self.work, self.texts = work, list(texts)
        work.mkdir(parents=True, exist_ok=True)
        self._told = work / "answers.json"
        self._all: dict[str, Any] = json.loads(self._told.read_text()) if self._told.exists() else {}
        if self._all.setdefault("texts", self.texts) != self.texts:
            raise SystemExit(f"{work} holds answers to other texts; give another --work")

    def get(self, name: str) -> Any:
        """What is kept under a name, or None."""
        return self._all.get(name)

    def put(self, name: str, told: Any) -> Any:
        """Keep it; returns it."""
        self._all[name] = told
        self._told.write_text(json.dumps(self._all), encoding="utf-8")
        return told


def artifacts(kept: Kept, calibration: Sequence[str], recipes: Sequence[str]) -> dict[str, Artifact]:
    """The folders, built in one pass or found."""
    names = list(dict.fromkeys(recipes))
    made = build(reference_path(), [parse_recipe(name) for name in names], list(calibration), kept.work / "built")
    return dict(zip(names, made, strict=True))


def picks(kept: Kept, name: str, runtime: Runtime, artifact: Artifact) -> Picks:
    """The likeliest next token at each position of each text; of equal ones the lowest id."""
    if (found := kept.get(name)) is not None:
        return list(found)
    with runtime.open(artifact, RuntimeOptions(context=CONTEXT, parallel=8)) as session:
        told = [session.next_token_logprobs(text, TOP) for text in kept.texts]  # type: ignore[attr-defined]
    print(f"- {name}: answered", flush=True)
    return list(kept.put(name, [[_likeliest(place) for place in text] for text in told]))


def _likeliest(place: dict[int, float]) -> int:
    most = max(place.values())
    return min(token for token, value in place.items() if value == most)


def computed(kept: Kept, trained: Trained, row: Row, folder: Path) -> dict[str, Any]:
    """Picks in Transformers, 4-bit weights expanded: ``plain`` in bfloat16, ``again`` with another attention,
    ``wide`` in float32. ``likely``: log probabilities in float32, by text.
    """
    texts = tokens_of(trained, kept.texts)
    ways = {"plain": (torch.bfloat16, "sdpa"), "again": (torch.bfloat16, "eager"), "wide": (torch.float32, "sdpa")}
    found: dict[str, Any] = {}
    for way, (dtype, attention) in ways.items():
        seen = logits(model_in(folder, dtype, row.rounded, attention), texts)
        found[way] = [text.argmax(-1).tolist() for text in seen]
        if way == "wide":
            found["likely"] = [text.log_softmax(-1) for text in seen]
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """Texts T, over the same positions: how often two agree, as counts per text."""

    row: Row
    positions: NDArray[np.float64]
    same: NDArray[np.float64]
    again: NDArray[np.float64]  # Transformers with another attention
    wide: NDArray[np.float64]  # Transformers in float32
    answered: NDArray[np.float64]  # positions of answers
    same_answers: NDArray[np.float64]
    gaps: tuple[float, ...]  # nats, where vLLM and Transformers differ


def compare(kept: Kept, trained: Trained, row: Row, made: dict[str, Artifact]) -> Found:
    """One row, measured or read back."""
    artifact = made[row.recipe]
    if (told := kept.get(f"row {row.name}")) is None:
        with switched(row.int8_inputs):
            name = f"vllm {row.recipe} {'' if row.int8_inputs else SWITCH + '=0'}"
            theirs = picks(kept, name, Vllm(), artifact)
        here = computed(kept, trained, row, Path(artifact.location))
        ours = here["plain"] if row.rounded else picks(kept, f"transformers {row.recipe}", Transformers(), artifact)
        places = answers(trained, kept.texts)
        gaps = [
            abs(float(likely[place, a] - likely[place, b]))
            for likely, *both in zip(here["likely"], theirs, ours, strict=True)
            for place, (a, b) in enumerate(zip(*both, strict=True))
            if a != b
        ]
        told = {
            "positions": [float(len(text)) for text in ours], "same": _same(theirs, ours),
            "again": _same(here["plain"], here["again"]), "wide": _same(here["plain"], here["wide"]),
            "answered": [float(sum(text)) for text in places], "same_answers": _same(theirs, ours, places),
            "gaps": gaps,
        }  # fmt: skip
        kept.put(f"row {row.name}", told)
        gc.collect()
    counts = {name: np.array(values) for name, values in told.items() if name != "gaps"}
    return Found(row, **counts, gaps=tuple(told["gaps"]))


def _same(some: Picks, others: Picks, places: Sequence[Sequence[bool]] | None = None) -> list[float]:
    """How often they are equal, text by text; at ``places`` alone where given."""
    counted = places or [[True] * len(text) for text in some]
    texts = zip(some, others, counted, strict=True)
    return [float(sum(a == b for a, b, counts in zip(*text, strict=True) if counts)) for text in texts]


@contextmanager
def switched(int8_inputs: bool) -> Iterator[None]:
    """vLLM's own switch, as the server inherits it."""
    before = os.environ.pop(SWITCH, None)
    if not int8_inputs:
        os.environ[SWITCH] = "0"
    try:
        yield
    finally:
        os.environ.pop(SWITCH, None)
        if before is not None:
            os.environ[SWITCH] = before


def verdict(over: Estimate) -> str:
    """Within a point of what 16 bit reaches?"""
    if over.low is not None and over.low >= -ALLOWED:
        return "within 1 point"
    if over.value >= -ALLOWED:
        return "within 1 point, not by the whole interval"
    return "further off" if over.high is not None and over.high < -ALLOWED else "further off, not by the whole interval"


def table(found: Sequence[Found]) -> str:
    """As Markdown."""
    base = found[0]
    lines = [
        "| folder | vLLM and Transformers agree | less 16 bit's, points (95 %) | | Transformers with itself, other"
        " attention | itself in float32 | at answers, vLLM and Transformers | gap where they differ, nats |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for one in found:
        cells = [one.row.name, share(one.same, one.positions), "", ""]
        if one is not base:
            over = bootstrap_ratio(one.same - base.same, one.positions)
            cells[2] = f"{100 * over.value:+.2f} ({100 * (over.low or 0):+.2f} to {100 * (over.high or 0):+.2f})"
            cells[3] = verdict(over)
        cells += [share(side, one.positions) for side in (one.again, one.wide)]
        cells.append(f"{share(one.same_answers, one.answered)} ({int((one.answered - one.same_answers).sum())} differ)")
        cells.append(f"{np.median(one.gaps):.3f} ({np.max(one.gaps):.2f} at most)" if one.gaps else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def share(some: NDArray[np.float64], of: NDArray[np.float64]) -> str:
    """As a percentage."""
    return f"{some.sum() / of.sum():.2%}"


def page(told: str, rows: str, failed: Sequence[str]) -> str:
    """The whole page."""
    lost = "".join(f"\nNot answered: {one}\n" for one in failed)
    return f"""# vLLM on a CPU beside Transformers

How often vLLM and the Transformers runtime name the same next token for one and the same folder; made by
`benchmarks/vllm_agreement.py`. Exports of the reference model, every position of held-out texts; of equal logits the
lowest id. The third column compares each row with 16 bit at the same positions; intervals resample whole texts.

The two columns after that have no vLLM in them: Transformers in bfloat16 beside Transformers with another attention
(`eager` for `sdpa`: the same sums in another order), and beside float32. "At answers" counts only tokens of the
answers to the suites' held-out questions, their end included, each after the true tokens before it. The last column
is how far apart the two tokens are in float32, where the runtimes differ. "Beside int8 inputs" is vLLM as it is, beside
Transformers with the inputs of all linear layers but the last rounded to int8, token by token: what vLLM does of its
own on a processor with AMX, unless `{SWITCH}` is 0.

{rows}
{lost}
{told}. One run, one small model, one machine.
"""


def main() -> int:
    """Print the table, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every so many-th text")
    parser.add_argument("--only", nargs="*", help="recipes; 16bit is always there")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "vllm-agreement")
    parser.add_argument("--write", action="store_true")
    flags = parser.parse_args()
    trained = reference_model()
    kept = Kept(flags.work, trained.held_out[:: flags.every])
    rows = [row for row in ROWS if not flags.only or row.recipe in ("16bit", *flags.only)]
    made = artifacts(kept, trained.calibration, [row.recipe for row in rows])
    found, failed = [], []
    for row in rows:
        try:
            found.append(compare(kept, trained, row, made))
        except RuntimeFailure as error:
            failed.append(f"{row.name}: {error}")
            print(f"- {failed[-1]}", flush=True)
    positions = int(found[0].positions.sum())
    answered = int(found[0].answered.sum())
    told = f"{date.today()}, {Vllm().version()}, {line()}; {positions:,} positions of {len(kept.texts)} texts, "
    told += f"{answered:,} of answers"
    print(f"\n{told}\n\n{table(found)}")
    if flags.write:
        PAGE.write_text(page(told, table(found), failed), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
