"""GB are 10^9 bytes and cards are sold by the GiB: where a budget stands for a card, the plan says so, once."""

from __future__ import annotations

import pytest

from quantwise.cli.main import main

NOTE = "12 GB are 11.2 GiB; a graphics card sold as 12 GB has 12 GiB: --memory 12GiB"
ASKED = [["qwen3-8b"], ["qwen3-4b", "qwen3-8b"], ["qwen3-4b", "--train", "lora"]]


@pytest.mark.parametrize("words", ASKED, ids=["one", "family", "training"])
def test_a_card_in_gb_is_told_apart(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words, "--memory", "12GB"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count(NOTE) == 1
    assert "at a GPU" in out
    assert "a GPU of 11.2 GiB" not in out
    assert main(["plan", *words, "--memory", "12GiB"]) == 0
    out = capsys.readouterr().out
    assert "10^9" not in out
    assert "graphics card sold" not in out
    assert "12.0 GiB" in out


def test_of_a_named_site_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "qwen3-8b", "--memory", "12GB", "--site", "rtx-4090"]) == 0
    assert "graphics card sold" not in capsys.readouterr().out


def test_the_memory_of_a_family_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "qwen3-4b", "qwen3-8b", "--memory", "12GB"]) == 0
    assert capsys.readouterr().out.splitlines()[0].count("11.2 GiB") == 1
