"""Several models in one question: names that cannot be mistaken, one baseline, each model's own template and bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.core.artifact import Candidate
from quantwise.core.errors import InputError
from quantwise.core.question import Question
from quantwise.models import reference
from quantwise.plan.fit import size
from quantwise.question import pose
from quantwise.question.across import candidates_across, named_models
from quantwise.question.request import Request
from quantwise.record.assemble import _candidate

TWO = {"large": Path("large"), "small": Path("small")}


def names(texts: Sequence[str], baseline: str | None = None) -> list[str]:
    return [c.name for c in candidates_across(TWO, texts, baseline)]


def test_a_candidate_without_a_name_is_of_every_model_and_the_baseline_is_the_first_at_16_bit() -> None:
    assert names(["q4_k_m", "small:gptq:q8_0"]) == [
        "large:16bit@llamacpp", "large:q4_k_m@llamacpp", "small:q4_k_m@llamacpp", "small:gptq:q8_0@llamacpp",
    ]  # fmt: skip
    assert (
        names(["small:int8-channel", "large:q8_0"], "small:16bit@llamacpp,kv=q8_0")[0] == "small:16bit@llamacpp,kv=q8_0"
    )
    assert names([]) == ["large:16bit@llamacpp"] + [f"{m}:{s}@llamacpp" for s in ("q8_0", "q4_0") for m in TWO]


@pytest.mark.parametrize(
    ("texts", "baseline", "said"),
    [
        (["tiny:q4_0"], None, "no model is named tiny; names: large, small"),
        ([":q8_0"], None, ":q8_0: the model's name is empty; write NAME:q8_0, names: large, small"),
        (["q4_0"], ":16bit", "the model's name is empty"),
        (["q4_0", "small:q4_0"], None, "small:q4_0@llamacpp is named twice"),
        (["large:q4_0"], None, "no candidate of the model small"),
        (["http://here:1"], None, "of which model"),
        (["small:http://here:1", "large:q4_0"], None, "no 16-bit baseline here"),
        (["small:nonsense", "large:q4_0"], None, "nonsense"),
    ],
)
def test_what_cannot_be_understood_is_refused(texts: list[str], baseline: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        names(texts, baseline)


def test_names_of_models() -> None:
    assert named_models(["org/Qwen3-14B", "b=folder/x"]) == {"Qwen3-14B": Path("org/Qwen3-14B"), "b": Path("folder/x")}
    for texts in (["gptq=a", "b=c"], ["a/x", "b/x"], ["a:b=c", "d"], ["http=a", "b"], ["auto=a", "b"]):
        with pytest.raises(InputError, match="model"):
            named_models(texts)


@pytest.fixture
def two(tmp_path: Path) -> Request:
    """The reference model, and it once more with another template."""
    other = tmp_path / "other"
    shutil.copytree(reference.path(), other, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    settings = json.loads((other / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}[{{ m.content }}]{% endfor %}>"
    (other / "tokenizer_config.json").write_text(json.dumps(settings))
    (other / "chat_template.jinja").unlink(missing_ok=True)
    return Request(
        models={"a": reference.path(), "b": other}, candidates=("q8_0", "b:q4_0"), tasks=("arithmetic",), items=64
    )


def test_each_model_is_asked_with_its_own_template_and_both_hashes_are_in_the_question(two: Request) -> None:
    posed = pose.pose(two)
    question = posed.question
    templates = {c.name: posed.of(c).template for c in question.candidates}
    hashes = {m.name: m.template_hash for m in question.models}
    assert hashes["a"] != hashes["b"]
    for candidate in question.candidates:
        template = templates[candidate.name]
        assert (template.hash if template else None) == hashes[candidate.model]
    assert [c.name for c in question.candidates if c.baseline] == ["a:16bit@llamacpp"]
    assert {question.baseline_of(c).name for c in question.candidates} == {"a:16bit@llamacpp"}
    assert question.m == 3
    again = Question.from_json(json.loads(json.dumps(question.to_json())))
    assert (again, again.hash) == (question, question.hash)


def test_a_changed_template_of_the_second_model_is_found(two: Request) -> None:
    question = pose.pose(two).question
    places = {name: str(path) for name, path in two.models.items()}
    assert pose.repose_parts(question, places, {}).question == question
    file = two.models["b"] / "tokenizer_config.json"
    file.write_text(file.read_text().replace("[{{ m.content }}]", "({{ m.content }})"))
    with pytest.raises(InputError, match="changed since the question was frozen"):
        pose.repose_parts(question, places, {})


def test_a_fit_of_each_candidate_is_that_of_its_own_model(two: Request) -> None:
    small = two.models["b"]
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    fits = pose.fits_here(two)
    assert set(fits) == {"a:16bit@llamacpp", "a:q8_0@llamacpp", "b:q8_0@llamacpp", "b:q4_0@llamacpp"}
    assert all(fit.fits == "yes" for fit in fits.values()), [size(f.total_bytes or 0) for f in fits.values()]
    assert (fits["b:q4_0@llamacpp"].weights_bytes or 0) < (fits["b:q8_0@llamacpp"].weights_bytes or 0)
    assert pose.pose(two).question.context == 512, "no more than every model was made for"


def test_a_single_model_is_frozen_as_it_was_before_there_were_several() -> None:
    question = pose.pose(Request(candidates=("q8_0",), tasks=("arithmetic",), items=64)).question
    record = question.to_json()
    assert "models" not in record
    assert all("model" not in candidate for candidate in record["candidates"])
    assert replace(question, models=()).hash == question.hash


def test_a_row_of_the_record_names_its_model_where_there_are_several() -> None:
    one = Candidate("q8_0", "llamacpp", model="a")
    rows = [_candidate(c, None, None, None, {}, None) for c in (one, replace(one, model=""))]
    assert [row.get("model") for row in rows] == ["a", None]
    assert [row["source"] for row in rows] == ["q8_0", "q8_0"]
