"""A file of random weights holds what the prediction of its speed reads."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.gguf.mixes import tensor_bytes
from quantwise.plan.machine_rates import read_by_type

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("mix", ["f16", "q8_0", "q4_k_m"])
def test_what_a_token_reads(tmp_path: Path, mix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    files, speeds = importlib.import_module("random_gguf"), importlib.import_module("plan_speed")
    shape = files.Shape("tiny", 256, 2, 512, 4, 2, 512)
    header = read_gguf_header(files.write_random(tmp_path / "a.gguf", shape, mix))
    kinds = files.types(shape, mix)
    assert {t.name: (t.shape, t.type) for t in header.tensors} == {n: (s, kinds[n]) for n, s in shape.shapes().items()}
    assert all(t.bytes == tensor_bytes(t.shape, t.type) for t in header.tensors)
    read = read_by_type(speeds.decoder_of(shape), [(t.name, t.type, t.bytes) for t in header.tensors])
    assert sum(read.values()) == sum(
        t.bytes for t in header.tensors if len(t.shape) > 1 and t.name != "token_embd.weight"
    )
    assert "f32" not in read
