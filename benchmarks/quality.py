"""Quality beside peers: held-out KL at equal or fewer bytes, with paired bootstrap intervals over texts.

    make peers
    python benchmarks/quality.py                       both models, everything: about half an hour of one core
    python benchmarks/quality.py --models reference    one of them
    python benchmarks/quality.py --only gguf           gguf, integer, auto
    python benchmarks/quality.py --write               also docs/quality.md

Which of our recipes stands for the goal is fixed here, before anything is measured; the others are shown beside it. All
arms are weighed alike: Transformers in float32 on the values that the files hold, exact KL from the 16-bit model over
the whole vocabulary (build/held_out.py). llama.cpp's files count too: they are read as GGUF, whatever wrote them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresh_process import ROOT, Arm, Finished, cores, run, setting
from quantwise.build.calibration import Calibration, calibrate
from quantwise.build.held_out import HeldOut, divergences, held_out
from quantwise.build.skeleton import Skeleton
from quantwise.build.stream import walk_blocks
from quantwise.build.walk import build
from quantwise.core.artifact import Artifact, FormatName
from quantwise.core.recipe import parse_recipe
from quantwise.formats.gguf.tensors import TensorNames
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.stats.bootstrap import Estimate, bootstrap_ratio
from trained_models import Trained, prose_model, reference_model

PAGE = ROOT / "docs" / "quality.md"
MODELS = {"reference": reference_model, "prose": prose_model}
LLAMA, COMPRESSOR = "llama.cpp", "llm-compressor"


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
class Weighed:
    """One artifact: its bytes (of the files that hold tensors), and its KL in nats summed over each text."""

    name: str
    bytes: int
    sums: NDArray[np.float64]


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


class Bench:
    """One model, its calibration tokens and held-out texts, and every artifact weighed so far."""

    def __init__(self, trained: Trained, work: Path) -> None:
        self.trained, self.work = trained, work
        longest = int(ModelFolder(trained.folder).config["max_position_embeddings"])
        self.data: Calibration = calibrate(trained.folder, trained.calibration, longest, seed=0)
        self.texts: HeldOut = held_out(trained.folder, trained.held_out)
        self.peers: dict[str, list[Finished]] = {}
        self._weighed: dict[str, Weighed] = {}

    def prepare(self, recipes: Sequence[str]) -> None:
        """Build the recipes in one pass."""
        new = [recipe for recipe in recipes if recipe not in self._weighed]
        wanted = [parse_recipe(recipe) for recipe in new]
        made = build(self.trained.folder, wanted, self.trained.calibration, self.work / "ours", seed=0)
        for recipe, artifact in zip(new, made, strict=True):
            self._weighed[recipe] = self._weigh(recipe, artifact)

    def ours(self, recipe: str) -> Weighed:
        """An artifact of ours."""
        if recipe not in self._weighed:
            self.prepare([recipe])
        return self._weighed[recipe]

    def theirs(self, peer: str, kind: str) -> Weighed:
        """What a peer makes of the same model and the same calibration tokens."""
        name = f"{peer} {kind}"
        if name not in self._weighed:
            place = self._llama(kind) if peer == LLAMA else self._compressor(kind)
            form: FormatName = "gguf" if peer == LLAMA else "compressed-tensors"
            self._weighed[name] = self._weigh(name, Artifact(str(place), form, "", None))
        return self._weighed[name]

    def _weigh(self, name: str, artifact: Artifact) -> Weighed:
        with contextlib.redirect_stdout(sys.stderr):
            sums = divergences(self.texts, artifact)
        weighed = Weighed(name, tensor_bytes(Path(artifact.location)), sums)
        mean = sums.sum() / self.texts.positions.sum()
        print(f"- {self.trained.name}, {name}: {weighed.bytes} bytes, KL {mean:.5f}", flush=True)
        return weighed

    def _llama(self, kind: str) -> Path:
        folder = self.work / f"llama-{kind}"
        folder.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((self.trained.folder / name).read_bytes())
        source = build(self.trained.folder, [parse_recipe("bf16")], [], self.work / "ours")[0]
        file = next(Path(source.location).rglob("*.gguf")) if Path(source.location).is_dir() else source.location
        target = folder / f"{kind}.gguf"
        told = (str(file), str(target), kind, str(cores()), str(self._importance()))
        self.peers.setdefault(LLAMA, []).append(
            run(Arm(f"llama.cpp {kind}", ROOT / ".venv-llama" / "bin" / "python", "llama_quantize_arm.py", told))
        )
        return target

    def _importance(self) -> Path:
        """The mean square of each input of the 16-bit model over the calibration tokens, by GGUF tensor."""
        file = self.work / "importance.npz"
        if not file.exists():
            skeleton = Skeleton(ModelFolder(self.trained.folder))
            names = TensorNames(skeleton.source.config)
            arrays = {}
            for block in walk_blocks(skeleton, list(self.data.batches()), frozenset({"mean_square"})):
                for layer, seen in block.items():
                    to = names.gguf_name(skeleton.stored_name(f"{layer}.weight"))
                    assert to is not None
                    arrays[to] = seen.values["mean_square"].float().numpy()
            np.savez(file, **arrays)
        return file

    def _compressor(self, recipe: str) -> Path:
        tokens, out = self.work / "tokens.json", self.work / recipe.replace(":", "-")
        tokens.write_text(json.dumps(self.data.sequences), encoding="utf-8")
        told = (str(self.trained.folder), str(tokens), recipe, str(out))
        python = ROOT / ".venv-llmcompressor" / "bin" / "python"
        self.peers.setdefault(COMPRESSOR, []).append(
            run(Arm(f"llm-compressor {recipe}", python, "llmcompressor_arm.py", told))
        )
        return out


def tensor_bytes(place: Path) -> int:
    """Of the GGUF or safetensors files of an artifact."""
    if place.is_file():
        return place.stat().st_size
    return sum(file.stat().st_size for file in place.iterdir() if file.suffix in (".gguf", ".safetensors"))


def weigh(bench: Bench, parts: Sequence[str]) -> list[Row]:
    """Every contest of ``parts`` on one model."""
    chosen = [contest for contest in CONTESTS if contest.part in parts]
    bench.prepare([r for c in chosen for r in (c.ours, *c.beside) if "{bytes}" not in r])
    rows = []
    for contest in chosen:
        theirs = bench.theirs(contest.peer, contest.kind)
        for recipe in (contest.ours, *contest.beside):
            ours = bench.ours(recipe.format(bytes=theirs.bytes))
            goal = contest.goal if recipe == contest.ours else None
            rows.append(Row(ours, theirs, bootstrap_ratio(ours.sums, theirs.sums), goal))
    return rows


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
`python benchmarks/quality.py --write` on {date}.

Every tool got the same model and the same calibration tokens. llama.cpp is `llama_model_quantize` with an importance
matrix of exactly these tokens; llm-compressor is its GPTQ with its defaults. Only the numbers in the files differ: all
are weighed in float32 by Transformers. *Bytes* are those of the files that hold tensors. The interval is a paired
bootstrap over texts: it says how much rests on the choice of texts, not on the model, the calibration set or the seed.
Which recipe stands for the goal (the row that names one) was fixed before measuring.

**Models this small say that the code works. Rankings need not carry over to models of 1B parameters and more.**

Error-compensated k-quants were first published by
[IST-DASLab/gptq-gguf-toolkit](https://github.com/IST-DASLab/gptq-gguf-toolkit), which needs CUDA as it stands: its
program asks for a CUDA device and NCCL before anything else. It is therefore not in the table.
"""


def page(sections: Sequence[str], peers: dict[str, list[Finished]]) -> str:
    """The document."""
    head = INTRODUCTION.format(date=datetime.now(UTC).date())
    return "\n".join([head, *sections, "## Machine and versions", "", setting(peers), ""])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--only", nargs="+", choices=["gguf", "integer", "auto"], default=["gguf", "integer", "auto"])
    parser.add_argument("--write", action="store_true", help="also write docs/quality.md")
    options = parser.parse_args()
    sections: list[str] = []
    peers: dict[str, list[Finished]] = {}
    for name in options.models:
        with tempfile.TemporaryDirectory() as temporary:
            bench = Bench(MODELS[name](), Path(temporary))
            rows = weigh(bench, options.only)
        positions = bench.texts.positions.sum()
        told = f"{bench.trained.about} {bench.data.tokens:,} calibration tokens; {len(bench.texts.ids)} texts, "
        told += f"{positions:,.0f} positions."
        sections.append(f"## Model: {name}\n\n{told}\n\n{table(rows, positions)}\n")
        print("\n" + sections[-1], flush=True)
        for peer, runs in bench.peers.items():
            peers.setdefault(peer, []).extend(runs)
    text = page(sections, peers)
    print(setting(peers))
    if options.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
