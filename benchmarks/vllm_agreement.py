"""Does vLLM on a CPU name the same next token as the Transformers runtime, for one and the same folder?

    QUANTWISE_VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/vllm_agreement.py --every 3 --write
    python benchmarks/vllm_agreement.py --work DIR              where (default runs/vllm-agreement)

The reference model's exports, at every position of held-out texts that nobody trained or calibrated on, and apart from
these at the positions where the text is a model's answer to a suite's question. Both runtimes are compared with each
other, and each with the stored numbers computed exactly, in float64; so it is seen which of the two is nearer, and how
far apart the two likeliest tokens are where they differ. How much of it is rounding alone: the same folder in
Transformers twice, in bfloat16 with another attention (the same sums in another order); ``computed_otherwise``. And
with both runtimes in float32, by the dtype in the folder's config.json and vLLM's own flag, where vLLM takes that (not
GPTQ, nor AWQ): what differs then is no rounding to bfloat16. Among equal logits the lowest token id counts everywhere:
bfloat16 has many ties. What was answered is kept in the work folder, so that a run that was cut off goes on. Three
gigabytes of memory, 15 minutes with ``--every 3``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from agreement_page import Compared, page
from answer_places import answers, tokens_of
from computed_otherwise import exact_model, logits, model_in
from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.errors import RuntimeFailure
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import Runtime, RuntimeOptions
from quantwise.models.reference import path as reference_path
from quantwise.runtimes.transformers import Transformers
from quantwise.runtimes.vllm import Vllm
from this_machine import line
from trained_models import ROOT, reference_model

# On AMX vLLM computes otherwise, so such a processor has a page of its own.
PAGES = {False: ROOT / "docs" / "vllm-agreement.md", True: ROOT / "docs" / "vllm-agreement-amx.md"}
CONTEXT, TOP = 1024, 4
FOUR_BITS = ("gptq:int4-g128,layout=gptq", "awq+rtn:int4-g64-asym,layout=awq")
SWITCH, FLAGS = "VLLM_CPU_INT4_W4A8", "QUANTWISE_VLLM_FLAGS"
# Of 4-bit weights: vLLM as it is; beside Transformers and exact numbers whose inputs are rounded to int8 too; vLLM with
# its switch for that rounding off.
Way = Literal["", "beside int8 inputs", "16-bit inputs", "both in float32"]
WAYS: tuple[Way, ...] = ("", "beside int8 inputs", "16-bit inputs")
FLOAT32: Way = "both in float32"
Places = Sequence[Sequence[bool]]
RECIPES = ("16bit", "w8a8", "fp8", *FOUR_BITS)


@dataclass(frozen=True, slots=True)
class Said:
    """What one way of computing says at each position of each text: the likeliest next token, the log probability of
    the token that came, and how many nats the two likeliest are apart.
    """

    likeliest: list[list[int]]
    came: list[list[float]]
    gap: list[list[float]]


class Kept:
    """Answers on disk, by name."""

    def __init__(self, work: Path, texts: Sequence[Sequence[int]]) -> None:
        self.work, self.texts = work, [list(text) for text in texts]
        work.mkdir(parents=True, exist_ok=True)
        self._told = work / "answers.json"
        self._all: dict[str, Any] = json.loads(self._told.read_text()) if self._told.exists() else {}
        if self._all.setdefault("texts", self.texts) != self.texts:
            raise SystemExit(f"{work} holds answers to other texts; give another --work")

    def said(self, name: str, say: Callable[[], Said]) -> Said:
        """What is kept under a name, else what ``say`` says, kept."""
        if name not in self._all:
            self._all[name] = asdict(say())
            self._told.write_text(json.dumps(self._all), encoding="utf-8")
            print(f"- {name}: answered", flush=True)
        return Said(**self._all[name])


@contextmanager
def asked_of_vllm(way: Way) -> Iterator[None]:
    """vLLM's own switch for 4-bit weights and its flag for the type, as the server takes them from us."""
    before = {name: os.environ.pop(name, None) for name in (SWITCH, FLAGS)}
    if way == "16-bit inputs":
        os.environ[SWITCH] = "0"
    if way == FLOAT32:
        os.environ[FLAGS] = "--dtype float32"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def by_runtime(runtime: Runtime, artifact: Artifact, kept: Kept, texts: Sequence[str]) -> Said:
    """What a session of a runtime says."""
    with runtime.open(artifact, RuntimeOptions(context=CONTEXT, parallel=8, timeout_s=900.0)) as session:
        told = [session.next_token_logprobs(text, TOP) for text in texts]  # type: ignore[attr-defined]
    found = Said([], [], [])
    for places, ids in zip(told, kept.texts, strict=True):
        best = [sorted(place.values())[-2:] for place in places]
        found.gap.append([two[1] - two[0] for two in best])
        found.likeliest.append(
            [
                min(token for token, value in place.items() if value == two[1])
                for place, two in zip(places, best, strict=True)
            ]
        )
        found.came.append([place[token] for place, token in zip(places, ids, strict=True)])
    return found


