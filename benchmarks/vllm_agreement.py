"""Does vLLM on a CPU name the same next token as the Transformers runtime, for one and the same folder?

    QUANTWISE_VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/vllm_agreement.py [--write]
    python benchmarks/vllm_agreement.py --only 16bit w8a8       some of the rows; what was measured before is kept
    python benchmarks/vllm_agreement.py --work DIR              where (default runs/vllm-agreement)

The reference model's exports, at every position of held-out texts that nobody trained or calibrated on. Each row is
compared with the row of 16 bit at the same positions; intervals resample whole texts. Among equal logits the lowest
token id counts, on both sides: bfloat16 has many ties. ``exact`` is the same folder's numbers computed by Transformers
in float64 (inputs rounded where the scheme rounds them); it says which side is off, and how close the two tokens
are where the sides differ.
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
from numpy.typing import NDArray

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
from trained_models import ROOT, reference_model

PAGE = ROOT / "docs" / "vllm-agreement.md"
SWITCH = "VLLM_CPU_INT4_W4A8"
CONTEXT, TOP, ALLOWED = 1024, 4, 0.01


@dataclass(frozen=True, slots=True)
class Row:
    """A recipe in vLLM, with or without its int8 inputs of 4-bit layers, beside what Transformers computes of
    ``beside`` (the recipe itself, if empty).
    """

    recipe: str
    int8_inputs: bool = True
    beside: str = ""

    @property
    def name(self) -> str:
        """As in the table."""
        with_switch = f"`{self.recipe}`" + ("" if self.int8_inputs else f", `{SWITCH}=0`")
        return with_switch + (f" beside `{self.beside}`" if self.beside else "")


FOUR_BITS = ("gptq:int4-g128", "gptq:int4-g128,layout=gptq", "awq+rtn:int4-g64-asym,layout=awq")
ROWS = (
    Row("16bit"),
    Row("w8a8"),
    *(Row(recipe) for recipe in FOUR_BITS[1:]),
    Row("fp8"),
    *(Row(recipe, int8_inputs=False) for recipe in FOUR_BITS[1:]),
    *(Row(FOUR_BITS[0], rounded) for rounded in (True, False)),
    Row("rtn:int4-g128"),
    Row("rtn:int4-g128", beside="w4a8"),
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


def exact(
    kept: Kept, recipe: str, artifact: Artifact, chosen: Sequence[Picks]
) -> tuple[Picks, list[list[list[float]]]]:
    """The picks in float64, and the log probabilities there of what each of ``chosen`` picked."""
    import torch
    from tokenizers import Tokenizer

    from quantwise.runtimes.transformers_folder import model_of

    tokenizer = Tokenizer.from_file(str(reference_path() / "tokenizer.json"))
    model = model_of(Path(artifact.location))
    with torch.inference_mode():
        model(torch.tensor([[0, 1]]))  # some weights are expanded at the first call
        in_float64(model)
        best, seen = [], []
        for number, text in enumerate(kept.texts):
            ids = torch.tensor([[model.config.eos_token_id, *tokenizer.encode(text, add_special_tokens=False).ids]])
            logits = model(ids).logits[0, :-1]
            if logits.dtype != torch.float64:
                raise SystemExit(f"{recipe} was computed in {logits.dtype}, not in float64; there is no exact answer")
            places = logits.log_softmax(-1)
            assert all(len(pick[number]) == len(places) for pick in chosen)
            best.append(places.argmax(-1).tolist())
            these = (torch.tensor(pick[number]).unsqueeze(1) for pick in chosen)
            seen.append([places.gather(1, index).squeeze(1).tolist() for index in these])
    return best, seen


def in_float64(model: Any) -> None:
    """Everything but the codes of 8-bit floats, which say how a layer computes."""
    import torch

    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and tensor.dtype in (torch.bfloat16, torch.float16, torch.float32):
                    wide = tensor.double()
                    held[name] = torch.nn.Parameter(wide, False) if held is module._parameters else wide


@dataclass(frozen=True, slots=True)
class Found:
    """Texts T, over the same positions: how often two agree, as counts per text."""

    row: Row
    positions: NDArray[np.float64]
    same: NDArray[np.float64]
    vllm_exact: NDArray[np.float64]
    ours_exact: NDArray[np.float64]
    gap: float | None  # nats, median where the two differ


def compare(kept: Kept, row: Row, made: dict[str, Artifact]) -> Found:
    """One row, measured or read back."""
    with switched(row.int8_inputs):
        name = f"vllm {row.recipe} {'' if row.int8_inputs else SWITCH + '=0'}"
        theirs = picks(kept, name, Vllm(), made[row.recipe])
    beside = row.beside or row.recipe
    ours = picks(kept, f"transformers {beside}", Transformers(), made[beside])
    best, seen = exact(kept, beside, made[beside], (theirs, ours))
    gc.collect()
    gaps = [abs(a - b) for text in seen for a, b in zip(*text, strict=True) if a != b]
    return Found(
        row, np.array([float(len(text)) for text in ours]), _same(theirs, ours), _same(theirs, best), _same(ours, best),
        float(np.median(gaps)) if gaps else None,
    )  # fmt: skip


def _same(some: Picks, others: Picks) -> NDArray[np.float64]:
    return np.array([float(sum(a == b for a, b in zip(s, o, strict=True))) for s, o in zip(some, others, strict=True)])


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
        "| folder | vLLM and Transformers agree | less 16 bit's, points (95 %) | | vLLM with exact | Transformers with"
        " exact | gap where they differ, nats |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for one in found:
        share = bootstrap_ratio(one.same, one.positions).value
        cells = [one.row.name, f"{share:.2%}", "", ""]
        if one is not base:
            over = bootstrap_ratio(one.same - base.same, one.positions)
            cells[2] = f"{100 * over.value:+.2f} ({100 * (over.low or 0):+.2f} to {100 * (over.high or 0):+.2f})"
            cells[3] = verdict(over)
        cells += [f"{side.sum() / one.positions.sum():.2%}" for side in (one.vllm_exact, one.ours_exact)]
        cells.append("" if one.gap is None else f"{one.gap:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(told: str, rows: str, failed: Sequence[str]) -> str:
    """The whole page."""
    lost = "".join(f"\nNot answered: {one}\n" for one in failed)
    return f"""# vLLM on a CPU beside Transformers

How often vLLM and the Transformers runtime name the same next token for one and the same folder; made by
`benchmarks/vllm_agreement.py`. Exports of the reference model, every position of held-out texts. The third column
compares each row with 16 bit at the same positions; intervals resample whole texts. "Exact" is the folder computed by
Transformers in float64, inputs rounded where the scheme rounds them; the last column is how far apart the two tokens
are there, in the median, where the runtimes differ.

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
    made = artifacts(kept, trained.calibration, [r for row in rows for r in (row.recipe, row.beside) if r])
    found, failed = [], []
    for row in rows:
        try:
            found.append(compare(kept, row, made))
        except RuntimeFailure as error:
            failed.append(f"{row.name}: {error}")
            print(f"- {failed[-1]}", flush=True)
    positions = int(found[0].positions.sum())
    told = f"{date.today()}, {Vllm().version()}, {line()}; {positions:,} positions of {len(kept.texts)} texts"
    print(f"\n{told}\n\n{table(found)}")
    if flags.write:
        PAGE.write_text(page(told, table(found), failed), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
