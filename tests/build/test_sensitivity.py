"""What a type costs a tensor, and mixes measured as a whole, against the obvious sums."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantwise.build.allocate import Option
from quantwise.build.calibration import Batch
from quantwise.build.sensitivity import Probe, Rounding, best, compare, output_error, sensitivities
from quantwise.build.watch import set_aside, watch
from quantwise.core.errors import InputError

VOCABULARY, WIDTH = 11, 8


class Small(nn.Module):
    """Two matrices on the way from a token to logits."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = nn.Parameter(torch.randn(VOCABULARY, WIDTH, generator=generator), requires_grad=False)
        self.one = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator), requires_grad=False)
        self.two = nn.Parameter(torch.randn(VOCABULARY, WIDTH, generator=generator), requires_grad=False)

    def forward(self, input_ids: Tensor, use_cache: bool) -> object:
        class Out:
            logits = (self.embed[input_ids] @ self.one.T).tanh() @ self.two.T

        return Out()


def batch() -> Batch:
    ids = torch.arange(24).reshape(3, 8) % VOCABULARY
    return Batch(ids, torch.arange(8).expand(3, 8) < torch.tensor([[8], [6], [3]]))


def test_divergence_is_the_mean_over_real_tokens() -> None:
    model, given = Small(), batch()
    other = model.two + 0.1
    other[0] += 0.3
    total = 0.0
    for row, real in zip(given.ids, given.real, strict=True):
        for token in row[real]:
            hidden = (model.embed[token] @ model.one.T).tanh()
            p, q = (hidden @ model.two.T).softmax(0), (hidden @ other.T).softmax(0)
            total += float((p * (p / q).log()).sum())
    assert watch(model, [given]).divergence({"two": other}) == pytest.approx(total / 17, rel=1e-4)
    assert watch(model, [given]).divergence({}) == 0.0


def test_output_error_is_the_square_summed_over_inputs() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, inputs = torch.randn(3, 5, generator=generator), torch.randn(40, 5, generator=generator)
    rounded = weight.round()
    slow = sum(float(((weight @ x - rounded @ x) ** 2).sum()) for x in inputs)
    assert output_error(weight, rounded, inputs.T @ inputs) == pytest.approx(slow, rel=1e-5)


def test_other_types_cost_in_proportion_to_their_output_error() -> None:
    model = Small()
    watched = watch(model, [batch()])
    rounded = model.one + 0.05
    roundings = {
        "one": {"q3_k": Rounding(30, 0.2), "q4_k": Rounding(40, 0.05)},
        "two": {"q3_k": Rounding(30, 0.0), "q4_k": Rounding(40, 0.0)},
    }
    told: list[tuple[int, int]] = []
    probes = [Probe("one", "q3_k", {"one": rounded}), Probe("two", "q3_k", {"two": model.two})]
    found = sensitivities(watched, roundings, probes, lambda done, total: told.append((done, total)))
    measured = watched.divergence({"one": rounded})
    assert found["one"] == {"q3_k": Option(30, measured), "q4_k": Option(40, pytest.approx(measured / 4))}
    assert found["two"]["q4_k"].loss == 0.0
    assert told == [(1, 2), (2, 2)]
    with pytest.raises(InputError, match="no divergence was measured for two"):
        sensitivities(watched, roundings, probes[:1])


def test_the_mix_that_is_measured_best_wins_over_the_one_expected_best() -> None:
    """The errors of ``one`` and ``two`` undo each other, which single measurements cannot tell."""
    model = Small()
    flip = torch.eye(WIDTH)
    flip[0, 0] = -1.0
    values = {("one", "small"): flip @ model.one, ("two", "small"): model.two @ flip,
              ("one", "large"): model.one * 1.3, ("two", "large"): model.two}  # fmt: skip
    choices = {t: {"small": Option(1, 5.0), "large": Option(2, 1.0)} for t in ("one", "two")}
    fixed = {
        "plain": {"one": "small", "two": "small"},
        "foreign": {"one": "small"},
        "unknown": {"one": "tiny", "two": "small"},
        "same as auto": {"one": "large", "two": "large"},
    }
    mixes = compare(watch(model, [batch()]), choices, 4, lambda *of: {of[0]: values[of]}, fixed)
    assert list(mixes) == ["auto", "plain"]
    assert mixes["auto"].expected == 2.0
    assert mixes["auto"].measured > 1e-3
    assert mixes["plain"].measured == pytest.approx(0.0, abs=1e-6)
    assert best(mixes) == "plain"
    assert list(compare(watch(model, [batch()]), choices, 1 + 2, lambda *of: {of[0]: values[of]}, {})) == ["auto"]


def test_texts_are_set_aside_evenly_and_at_least_one() -> None:
    aside = [watched for _, watched in set_aside([(i,) for i in range(24)])]
    assert [i for i, watched in enumerate(aside) if watched] == [1, 9, 17]
    assert [watched for _, watched in set_aside([(1,), (2,)])] == [False, True]
    texts = [(i, i) for i in range(24)]
    assert list(set_aside(texts)) == list(set_aside(texts[::-1]))
    assert list(set_aside([(1, 2, 3, 4)])) == [((1, 2), False), ((3, 4), True)]
    with pytest.raises(InputError, match="no calibration text is left to watch"):
        watch(Small(), [])