def by_model(model: Any, kept: Kept) -> Said:
    """What a model of Transformers says."""
    found = Said([], [], [])
    for text, ids in zip(logits(model, kept.texts), kept.texts, strict=True):
        likely = text.log_softmax(-1)
        two = likely.topk(2).values
        found.gap.append((two[:, 0] - two[:, 1]).tolist())
        found.likeliest.append(text.argmax(-1).tolist())
        found.came.append(likely.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist())
    return found


def compare(kept: Kept, artifact: Artifact, recipe: str, texts: Sequence[str], at: Places, way: Way) -> Compared:
    """One folder, one way."""
    rounded, wide = way == "beside int8 inputs", way == FLOAT32
    if wide:
        artifact = in_float32(artifact, kept.work / "float32" / Path(artifact.location).name)
    folder, dtype = Path(artifact.location), torch.float32 if wide else torch.bfloat16
    also, run = " int8 inputs" if rounded else "", " float32" if wide else ""

    def model(attention: str) -> Said:
        return by_model(model_in(folder, dtype, rounded, attention), kept)

    with asked_of_vllm(way):
        name = f"{recipe} vllm{run}{' 16-bit inputs' if way == '16-bit inputs' else ''}"
        theirs = kept.said(name, lambda: by_runtime(Vllm(), artifact, kept, texts))
    plain = kept.said(f"{recipe}{also}{run} sdpa", lambda: model("sdpa"))
    again = kept.said(f"{recipe}{also}{run} eager", lambda: model("eager"))
    exact = kept.said(f"{recipe}{also} exact", lambda: by_model(exact_model(reference_path(), folder, rounded), kept))
    runtime = kept.said(f"{recipe} transformers{run}", lambda: by_runtime(Transformers(), artifact, kept, texts))
    ours = plain if rounded else runtime
    named = {who: flat(said.likeliest) for who, said in
             {"theirs": theirs, "plain": plain, "again": again, "exact": exact, "ours": ours}.items()}  # fmt: skip
    off = {who: np.abs(flat(said.came) - flat(exact.came)) for who, said in
           {"theirs": theirs, "ours": ours, "again": again}.items()}  # fmt: skip
    return Compared(
        name=f"`{recipe}`" + (f", {way}" if way else ""),
        float32=wide,
        text=np.repeat(np.arange(len(kept.texts)), [len(text) for text in kept.texts]),
        answer=flat(at), gap=flat(exact.gap), same=named["theirs"] == named["ours"],
        again=named["plain"] == named["again"], theirs=named["theirs"] == named["exact"],
        ours=named["ours"] == named["exact"], packed=named["ours"] == named["plain"],
        theirs_off=off["theirs"], ours_off=off["ours"], again_off=off["again"],
    )  # fmt: skip


def in_float32(artifact: Artifact, folder: Path) -> Artifact:
    """The same files, with float32 as the dtype that a runtime is to compute in."""
    if not folder.exists():
        partly = folder.with_name(folder.name + ".part")
        shutil.rmtree(partly, ignore_errors=True)
        shutil.copytree(artifact.location, partly)
        config = json.loads((partly / "config.json").read_text(encoding="utf-8"))
        config.pop("torch_dtype", None)
        (partly / "config.json").write_text(json.dumps(config | {"dtype": "float32"}), encoding="utf-8")
        partly.rename(folder)
    return replace(artifact, location=str(folder))


def flat(lists: Sequence[Sequence[Any]]) -> NDArray[Any]:
    """Texts behind each other."""
    return np.array([value for text in lists for value in text])


def main() -> int:
    """Print the tables, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every so many-th text")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), help="16bit first")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "vllm-agreement")
    parser.add_argument("--write", action="store_true")
    flags = parser.parse_args()
    trained = reference_model()
    texts = trained.held_out[:: flags.every]
    kept, places = Kept(flags.work, tokens_of(trained, texts)), answers(trained, texts)
    parsed = [parse_recipe(recipe) for recipe in flags.recipes]
    made = build(reference_path(), parsed, list(trained.calibration), flags.work / "built")
    amx = "AMX" in Vllm().version()
    found: list[Compared] = []
    failed: list[str] = []
    for recipe, artifact in zip(flags.recipes, made, strict=True):
        ways = WAYS if amx else WAYS[:1]
        for way in ways if recipe in FOUR_BITS else (WAYS[0], FLOAT32):
            try:
                found.append(compare(kept, artifact, recipe, texts, places, way))
            except RuntimeFailure as error:
                failed.append(f"`{recipe}`{', ' * bool(way)}{way}: {error}")
                print(f"- {failed[-1]}", flush=True)
    found.sort(key=lambda one: one.float32)
    every = f", one in {flags.every}" if flags.every > 1 else ""
    told = f"""Exports of the reference model at {found[0].gap.size:,} positions of {len(texts)} held-out texts{every},
{int(found[0].answer.sum()):,} of them of answers to the suites' questions; of equal logits the lowest id counts.
{date.today()}, {Vllm().version()}, {line()}. One run, one small model, one machine."""
    print(f"\n{page(told, found, failed, amx)}")
    if flags.write:
        PAGES[amx].write_text(page(told, found, failed, amx), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
