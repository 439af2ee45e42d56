"""The longest context of a family's table is the longest: a plan of it fits, and one of a step more does not."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest

from quantwise.cli.main import main
from quantwise.plan.deployment import CONSTANTS, Deployment
from quantwise.plan.deployment_memory import needed_bytes
from quantwise.plan.fit import MARGINAL
from quantwise.plan.frontier import frontier
from quantwise.plan.model import find_model
from quantwise.plan.wanted import Wanted
from quantwise.planning import PlanRequest, plan
from quantwise.scenarios.site import Site

GIB = 1 << 30
NAMES = ("qwen3-8b", "gemma-3-4b", "gpt-oss-20b", "deepseek-v2-lite")


def _needs(asked: Deployment, context: int) -> int:
    return needed_bytes(replace(asked, context=context), CONSTANTS)[1]


def test_the_one_that_powers_of_two_missed() -> None:
    found = plan(PlanRequest(("qwen3-8b", "qwen3-4b"), memory_bytes=12 * 10**9, schemes=("q8_0",)))
    row = next(row for row in found["frontier"] if (row["model"], row["cache"]) == ("qwen3-8b", "f16"))
    assert row["longest_context"] >= 13312
    for more, fits in ((0, "yes"), (256, "marginal")):
        asked = PlanRequest(("qwen3-8b",), memory_bytes=12 * 10**9, schemes=("q8_0",),
                            context=row["longest_context"] + more)  # fmt: skip
        assert plan(asked)["fits"] == fits


@pytest.mark.parametrize("runtime", ["llamacpp", "vllm", "transformers"])
def test_every_row_is_the_last_that_fits(runtime: str) -> None:
    draw = random.Random(3)
    models = {model.decoder.name: model for model in map(find_model, NAMES)}
    for _ in range(4):
        limit, requests = draw.randrange(6 * GIB, 40 * GIB), draw.choice((1, 3))
        site = Site(name="drawn", kind="gpu", memory_bytes=limit)
        wanted = Wanted(context=2048, concurrency=requests, site=site, runtime=runtime, limit_bytes=limit)  # type: ignore[arg-type]
        for row in frontier(list(models.values()), wanted, CONSTANTS)["frontier"]:
            model = models[row["model"]]

            one = wanted.deployment(model, row["scheme"])
            needs = partial(_needs, replace(one, cache=row["cache"]))
            longest = row["longest_context"]
            if longest is None:
                assert needs(1024) == row["total_bytes"] > MARGINAL * limit
                continue
            assert needs(longest) == row["total_bytes"] <= MARGINAL * limit
            if longest < model.decoder.context:
                assert longest % 256 == 0
                assert needs(min(longest + 256, model.decoder.context)) > MARGINAL * limit


def test_a_context_that_is_asked_for_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    asked = PlanRequest(("qwen3-8b", "qwen3-14b"), memory_bytes=12 * 10**9, context=16384)
    rows = plan(asked)["frontier"]
    assert min(row["longest_context"] for row in rows if row["fits"] == "yes") >= 16384
    assert any(row["fits"] == "no" for row in rows)
    words = ["plan", "qwen3-8b", "qwen3-14b", "--memory", "12GB", "--context", "40960", "--scheme", "q8_0"]
    assert main(words) == 0
    assert "qwen3-14b: nothing fits into" in capsys.readouterr().out


def test_no_model_holds_more_than_it_was_trained_for() -> None:
    rows = plan(PlanRequest(("phi-2", "qwen3-8b"), memory_bytes=40 * GIB, context=16384))["frontier"]
    short = [row for row in rows if row["model"] == "phi-2"]
    assert short
    assert all((row["fits"], row["why"]) == ("no", "phi-2 was trained for 2048 tokens") for row in short)
