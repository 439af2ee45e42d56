"""Every refusal has a fix, and a plan with the first one applied fits: through the function that people call."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantwise import planning
from quantwise.core.errors import InputError
from quantwise.models.presets import PRESETS
from quantwise.plan.fit import MARGINAL
from quantwise.plan.fix import CLASSES
from quantwise.planning import PlanRequest, plan
from quantwise.testing.blank_gguf import BlankModel, write_blank

DENSE = ("llama-3.1-8b", "qwen3-14b", "gemma-3-4b", "llama-3.1-70b", "phi-4")
MIXTURES = ("mixtral-8x7b", "qwen3-30b-a3b", "deepseek-r1", "gpt-oss-20b")
RECURRENT = ("jamba-v0.1", "qwen3.5-27b")
SITES = ("rtx-3090", "rtx-4090", "laptop", "nas", "m4-max", "a100-40gb", "h100", "lab-server")
SCHEMES = {
    "llamacpp": ("16bit", "q8_0", "q4_k_m"),
    "vllm": ("16bit", "fp8", "int4-g128"),
    "transformers": ("16bit", "int8-channel", "nf4-dq"),
}
KNOBS = {"scheme": "schemes", "model": "models"}


@pytest.fixture(autouse=True)
def no_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "rates_path", lambda: tmp_path / "rates.json")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    models = {
        "dense": BlankModel(hidden=4096, layers=32, heads=32, kv_heads=8, dim=128, feed_forward=14336, vocab=128256),
        "mixture": BlankModel("qwen3moe", hidden=2048, layers=24, feed_forward=768, experts=64, experts_used=8),
        "recurrent": BlankModel("lfm2", hidden=2048, layers=16, kv_each=(0, 0, 8, 0) * 4, vocab=65536),
    }
    for name, model in models.items():
        write_blank(tmp_path / f"{name}.gguf", model)
    return [str(tmp_path / f"{name}.gguf") for name in models]


def drawn(draw: random.Random, names: tuple[str, ...], files: list[str]) -> PlanRequest:
    """A request of any kind; some are of combinations that nobody can plan."""
    runtime = draw.choice(("llamacpp", "llamacpp", "llamacpp", "llamacpp", "vllm", "transformers"))
    file = runtime == "llamacpp" and draw.random() < 0.15
    model = draw.choice(files) if file else draw.choice(names)
    site = draw.choice(SITES)
    graphics = site in ("rtx-3090", "rtx-4090", "a100-40gb", "h100")
    away = runtime == "llamacpp" and graphics and draw.random() < 0.5
    return PlanRequest(
        models=(model,),
        runtime=runtime,
        site=site,
        context=draw.choice((2048, 8192, 32768, 131072, 10_000_000)),
        concurrency=draw.choice((1, 1, 4, 16)),
        cache=draw.choice(("f16", "f16", "q8_0")) if runtime == "llamacpp" else "f16",
        schemes=() if file or draw.random() < 0.2 else (draw.choice(SCHEMES[runtime]),),
        memory_bytes=draw.choice((None, None, None, draw.randrange(10**8, 30 * 10**9))),
        gpu_layers=draw.choice((None, 0, 1, 5, 30, 70)) if away else None,
        experts_on_cpu=draw.choice((0, 4, 40)) if away and model in MIXTURES else 0,
        host=draw.choice((None, "laptop", "x86-avx512", "lab-server", "20GB", "700MB")) if away else None,
        pipeline_parallel=2 if graphics and not away and draw.random() < 0.1 else 1,
    )


def applied(asked: PlanRequest, row: dict[str, Any], fix: dict[str, Any]) -> PlanRequest:
    """The request with a fix of one of its rows."""
    changed = asked if row["scheme"] == "stored" else replace(asked, schemes=(row["scheme"],))
    for change in fix["changes"]:
        knob, value = change["knob"], change["value"]
        changed = replace(changed, **({KNOBS[knob]: (value,)} if knob in KNOBS else {knob: value}))
        if knob == "site":
            changed = replace(changed, memory_bytes=None)
    return changed


def check(asked: PlanRequest) -> str | None:
    """What kind of fix came first, of the row that is chosen; every row that is refused has one that keeps its word."""
    found = plan(asked)
    for row in found["candidates"]:
        if row["fits"] in ("yes", "unknown"):
            assert row["fixes"] == [], asked
            continue
        assert row["fixes"], (asked, row["scheme"], row["fits"])
        first = row["fixes"][0]
        after = plan(applied(asked, row, first))
        assert after["fits"] == "yes", (asked, first)
        assert after["total_bytes"] == first["total_bytes"], (asked, first)
        assert after["total_bytes"] <= MARGINAL * after["limit_bytes"]
        if first["host_bytes"] is not None:
            assert after["host"]["bytes"][1] == first["host_bytes"] <= MARGINAL * after["host"]["limit_bytes"]
    return "+".join(sorted(c["knob"] for c in found["fixes"][0]["changes"])) if found["fixes"] else None


def check_many(seed: int, count: int, names: tuple[str, ...], files: list[str]) -> Counter[str]:
    draw, kinds = random.Random(seed), Counter[str]()
    for _ in range(count):
        asked = drawn(draw, names, files)
        try:
            kind = check(asked)
        except InputError:
            continue
        if kind is not None:
            kinds[kind] += 1
    return kinds


def test_the_first_fix_keeps_its_word(files: list[str]) -> None:
    kinds = check_many(5, 40, (*DENSE, *MIXTURES, *RECURRENT), files)
    assert sum(kinds.values()) >= 12, kinds
    assert len(kinds) >= 5, kinds


@pytest.mark.parametrize(
    ("scheme", "site"), [("16bit", "rtx-4090"), ("16bit", "h100"), ("16bit", "laptop"), ("q8_0", "rtx-4090")]
)
def test_of_an_absurd_context_the_model_s_own_comes_first(scheme: str, site: str) -> None:
    asked = PlanRequest(("llama-3.1-8b",), site=site, schemes=(scheme,), context=10_000_000)
    found = plan(asked)
    assert found["fits"] == "no"
    own, first = found["trained_context"], found["fixes"][0]["changes"]
    context = {change["knob"]: change["value"] for change in first}["context"]
    alone = plan(replace(asked, context=own))["fits"] == "yes"
    # Where that alone does, nothing else is asked for; a shorter one where that is the cheapest that does.
    assert (context, len(first)) == (own, 1) if alone else context <= own


@pytest.mark.parametrize(
    ("runtime", "site", "memory", "model", "scheme"),
    [
        ("llamacpp", "rtx-4090", 8 << 30, "llama-3.1-8b", "16bit"),
        ("vllm", "rtx-3090", 14 << 30, "llama-3.1-8b", "16bit"),
        ("transformers", "laptop", None, "qwen3-14b", "16bit"),
        ("llamacpp", "laptop", None, "gpt-oss-20b", "16bit"),
        ("llamacpp", "laptop", None, "qwen3-14b", "q8_0"),
    ],
)
def test_a_scheme_that_was_named_has_a_smaller_one_as_fix(
    runtime: str, site: str, memory: int | None, model: str, scheme: str
) -> None:
    asked = PlanRequest((model,), runtime=runtime, site=site, memory_bytes=memory, schemes=(scheme,), context=8192)
    found = plan(asked)
    assert found["fits"] == "no"
    (fix,) = (fix for fix in found["fixes"] if fix["kind"] == "scheme")
    after = plan(applied(asked, found["candidates"][0], fix))
    assert (after["fits"], after["total_bytes"]) == ("yes", fix["total_bytes"])
    assert after["bits_per_weight"] < found["bits_per_weight"]
    order = [CLASSES.index(fix["kind"]) for fix in found["fixes"]]
    assert order == sorted(order)


def test_a_smaller_scheme_has_fewer_bits() -> None:
    found = plan(PlanRequest(("gpt-oss-120b",), site="rtx-4090"))
    assert found["scheme"] == "mxfp4_moe"
    changed = {change["value"] for fix in found["fixes"] for change in fix["changes"] if change["knob"] == "scheme"}
    assert not changed & {"16bit", "q8_0"}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_the_first_fix_of_any_preset_keeps_its_word(seed: int, files: list[str]) -> None:
    assert check_many(seed, 250, tuple(PRESETS), files)
