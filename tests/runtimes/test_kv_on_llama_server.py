"""The study of caches on a real server: bytes as planned, going on, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.cache_study.request import CacheOption, Request, parse_options
from quantwise.cache_study.study import study
from quantwise.cache_study.subject import read_subject
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError
from quantwise.core.progress import Silent
from quantwise.core.runtime import RuntimeOptions
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
