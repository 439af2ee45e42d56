"""What the planner says of a llama.cpp server, beside what its start-up log and the system say.

``python benchmarks/plan_llamacpp.py`` prints the table; ``--write`` puts it into docs/plan-llamacpp.md; ``--quick``
takes the first dozen cases. Models have no weights but zeros and take no disk; every case starts the server of the
xllamacpp wheel once.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantwise.formats.gguf.header import read_gguf_header
from quantwise.plan.constants import XLLAMACPP_2026_10
from quantwise.plan.llamacpp.cache import llamacpp_cache
from quantwise.plan.llamacpp.compute import llamacpp_compute
from quantwise.plan.llamacpp.file import file_bytes, mapped_bytes, repacked_bytes, tensors_of_mix
from quantwise.plan.llamacpp.memory import llamacpp_memory
from quantwise.plan.llamacpp.settings import LlamacppSettings as S
from quantwise.testing.blank_gguf import BlankModel as M
from quantwise.testing.blank_gguf import write_blank

ARM = Path(__file__).parent / "arms" / "llamacpp_log_arm.py"
PAGE = Path(__file__).parents[1] / "docs" / "plan-llamacpp.md"
MIB = 1 << 20
_BUFFER = re.compile(r"(CPU\w*)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")
_MOE: dict[str, Any] = {"experts": 8, "feed_forward": 768}
_GRANITE: dict[str, Any] = {"embedding_scale": 12.0, "residual_scale": 0.22, "logit_scale": 8.0, "attention.scale": 0.1}
_LATENT: dict[str, Any] = {"kv_heads": 1, "dim": 96, "rank": 256, "turned": 32, "shared": 768, **_MOE}

ARCHITECTURES = (
    M(),
    M("qwen2"),
    M("qwen3", dim=128),
    M("gemma", tied=True),
    M("gemma2", tied=True, window=512, vocab=4096),
    M("gemma3", tied=True, window=512, period=6, layers=7),
    M("phi3"),
    M("granite", extra=_GRANITE),
    M("olmo2"),
    M("starcoder2"),
    M("gptneox", kv_heads=8),
    M("phi2", kv_heads=8),
    M("smollm3"),
    M("olmo", kv_heads=8, extra={"attention.clamp_kqv": 8.0}),
    M("seed_oss"),
    M("llama", **_MOE),
    M("qwen2moe", shared=768, **_MOE),
    M("qwen3moe", experts_used=4, **_MOE),
    M("olmoe", kv_heads=8, **_MOE),
    M("deepseek2", **_LATENT),
    M("gpt-oss", window=128, **_MOE),
    M("internlm2"),
    M("ernie4_5"),
    M("exaone"),
    M("xverse"),
    M("minicpm"),
    M("granitemoe", **_MOE, extra=_GRANITE),
    M("mistral3"),
    M("nanbeige"),
    M("hunyuan-dense"),
    M("command-r", tied=True, extra={"logit_scale": 0.06}),
    M("cohere2", tied=True, window=512, period=4, extra={"logit_scale": 0.06}),
    M("deci", kv_each=(8, 4, 2, 1)),
)
SETTINGS = (
    S(2048),
    S(4096, flash_attention=False),
    S(2048, 2, cache="q8_0"),
    S(1000, 3, unified=True),
)
_LARGE = M(hidden=1024, layers=8, heads=16, kv_heads=4, feed_forward=3072, vocab=16384)
MIXES = ("q4_k_m", "q8_0", "q4_0", "q6_k", "q2_k", "q3_k_s", "q5_k_m", "f16", "bf16", "q5_0", "q4_1")
SIZES = (
    *((replace(_LARGE, mix=mix), S(4096)) for mix in MIXES),
    (replace(_LARGE, vocab=128256), S(8192, 4)),
    (replace(_LARGE, layers=2, feed_forward=8192), S(16384, ubatch=2048)),
    (replace(_LARGE, layers=2), S(65536, cache="q4_0")),
    (replace(_LARGE, layers=2), S(8192, 8, cache="q8_0/q4_0")),
    (replace(_LARGE, architecture="gemma3", window=1024, period=6, layers=12, tied=True), S(32768, 2)),
    (replace(_LARGE, architecture="gemma3", window=1024, period=6, layers=12, tied=True), S(8192, 4, unified=True)),
    (
        replace(_LARGE, architecture="gemma3", window=1024, period=6, layers=12, tied=True),
        S(8192, whole_window=True),
    ),
    (replace(_LARGE, architecture="qwen3moe", experts=32, experts_used=8, feed_forward=256, layers=4), S(4096, 3)),
    (replace(_LARGE, architecture="deci", kv_each=(16, 8, 4, 4, 2, 2, 1, 1)), S(8192, 2)),
    (
        replace(_LARGE, architecture="deci", kv_each=(16, 8, 4, 4, 2, 2, 1, 1)),
        S(8192, flash_attention=False),
    ),
    (replace(_LARGE, architecture="lfm2", kv_each=(0, 0, 4, 0, 0, 4, 0, 4), tied=True), S(8192, 3, cache="q8_0")),
    (replace(_LARGE, architecture="mamba", state=16, tied=True), S(8192, 4)),
    (replace(_LARGE, architecture="deepseek2", **{**_LATENT, "rank": 512, "turned": 64, "dim": 192}), S(16384)),
)
# Prompts that fill the context, so that all of the buffers is touched.
RESIDENT = (
    (replace(_LARGE, mix="q4_k_m"), S(1024)),
    (replace(_LARGE, mix="q8_0"), S(1024)),
    (replace(_LARGE, mix="f16"), S(1024)),
    (replace(_LARGE, mix="q4_0", vocab=65536), S(1024, 4)),
    (replace(_LARGE, mix="q6_k"), S(2048, flash_attention=False)),
    (replace(_LARGE, architecture="qwen3", layers=4), S(2048, 8, cache="q8_0")),
    (replace(_LARGE, architecture="gemma3", window=512, period=6, tied=True, mix="q4_0"), S(2048, 2)),
    (replace(_LARGE, architecture="qwen3moe", experts=8, feed_forward=768, layers=6), S(1024, 2)),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """Buffers in MiB as the log prints them, by kind; the log; bytes of the process where a prompt was computed."""

    logged: dict[str, tuple[float, ...]]
    log: str
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
    keys, values = settings.types
    options = {
        "model": str(path),
        "context": settings.context,
        "slots": settings.slots,
        "unified": settings.unified,
        "whole_window": settings.whole_window,
        "ubatch": settings.ubatch,
        "keys": keys,
        "values": values,
        "flash_attention": settings.flash_attention,
        "prompt": prompt,
    }
    done = subprocess.run([sys.executable, str(ARM), json.dumps(options)], capture_output=True, text=True, timeout=400)
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"{label(model, settings)}: {done.stderr[-2000:]}")
    found: dict[str, list[float]] = {}
    for device, kind, mib in _BUFFER.findall(done.stderr):
        found.setdefault("repack" if device == "CPU_REPACK" else kind, []).append(float(mib))
    resident = int(json.loads(done.stdout)["resident"])
    return Seen({kind: tuple(mib) for kind, mib in found.items()}, done.stderr, resident), header


def label(model: M, settings: S) -> str:
    """A case in a line."""
    size = f"{model.hidden}x{model.layers}"
    plain = S(settings.context)
    names = ("slots", "unified", "cache", "flash_attention", "ubatch", "whole_window")
    told = [f"{n}={getattr(settings, n)}" for n in names if getattr(settings, n) != getattr(plain, n)]
    return " ".join([model.architecture, model.mix, size, f"context={settings.context}", *told])


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


def resident_row(model: M, settings: S, folder: Path) -> Row:
    """The process after prompts that fill one slot."""
    seen, _ = start(model, settings, folder, prompt=settings.context - 2)
    memory = llamacpp_memory(model.decoder(), tensors_of_mix(model.decoder(), model.mix), settings)
    low, high = memory.on("cpu")
    return Row(label(model, settings), "resident", ((low + high) / 2 / MIB,), (seen.resident / MIB,))


def log_cases() -> list[tuple[M, S]]:
    """All models and settings whose logs are compared, those that differ most first."""
    return [(model, settings) for settings in SETTINGS for model in ARCHITECTURES] + list(SIZES)


def rows(*, quick: bool) -> Iterator[Row]:
    """Every figure of every case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model, settings in log_cases()[: 12 if quick else None]:
            yield from log_rows(model, settings, folder)
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
    """One line for each figure."""
    lines = ["| model and settings | figure | predicted MiB | logged MiB | ratio |", "| --- | --- | --- | --- | --- |"]
    for row in found:
        predicted, told = (" + ".join(f"{v:.2f}" for v in values) for values in (row.predicted, row.told))
        lines.append(f"| {row.case} | {row.what} | {predicted} | {told} | {row.ratio:.3f} |")
    return lines


_HEAD = """# The planner beside llama.cpp's own log

`python benchmarks/plan_llamacpp.py --write` makes this page: every case is a model without weights (zeros, any size),
a server of the xllamacpp wheel started on it, and its start-up log beside what `quantwise.plan` predicts from the
model's shapes alone. File sizes are compared to the byte; a difference stops the program. `resident` is the whole
process after a prompt that fills the context, beside the middle of the predicted interval.
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
