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
        (["qwen3-8b", "--context", "999999999999"], "context must be at most 2,147,483,647"),
        (
            ["qwen3-8b", "--concurrency", "1" + 26 * "0"],
            "concurrency must be at most 100,000, not a number of 27 digits",
        ),
        (["qwen3-8b", "--train", "lora", "--batch", "1" + 26 * "0"], "batch must be at least 1 and at most"),
        (["qwen3-8b", "--concurrency", 999 * "9"], "concurrency must be at most 100,000, not a number of 999"),
        (["qwen3-8b", "--memory", "99999999TB"], "memory must be at most 1,152,921,504,606,846,976"),
        (["qwen3-8b", "--memory", 999 * "9"], "no amount of memory"),
        (["qwen3-8b", "--train", "lora", "--open"], "--open is of serving"),
        (["qwen3-8b", "--rank", "8"], "--rank is of training; give --train METHOD"),
        (["qwen3-8b", "--checkpointing"], "--checkpointing is of training"),
        (["qwen3-8b", "--train", "lora", "--context", "4096"], "--context is of serving; leave it or --train away"),
        (["qwen3-8b", "--train", "lora", "--concurrency", "4"], "--concurrency is of serving"),
        (["qwen3-8b", "--train", "lora", "--runtime", "llamacpp"], "--runtime is of serving"),
        (["qwen3-8b", "--train", "lora", "--scheme", "q4_k_m"], "--scheme is of serving"),
        (["qwen3-8b", "qwen3-4b", "--train", "lora"], "training is planned for one model, not 2"),
        (["qwen3-8b", "--train", "full", "--rank", "8"], "--rank is of lora, qlora, dora, adapter, not of full"),
        (["qwen3-8b", "--train", "ia3", "--targets", "all"], "--targets is of lora, qlora, dora, not of ia3"),
        (["qwen3-8b", "--train", "lora", "--targets", "q_proj,"], "targets must name matrices"),
        (["qwen3-8b", "--train", "lora", "--targets", "wq"], "qwen3-8b has no matrix wq; it has down_proj"),
        (["qwen3-8b", "--train", "full", "--optimizer", "adamw-8bit", "--site", "m1"], "does not run on m1"),
        (["mamba-130m", "--train", "lora"], "recurrent layers of mamba-130m is not known here, whatever is trained"),
        (["qwen3-8b", "--runtime", "vllm", "-ngl", "9"], "--gpu-layers is of llama.cpp, not of vllm"),
        (["qwen3-8b", "--runtime", "vllm", "--ubatch", "64"], "--ubatch is of llama.cpp, not of vllm"),
        (["qwen3-8b", "--runtime", "vllm", "--experts-on-cpu", "2"], "--experts-on-cpu is of llama.cpp"),
        (["qwen3-8b", "--experts-on-cpu", "5", "--site", "h100"], "qwen3-8b has no experts"),
        (["qwen3-8b", "qwen3-4b", "--refit", "a.log"], "a start-up log is of one model, not of 2"),
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


def test_targets_and_what_is_paged_stand_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["llama-3.1-8b", "--site", "h100", "--train"]
    # 32 layers of a query matrix of 4096 x 4096 and a value matrix of 1024 x 4096, at rank 16.
    code, out, _ = typed(capsys, *words, "lora")
    assert code == 0
    assert f"{32 * 16 * (8192 + 5120):,} numbers" in out
    assert "rank 16 beside q_proj, v_proj (--rank, --targets)" in out
    code, out, _ = typed(capsys, *words, "lora", "--rank", "8", "--targets", "o_proj")
    assert f"{32 * 8 * 8192:,} numbers" in out
    assert "rank 8 beside o_proj" in out
    code, out, _ = typed(capsys, *words, "lora", "--targets", "all")
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in " ".join(out.split())
    code, out, _ = typed(capsys, *words, "full", "--optimizer", "paged-adamw")
    assert "up to 29.9 GiB of optimizer states may be paged to the machine around the GPU" in " ".join(out.split())
    code, out, _ = typed(capsys, *words, "full", "--optimizer", "paged-adamw", "--host", "lab-server")
    assert "up to 29.9 GiB of optimizer states may be paged to lab-server, which has 384 GiB" in " ".join(out.split())


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file on this system")
def test_a_log_without_an_end_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = typed(capsys, "--refit", "/dev/zero")
    assert code == 2
    assert err.startswith("quantwise: /dev/zero has more than 67,108,864 bytes; give a runtime's start-up log")


def test_more_requests_than_are_promised_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-8b", "--site", "rtx-4090", "--context", "16384", "--concurrency"]
    assert main([*words, "8"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "promise 6 at a time" in shown
    assert "the 8 asked for have room, but if so many came on average, some would wait" in shown
    assert main([*words, "2"]) == 0
    assert "asked for" not in capsys.readouterr().out
    # May fit: only where buffers are small.
    assert main([*words, "8", "--scheme", "q6_k"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "may fit" in shown
    assert "asked for" in shown


def test_what_does_not_fit_has_no_speed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.1-70b", "--site", "rtx-4090"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "does not fit" in line]
    assert rows
    assert all(line.split()[-1] in ("unknown", "?", "–", "-") for line in rows), rows


def test_fewer_bits_are_not_sold_as_faster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.1-8b", "--site", "h100", "--scheme", "q8_0", "--scheme", "q2_k"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "with q2_k@llamacpp decoding may be up to" in shown
    assert "a prompt is no faster: both are multiplied in int8" in shown
