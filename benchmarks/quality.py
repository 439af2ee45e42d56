"""Quality beside peers: held-out KL at equal or fewer bytes, with paired bootstrap intervals over texts.

    make peers
    python benchmarks/quality.py                       both models, everything: an hour and more of one core
    python benchmarks/quality.py --goals-only          without the recipes that are only shown beside: half of that
    python benchmarks/quality.py --models reference    one of them
    python benchmarks/quality.py --only gguf           gguf, integer, auto
    python benchmarks/quality.py --write               also docs/quality.md
    python benchmarks/quality.py --toolkit CLONE       also beside a clone of IST-DASLab/gptq-gguf-toolkit

Which of our recipes stands for the goal is fixed here, before anything is measured; the others are shown beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fresh_process import ROOT, Finished, setting
from quantwise.stats.bootstrap import Estimate, bootstrap_ratio
from trained_models import prose_model, reference_model
from weighing import COMPRESSOR, LLAMA, Bench, Weighed

PAGE = ROOT / "docs" / "quality.md"
MODELS = {"reference": reference_model, "prose": prose_model}
PARTS = ("gguf", "integer", "auto")
TOOLKIT_TYPES = ("q4_k", "q3_k", "q2_k")


@dataclass(frozen=True, slots=True)
class Contest:
    """A peer's arm, what of ours stands for the goal against it, and what is shown beside.

    ``{bytes}`` in a recipe is the size of the peer's file.
    """

    part: str
    peer: str
    kind: str
    ours: str
    goal: float
    beside: tuple[str, ...] = ()


# GPTQ alone for 4 bit, with distilled scales below: an early trial on another model suggested that.
CONTESTS = (
    Contest("gguf", LLAMA, "q4_k_m", "gptq:q4_k_m", 0.75, ("rtn:q4_k_m", "imatrix:q4_k_m", "distil+gptq:q4_k_m")),
    Contest("gguf", LLAMA, "q4_k_s", "gptq:q4_k_s", 0.75, ("imatrix:q4_k_s", "distil+gptq:q4_k_s")),
    Contest("gguf", LLAMA, "q3_k_m", "distil+gptq:q3_k_m", 0.75, ("rtn:q3_k_m", "imatrix:q3_k_m", "gptq:q3_k_m")),
    Contest("gguf", LLAMA, "q2_k", "distil+gptq:q2_k", 0.75, ("rtn:q2_k", "imatrix:q2_k", "gptq:q2_k")),
    Contest("integer", COMPRESSOR, "gptq:int4-g128", "gptq:int4-g128", 0.9, ("distil+gptq:int4-g128",)),
    Contest("integer", COMPRESSOR, "gptq:int3-g128", "gptq:int3-g128", 0.9, ("distil+gptq:int3-g128",)),
    Contest("auto", LLAMA, "q4_k_m", "auto:{bytes}b", 0.85, ("distil+auto:{bytes}b",)),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One of our artifacts beside the peer's; ``goal`` is None for what is only shown."""

    ours: Weighed
    theirs: Weighed
    ratio: Estimate
    goal: float | None

    @property
    def verdict(self) -> str:
        """How the goal was met."""
        if self.goal is None:
            return ""
        if self.ours.bytes > self.theirs.bytes:
            return f"goal {self.goal}: MISSED (more bytes)"
        if self.ratio.value > self.goal:
            return f"goal {self.goal}: MISSED"
        surely = self.ratio.high is not None and self.ratio.high <= self.goal
        return f"goal {self.goal}: reached" + ("" if surely else ", not by the whole interval")


def contests(parts: Sequence[str], goals_only: bool) -> list[Contest]:
    """The contests of ``parts``, or without what is only shown beside."""
    chosen = [contest for contest in CONTESTS if contest.part in parts]
    return [replace(contest, beside=()) for contest in chosen] if goals_only else chosen


def weigh(bench: Bench, chosen: Sequence[Contest]) -> list[Row]:
    """Every contest of ``chosen`` on one model."""
    bench.prepare([r for c in chosen for r in (c.ours, *c.beside) if "{bytes}" not in r])
    rows = []
    for contest in chosen:
        theirs = bench.theirs(contest.peer, contest.kind)
        for recipe in (contest.ours, *contest.beside):
            ours = bench.ours(recipe.format(bytes=theirs.bytes))
            goal = contest.goal if recipe == contest.ours else None
            rows.append(Row(ours, theirs, bootstrap_ratio(ours.sums, theirs.sums), goal))
    return rows


