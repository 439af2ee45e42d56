"""What the planner says of a llama.cpp server, beside what its start-up log and the system say.

``python benchmarks/plan_llamacpp.py`` prints the table; ``--write`` puts it into docs/plan-llamacpp.md; ``--quick``
takes the first dozen cases. Models have no weights but zeros and take no disk; every case starts the server of the
xllamacpp wheel once.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plan_cases import OLDER, RESIDENT, log_cases
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.plan.constants import SUMMER_2026, XLLAMACPP_2026_10
from quantwise.plan.llamacpp.cache import llamacpp_cache
from quantwise.plan.llamacpp.compute import llamacpp_compute
from quantwise.plan.llamacpp.file import file_bytes, mapped_bytes, repacked_bytes, tensors_of_mix
from quantwise.plan.llamacpp.memory import llamacpp_memory
from quantwise.plan.llamacpp.settings import LlamacppSettings as S
from quantwise.plan.llamacpp.tally import tally
from quantwise.testing.blank_gguf import BlankModel as M
from quantwise.testing.blank_gguf import write_blank

ARM = Path(__file__).parent / "arms" / "llamacpp_log_arm.py"
OLDER_ARM = Path(__file__).parent / "arms" / "llama_cpp_python_log_arm.py"
ROOT = Path(__file__).parents[1]
OLDER_PYTHON = Path(os.environ.get("QUANTWISE_LLAMA_PYTHON") or ROOT / ".venv-llama" / "bin" / "python")
PAGE = ROOT / "docs" / "plan-llamacpp.md"
MIB = 1 << 20
_BUFFER = re.compile(r"(CPU\w*)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")


@dataclass(frozen=True, slots=True)
class Seen:
    """Buffers in MiB as the log prints them, by kind; bytes of the process, after a prompt where one was asked."""

    logged: dict[str, tuple[float, ...]]
    resident: int


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one case, in MiB: what was predicted, and what was told."""

    case: str
    what: str
    predicted: tuple[float, ...]
    told: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Predicted over told, to the digits that the log prints."""
        rounded = sum(round(part, 2) for part in self.predicted)
        return rounded / sum(self.told) if sum(self.told) else 1.0 - bool(rounded)

    @property
    def exact(self) -> bool:
        """Whether every printed digit agrees."""
        return [f"{p:.2f}" for p in self.predicted] == [f"{t:.2f}" for t in self.told]


def start(model: M, settings: S, folder: Path, *, prompt: int = 0) -> tuple[Seen, int]:
    """A server on a blank file of the model; also where the file's tensors start."""
    path = folder / "blank.gguf"
    header = write_blank(path, model)
    done = _run(sys.executable, ARM, _options(path, settings) | {"prompt": prompt}, label(model, settings))
    return Seen(_buffers(done.stderr), int(json.loads(done.stdout)["resident"])), header


def start_log(model: M, settings: S, folder: Path) -> str:
    """The start-up log itself."""
    write_blank(folder / "blank.gguf", model)
    options = _options(folder / "blank.gguf", settings) | {"prompt": 0}
    return _run(sys.executable, ARM, options, label(model, settings)).stderr


def _options(path: Path, settings: S) -> dict[str, Any]:
    keys, values = settings.types
    names = ("context", "slots", "unified", "whole_window", "ubatch", "flash_attention")
    return {"model": str(path), "keys": keys, "values": values} | {name: getattr(settings, name) for name in names}


def _run(python: str, arm: Path, options: dict[str, Any], case: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([python, str(arm), json.dumps(options)], capture_output=True, text=True, timeout=400)
    if done.returncode:
        raise RuntimeError(f"{case}: {done.stderr[-2000:]}")
    return done


def _buffers(log: str) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[float]] = {}
    for device, kind, mib in _BUFFER.findall(log):
        found.setdefault("repack" if device == "CPU_REPACK" else kind, []).append(float(mib))
    return {kind: tuple(mib) for kind, mib in found.items()}


def label(model: M, settings: S) -> str:
    """A case in a line."""
    size = f"{model.hidden}x{model.layers}"
    plain = S(settings.context)
    names = ("slots", "unified", "cache", "flash_attention", "ubatch", "whole_window")
    told = [f"{n}={getattr(settings, n)}" for n in names if getattr(settings, n) != getattr(plain, n)]
    mixture = [f"{model.experts} experts"] if model.experts else []
    return " ".join([model.architecture, *mixture, model.mix, size, f"context={settings.context}", *told])


