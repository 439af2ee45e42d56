"""The study of caches on a real server: the oracle of the last places, bytes as planned, going on, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.build.walk import build
from quantwise.cache_study.request import CacheOption, Request, parse_options
from quantwise.cache_study.study import study
from quantwise.cache_study.subject import read_subject
from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError
from quantwise.core.item import Message
from quantwise.core.progress import Silent
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import RuntimeOptions
from quantwise.models import reference
from quantwise.runtimes.llamacpp import LlamaCpp
from quantwise.store import Store

pytest.importorskip("xllamacpp")
TYPES = parse_options("f16,q8_0/q4_0")


@pytest.fixture
def request_(gguf_file: Artifact, tmp_path: Path) -> Request:
    return Request(
        Path(gguf_file.location), TYPES, context=512, documents=1, questions=2, threads=1, run=tmp_path / "run"
    )


def test_flash_attention_is_as_asked() -> None:
    flags = [
        LlamaCpp("server", flash_attention=flash)._command("m.gguf", 1, RuntimeOptions(cache=cache))
        for flash, cache in ((None, "f16"), (None, "q8_0"), (True, "f16"), (False, "q8_0/f16"))
    ]
    assert [f[f.index("--flash-attn") + 1] for f in flags] == ["auto", "on", "on", "off"]


def test_distributions_of_the_last_places_are_those_of_a_plain_evaluation(tmp_path: Path) -> None:
    """Of the reference model, on a chat whose turns end with special tokens, before the last places and among them."""
    import torch
    from transformers import AutoModelForCausalLM

    (made,) = build(reference.path(), [parse_recipe("f16")], [], tmp_path / "made")
    template = ChatTemplate.from_folder(reference.path())
    assert template is not None
    said = (
        ("user", "Lena had a red ball. The dog took the ball."), ("assistant", "The dog ran away with it."),
        ("user", "Who has it now?"), ("assistant", "The dog has it."), ("user", "What did the dog take?"),
    )  # fmt: skip
    turns = [Message(role, text) for role, text in said]
    tail, top = 20, 20
    with LlamaCpp(flash_attention=True).open(
        Artifact(made.location, "gguf", "", None), RuntimeOptions(context=512, threads=1)
    ) as session:
        ids = session.tokenize(template.render(turns), False)
        end = session.tokenize("<|end|>", False)
        session.timed(ids, 4)  # as the study does: the text lies in the cache already, with more behind it
        told = session.tail_logprobs(ids, tail, top)
    assert len(end) == 1
    assert end[0] in ids[:-tail]
    assert end[0] in ids[-tail:]
    model = AutoModelForCausalLM.from_pretrained(reference.path(), dtype=torch.float32).eval()
    with torch.inference_mode():
        plain = model(torch.tensor([ids])).logits[0].log_softmax(-1)[-tail - 1 : -1]
    for place, row, came in zip(told, plain, ids[-tail:], strict=True):
        known = torch.tensor([place[i] for i in place])
        torch.testing.assert_close(known, row[list(place)], atol=0.01, rtol=0)
        assert came in place
        assert len(place) >= top
        # The likeliest are the likeliest: what is left out is below all that is told but the token that came.
        assert row.topk(top).values[-1] <= min(place[i] for i in place if i != came) + 0.01


def test_a_study_measures_all_and_goes_on_where_it_was(request_: Request) -> None:
    first = study(request_, Silent())
    more = study(replace(request_, documents=2), Silent())
    with Store(request_.run or Path(), create=True) as store:
        units = list(store.all("unit").values())
    assert len(units) == 4
    assert len({unit["process"] for unit in units}) == 2
    assert [option["texts"] for option in (*first["options"], *more["options"])] == [1, 1, 2, 2]
    assert all(option["as_planned"] for option in more["options"])
    assert more["options"][1]["cache_share"] == pytest.approx((8.5 + 4.5) / 32)
    assert more["options"][1]["divergence"]["positions"] == 128
    assert more["options"][1]["divergence"]["mean_kl"] > 0
    assert 400 < more["text_tokens"] < 512
    assert {answer["finish"] for unit in units for answer in unit["answers"]} <= {"stop", "length"}
    with pytest.raises(InputError, match=r"another study \(changed: questions\)"):
        study(replace(request_, questions=3), Silent())


def test_a_context_beyond_the_models_is_refused(request_: Request) -> None:
    with pytest.raises(InputError, match="--context 1024 is more than the 512 tokens"):
        read_subject(replace(request_, context=1024))


def test_what_has_no_room_names_the_context_that_has(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = read_subject(request_)
    option = CacheOption("f16")
    room = subject.held_bytes(option) - subject.cache_bytes(option) // 4
    monkeypatch.setattr(
        "quantwise.cache_study.subject.psutil.virtual_memory", lambda: type("M", (), {"total": int(room / 0.9)})()
    )
    with pytest.raises(InputError, match="give --context 256 or less"):
        read_subject(request_)


def test_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_subject(Request(tmp_path / "none.gguf", TYPES))


def test_heads_that_do_not_split_into_blocks_are_refused(shared_data: Path) -> None:
    with pytest.raises(InputError, match="needs heads of a multiple of 32, this model has 8; use f16"):
        read_subject(Request(shared_data / "models" / "stories260K", parse_options("f16,q8_0")))