def beside_toolkit(bench: Bench, clone: Path) -> list[Row]:
    """Shown only: no goal was set."""
    pairs = bench.toolkit(clone, TOOLKIT_TYPES)
    return [Row(ours, theirs, bootstrap_ratio(ours.sums, theirs.sums), None) for ours, theirs in pairs]


def table(rows: Sequence[Row], positions: float) -> str:
    """As Markdown: ours beside the peer's, the ratio of divergences with its interval."""
    lines = [
        "| ours | bytes | KL | peer | bytes | KL | ours / peer | 95 % interval | |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        cells = [f"`{row.ours.name}`", f"{row.ours.bytes:,}", f"{row.ours.sums.sum() / positions:.5f}"]
        cells += [row.theirs.name, f"{row.theirs.bytes:,}", f"{row.theirs.sums.sum() / positions:.5f}"]
        interval = f"{row.ratio.low or 0:.3f} to {row.ratio.high or np.inf:.3f}"
        lines.append(f"| {' | '.join(cells)} | {row.ratio.value:.3f} | {interval} | {row.verdict} |")
    return "\n".join(lines)


INTRODUCTION = """# Quality beside peers

Held-out KL from the 16-bit model (nats a token, exact over the vocabulary) at equal or fewer bytes. Made by
`python benchmarks/quality.py{options} --write` on {date}.

Every tool got the same model and the same calibration tokens. llama.cpp is `llama_model_quantize` with an importance
matrix of exactly these tokens; llm-compressor is its GPTQ with its defaults. Only the numbers in the files differ: all
are weighed in float32 by Transformers. *Bytes* are those of the files that hold tensors. The interval is a paired
bootstrap over texts: it says how much rests on the choice of texts, not on the model, the calibration set or the seed.
Which recipe stands for the goal (the row that names one) was fixed before measuring.

**Models this small say that the code works. Rankings need not carry over to models of 1B parameters and more.**

Error-compensated k-quants were first published by
[IST-DASLab/gptq-gguf-toolkit](https://github.com/IST-DASLab/gptq-gguf-toolkit). Its program asks for CUDA and NCCL
before anything else, so it does not run here as it stands; the class behind it does, and `--toolkit` compares with it.
"""
BESIDE_TOOLKIT = """Beside the class of IST-DASLab/gptq-gguf-toolkit, on a CPU with its program's defaults (no
activation order, scales from absolute maxima). One type for every matrix of the blocks, embedding and norms in 16 bit,
bytes of these matrices; no goal was set."""


def page(sections: Sequence[str], peers: dict[str, list[Finished]], goals_only: bool) -> str:
    """The document."""
    head = INTRODUCTION.format(date=datetime.now(UTC).date(), options=" --goals-only" if goals_only else "")
    return "\n".join([head, *sections, "## Machine and versions", "", setting(peers), ""])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--toolkit", type=Path, metavar="CLONE", help="also beside a clone of IST-DASLab/gptq-gguf-toolkit"
    )
    parser.add_argument("--goals-only", action="store_true", help="leave out the recipes that are only shown beside")
    parser.add_argument("--write", action="store_true", help="also write docs/quality.md")
    options = parser.parse_args()
    sections: list[str] = []
    peers: dict[str, list[Finished]] = {}
    for name in options.models:
        with tempfile.TemporaryDirectory() as temporary:
            bench = Bench(MODELS[name](), Path(temporary))
            rows = weigh(bench, contests(options.only, options.goals_only))
            told = f"{bench.trained.about} {bench.data.tokens:,} calibration tokens; {len(bench.texts.ids)} texts, "
            positions = bench.texts.positions.sum()
            parts = [f"{told}{positions:,.0f} positions.", table(rows, positions)]
            if options.toolkit:
                parts += [BESIDE_TOOLKIT, table(beside_toolkit(bench, options.toolkit.resolve()), positions)]
        sections.append("\n\n".join([f"## Model: {name}", *parts]) + "\n")
        print("\n" + sections[-1], flush=True)
        for peer, runs in bench.peers.items():
            peers.setdefault(peer, []).extend(runs)
    text = page(sections, peers, options.goals_only)
    print(setting(peers))
    if options.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
