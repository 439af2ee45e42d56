"""``quantwise kv``: what is wrong is said in one line, before a server is started; what is known fits a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantwise.cli.main import main

OPTION = {
    "name": "f16", "cache": "f16", "flash_attention": True, "texts": 1, "cache_bytes": 1024, "cache_share": 1.0,
    "compute_bytes": 2048, "as_planned": True,
    "recall": 1.0, "verdict": None, "divergence": None, "read_tokens_per_s": 100.0, "read_ratio": None,
    "written_tokens_per_s": 10.0, "written_ratio": None,
}  # fmt: skip
RECORD = {
    "model": "m.gguf", "context": 512, "runtime": "xllamacpp 1", "baseline": "f16", "questions": 2, "margin": 0.05,
    "text_tokens": 500.0, "options": [OPTION],
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--types", "f16,q3"], "unknown cache scheme 'q3'"),
        (["--context", "2048"], "more than the 1024 tokens"),
        (["--context", "5"], "the context does not hold 8 facts"),
        (["--types", ""], "--types '' names no type"),
        (["--documents", "99999999999"], "--documents 99999999999 is out of range; give 1 to 10,000"),
        (["--questions", "9999999"], "--questions 9999999 is out of range; give 1 to 100"),
        (["nowhere.gguf"], "nowhere.gguf is not there"),
        ([__file__], "test_kv_verb.py is neither a .gguf file nor a folder"),
        (["http://127.0.0.1:1"], "give a .gguf file, not a server"),
        (["--flash-attention", "off"], "q8_0 needs flash attention"),
        (["--text", "nowhere.txt"], "give a text file"),
        (["--margin", "0"], "--margin must lie between 0 and 1"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(
    given: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["kv", *given]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert (told.err.count("\n"), told.out) == (1, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("as_json", [True, False])
def test_the_record_is_printed(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quantwise.cache_study.study.study", lambda *_: RECORD)
    assert main(["kv", "--quiet", *(["--json"] if as_json else [])]) == 0
    told = capsys.readouterr().out
    if as_json:
        assert json.loads(told) == RECORD
    else:
        assert "f16    flash" in told
        assert "1 text of 500 tokens, 2 questions each" in told
