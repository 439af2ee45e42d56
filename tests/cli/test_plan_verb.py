"""``quantwise plan`` as it is typed: tables, JSON, and one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantwise.cli.main import main


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = main(["plan", *words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_screen_answers_first(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "llama-3.1-8b", "--site", "rtx-4090", "--context", "16384", "--concurrency", "8")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("llama-3.1-8b")
    assert lines[1] == "q4_k_m@llamacpp fits: 20.9 GiB of 23.6 GiB"
    assert max(map(len, lines)) <= 110
    assert "…" not in out  # nothing is cut


def test_the_family_and_training_print(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "qwen3-8b", "qwen3-14b", "--memory", "12GB")
    assert code == 0
    assert "unknown until measured" in out
    code, out, _ = typed(capsys, "llama-3.1-8b", "--train", "lora", "--site", "rtx-4090")
    assert code == 0
    assert "of the model's" in out


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "qwen3-8b", "--site", "h100", "--json")
    assert code == 0
    assert json.loads(out)["model"] == "qwen3-8b"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing-of-that-name"], "is no folder"),
        (["qwen3-8b", "--context", "-5"], "whole number above 0"),
        (["qwen3-8b", "--context", "0"], "whole number above 0"),
        (["qwen3-8b", "--memory", "lots"], "no amount of memory"),
        (["qwen3-8b", "--site", "toaster"], "unknown site"),
        (["qwen3-8b", "--gpu-layers", "-3"], "--gpu-layers must be 0 or more"),
        (["qwen3-8b", "--train", "magic"], "unknown training method"),
        (["qwen3-8b", "--refit", "no-such.log"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    code, _, err = typed(capsys, *words)
    assert code == 2
    assert told in err
    assert len(err.strip().splitlines()) == 1


def test_a_config_that_contradicts_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 100,
              "num_attention_heads": 7, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 32,
              "max_position_embeddings": 64}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, _, err = typed(capsys, str(tmp_path))
    assert code == 2
    assert "heads" in err
    assert len(err.strip().splitlines()) == 1
