"""What a build will take: each term by hand, flat in depth, said in one line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.core.recipe import parse_recipe
from quantwise.formats.safetensors_header import TensorEntry
from quantwise.models.config import ModelShape
from quantwise.plan.build_job import (
    GGML,
    IMPORTED,
    PASSES,
    WORKING,
    BuildPace,
    Texts,
    artifact_bytes_at_most,
    plan_build,
)

HIDDEN, INNER, VOCAB = 64, 128, 1000


def llama(layers: int, bits: int = 16) -> dict[str, TensorEntry]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "lm_head.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for i in range(layers):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.self_attn.{p}_proj.weight": (HIDDEN, HIDDEN) for p in "qkvo"}
        shapes |= {f"{at}.mlp.{p}_proj.weight": (INNER, HIDDEN) for p in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (HIDDEN, INNER), f"{at}.input_layernorm.weight": (HIDDEN,)}
    return {
        name: TensorEntry(name, "BF16", shape, Path("model.safetensors"), 0, bits * _count(shape) // 8)
        for name, shape in shapes.items()
    }


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


BLOCK = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER + HIDDEN


def test_every_term_by_hand() -> None:
    memory = plan_build(llama(2), [parse_recipe("gptq:int4-g64")], Texts(5000, 100)).memory
    assert memory.block == 4 * BLOCK
    assert memory.hidden == 4 * 5000 * HIDDEN
    # One input for q, k and v, one for o, one for gate and up, one for down.
    assert memory.statistics == 8 * (3 * HIDDEN**2 + INNER**2)
    assert memory.activations == 4 * 1024 * (6 * HIDDEN + 4 * INNER)
    assert memory.outside == 10 * VOCAB * HIDDEN
    # Activations are gone when quantizing begins; here they are more.
    assert memory.activations > memory.quantizing
    held = memory.block + memory.hidden + memory.statistics + memory.activations
    assert memory.total == IMPORTED + WORKING + PASSES + held
    assert plan_build(llama(2), [parse_recipe("q8_0")], Texts()).memory.working == WORKING + GGML


def test_eager_attention_holds_its_scores() -> None:
    recipe, texts = [parse_recipe("gptq:int4-g64")], Texts(5000, 300)
    usual = ModelShape("LlamaForCausalLM", 2, HIDDEN, 4, 4, 16, INNER, VOCAB, False, 300)
    eager = replace(usual, architecture="Gemma2ForCausalLM")
    one, other = (plan_build(llama(2), recipe, texts, None, shape).memory.activations for shape in (usual, eager))
    assert other - one >= 4 * 4 * 1024 * 300  # heads x queries x keys, float32


def test_memory_is_flat_in_depth_and_time_and_disk_are_not() -> None:
    recipes = [parse_recipe(text) for text in ("gptq:int4-g64", "rtn:int8-channel", "awq+rtn:int4-g64")]
    pace = BuildPace(1e9, {"gptq:int4-g64": 1e-7})
    shallow, deep = (plan_build(llama(n), recipes, Texts(5000, 100), pace) for n in (4, 64))
    assert shallow.memory == deep.memory
    assert deep.disk > 3 * shallow.disk
    assert shallow.seconds is not None
    assert deep.seconds == pytest.approx(16 * shallow.seconds, rel=0.01)


def test_time_by_hand() -> None:
    recipe, texts = parse_recipe("gptq:int4-g64"), Texts(5000, 100)
    found = plan_build(llama(1), [recipe], texts, BuildPace(1e9, {recipe.name: 1e-6})).seconds
    squares = 3 * HIDDEN**2 + INNER**2
    passes = 2 * 5000 * (BLOCK + 2 * 100 * HIDDEN + squares)
    updates = 4 * HIDDEN**3 + 2 * INNER * HIDDEN**2 + HIDDEN * INNER**2 + 8 / 3 * (3 * HIDDEN**3 + INNER**3)
    assert found == pytest.approx((passes + updates) / 1e9 + BLOCK * 1e-6, rel=0.05)


def test_what_reads_no_data_needs_no_hessians_and_what_is_direct_no_block() -> None:
    rounded = plan_build(llama(2), [parse_recipe("rtn:int4-g64")], Texts()).memory
    assert (rounded.statistics, rounded.hidden, rounded.activations) == (0, 0, 0)
    assert plan_build(llama(2), [parse_recipe("q8_0")], Texts()).memory.block == 0


def test_finished_blocks_stay_on_disk_until_the_artifacts_are_written() -> None:
    entries, recipe = llama(2), parse_recipe("gptq:int4-g64")
    assert plan_build(entries, [recipe], Texts(5000, 100)).disk == (
        2 * artifact_bytes_at_most(entries, recipe) + 2 * 4 * 5000 * HIDDEN
    )
    assert plan_build(entries, [recipe], Texts(5000, 100), beside=1000).disk == (
        2 * (artifact_bytes_at_most(entries, recipe) + 2000) + 2 * 4 * 5000 * HIDDEN
    )
    trained = parse_recipe("distil+gptq:int4-g64")
    assert plan_build(entries, [trained], Texts()).disk == 3 * artifact_bytes_at_most(entries, trained)
    assert artifact_bytes_at_most(entries, parse_recipe("16bit")) >= sum(entry.bytes for entry in entries.values())
    assert artifact_bytes_at_most(entries, parse_recipe("auto:900MB")) == 900_000_000


def test_a_recipe_that_propagates_makes_passes_of_its_own() -> None:
    once, twice = (
        plan_build(llama(2), [parse_recipe(text)], Texts(5000, 100), BuildPace(1e9, {})).seconds
        for text in ("gptq:int4-g64", "gptq+propagate:int4-g64")
    )
    assert once is not None
    assert twice is not None
    assert twice > 1.5 * once


def test_one_line_for_a_person() -> None:
    job = plan_build(llama(2), [parse_recipe("gptq:int4-g64")], Texts(5000, 100), BuildPace(1e6, {}))
    enough = job.sentence(20 << 30, 30 << 30)
    assert enough.startswith("this job needs ")
    assert "20.0 GiB free" in enough
    assert enough.endswith("minutes")
    assert "\n" not in enough
    assert "may be killed for want of memory" in job.sentence(1 << 20, 30 << 30)


def test_passes_over_the_whole_model_are_told() -> None:
    texts = Texts(4096, 512)
    plans = {r: plan_build(llama(8), [parse_recipe(r)], texts) for r in ("gptq:q2_k", "auto:4bpw", "distil+gptq:q2_k")}
    assert plans["gptq:q2_k"].memory.whole == 0
    weights = 8 * BLOCK + 2 * VOCAB * HIDDEN
    assert plans["auto:4bpw"].memory.whole == 8 * weights + 4 * 512 * VOCAB + 16 * 4096 * VOCAB
    assert plans["distil+gptq:q2_k"].memory.whole - plans["auto:4bpw"].memory.whole == 16 * weights
    assert plans["auto:4bpw"].memory.total >= IMPORTED + plans["auto:4bpw"].memory.whole
    # Every matrix in six types lies on the disk beside the finished mix and the hidden states.
    made, hidden = artifact_bytes_at_most(llama(8), parse_recipe("auto:4bpw")), 4 * 4096 * HIDDEN
    assert plans["auto:4bpw"].disk == 2 * made + 2 * hidden + math.ceil(4.7 * (weights + HIDDEN))


def test_experts_that_share_a_type_are_probed_once() -> None:
    """Beside a model of the same matrices, none of them experts, a pass over an eighth of the texts less for each."""

    def mixed(path: str) -> dict[str, TensorEntry]:
        more = {
            name: TensorEntry(name, "BF16", (INNER, HIDDEN), Path("model.safetensors"), 0, 2 * INNER * HIDDEN)
            for name in (f"model.layers.0.mlp.{path}.{number}.up_proj.weight" for number in range(5))
        }
        return llama(1) | more

    pace, texts, recipe = BuildPace(1e9, {}), Texts(5000, 100), parse_recipe("auto:4.5bpw")
    experts, others = (plan_build(mixed(path), [recipe], texts, pace).seconds for path in ("experts", "parts"))
    assert experts is not None
    assert others is not None
    weights = sum(_count(entry.shape) for entry in mixed("experts").values())
    assert others - experts == pytest.approx(4 / 8 * 2 * 5000 * weights / 1e9)
