"""Rounding inputs of a plain linear layer is what the layer of codes does; a model's own answers are found in texts."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from quantwise.runtimes.rounded_inputs import RoundedLinear

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("benchmark", ["computed_otherwise"], indirect=True)
def test_inputs_are_rounded_as_in_a_layer_of_codes(benchmark: ModuleType) -> None:
    dice = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (24, 32), generator=dice, dtype=torch.int8)
    scale = torch.rand(24, 1, generator=dice) / 100
    inputs = torch.randn(5, 32, generator=dice)
    plain = nn.Linear(32, 24, bias=False)
    plain.weight.data = codes.float() * scale
    rounded = benchmark.Int8Inputs(plain)(inputs)
    assert torch.allclose(rounded, RoundedLinear(codes, scale, None, None)(inputs), atol=1e-4)
    assert not torch.allclose(rounded, plain(inputs), atol=1e-3)


@pytest.mark.parametrize("benchmark", ["answer_places"], indirect=True)
def test_answers_end_their_texts_and_prose_has_none(benchmark: ModuleType) -> None:
    trained = importlib.import_module("trained_models").reference_model()
    texts = [trained.held_out[0], trained.held_out[-1]]
    prose, item = benchmark.answers(trained, texts)
    assert not any(prose)
    first = item.index(True)
    assert first > 0
    assert all(item[first:])
    assert [len(prose), len(item)] == [len(ids) for ids in benchmark.tokens_of(trained, texts)]