def log_rows(model: M, settings: S, folder: Path) -> list[Row]:
    """Every figure of a start-up log, and the size of the file."""
    seen, header = start(model, settings, folder)
    decoder, case, build = model.decoder(), label(model, settings), XLLAMACPP_2026_10
    tensors = tensors_of_mix(decoder, model.mix)
    cache, compute = llamacpp_cache(decoder, settings), llamacpp_compute(decoder, settings)
    kept = [cache.keys + cache.values, cache.window_keys + cache.window_values]
    graph = [compute.graph] if compute.known else []
    size = (folder / "blank.gguf").stat().st_size
    if file_bytes(header, tensors) != size:
        raise AssertionError(f"{case}: {file_bytes(header, tensors)} bytes of file predicted, {size} there")
    if list(read_gguf_header(folder / "blank.gguf").tensors) != tensors:
        raise AssertionError(f"{case}: the file has other tensors than predicted")
    figures = (
        ("weights", [mapped_bytes(tensors, build)], "model"),
        ("repacked", [repacked_bytes(tensors, build)], "repack"),
        ("cache", [part for part in kept if part], "KV"),
        ("state", [cache.state], "RS"),
        ("compute", graph, "compute"),
        ("outputs", [compute.outputs], "output"),
    )
    return [
        Row(case, what, tuple(b / MIB for b in bytes_), seen.logged.get(kind, ()))
        for what, bytes_, kind in figures
        if sum(bytes_) or (kind in seen.logged and what != "compute")
    ]


def older_row(model: M, settings: S, folder: Path) -> Row:
    """The compute buffer of a program that reserves logits for every token computed at once."""
    path = folder / "blank.gguf"
    write_blank(path, model)
    done = _run(str(OLDER_PYTHON), OLDER_ARM, _options(path, settings), label(model, settings))
    predicted = llamacpp_compute(model.decoder(), settings, SUMMER_2026).graph / MIB
    return Row(label(model, settings), "compute, 2026-08", (predicted,), _buffers(done.stderr)["compute"])


def resident_row(model: M, settings: S, folder: Path) -> Row:
    """The process after prompts that fill one slot."""
    seen, _ = start(model, settings, folder, prompt=settings.context - 2)
    file = tally(model.decoder(), tensors_of_mix(model.decoder(), model.mix), XLLAMACPP_2026_10)
    memory = llamacpp_memory(model.decoder(), file, settings, merges=1)
    low, high = memory.on("cpu")
    return Row(label(model, settings), "resident", ((low + high) / 2 / MIB,), (seen.resident / MIB,))


def rows(*, quick: bool) -> Iterator[Row]:
    """Every figure of every case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model, settings in log_cases()[: 12 if quick else None]:
            yield from log_rows(model, settings, folder)
        for model, settings in OLDER[: (0 if quick else None) if OLDER_PYTHON.exists() else 0]:
            yield older_row(model, settings, folder)
        for model, settings in RESIDENT[: 1 if quick else None]:
            yield resident_row(model, settings, folder)


def summary(found: Sequence[Row]) -> list[str]:
    """One line for each kind of figure."""
    lines = ["| figure | cases | every digit | worst predicted / logged |", "| --- | --- | --- | --- |"]
    for what in dict.fromkeys(row.what for row in found):
        those = [row for row in found if row.what == what]
        worst = max(those, key=lambda row: abs(row.ratio - 1))
        lines.append(f"| {what} | {len(those)} | {sum(r.exact for r in those)} | {worst.ratio:.3f} ({worst.case}) |")
    return lines


def table(found: Sequence[Row]) -> list[str]:
    """One line for each case: a figure that agrees to every digit once, another as predicted / logged, in MiB."""
    kinds = list(dict.fromkeys(row.what for row in found))
    lines = [f"| model and settings | {' | '.join(kinds)} |", f"| --- |{' --- |' * len(kinds)}"]
    for case in dict.fromkeys(row.case for row in found):
        cells = {row.what: _cell(row) for row in found if row.case == case}
        lines.append(f"| {case} | {' | '.join(cells.get(kind, '') for kind in kinds)} |")
    return lines


def _cell(row: Row) -> str:
    predicted, told = (" + ".join(f"{value:.2f}" for value in values) for values in (row.predicted, row.told))
    return told if row.exact else f"{predicted} / {told}"


_HEAD = """# The planner beside llama.cpp's own log

`python benchmarks/plan_llamacpp.py --write` makes this page: every case is a model without weights (zeros, any size),
a server of the xllamacpp wheel started on it, and its start-up log beside what `quantwise.plan` predicts from the
model's shapes alone, in MiB. A figure stands once where every printed digit agrees, otherwise as predicted / logged.
File sizes are compared to the byte; a difference stops the program.

`resident` is the whole process after a prompt that fills the context, beside the middle of the predicted interval.
`compute, 2026-08` is the buffer in llama-cpp-python 0.3.36, which reserves logits for every token of a batch, as all of
llama.cpp did before PR 23861 (where `QUANTWISE_LLAMA_PYTHON` or `.venv-llama` has it).
"""


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/plan-llamacpp.md")
    parser.add_argument("--quick", action="store_true", help="the first dozen cases only")
    asked = parser.parse_args()
    found = list(rows(quick=asked.quick))
    lines = [_HEAD, f"xllamacpp {importlib.metadata.version('xllamacpp')}.", "", *summary(found), "", *table(found), ""]
    if asked.write:
        PAGE.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
