"""What people bring: servers by URL, files, folders; a damaged one FAILs, the same one does not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from quantwise.runtimes.process import ServerProcess, free_port

MARGINS = ["--margin", "words=20%", "--margin", "preferred=20%"]


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Starts llama.cpp servers as somebody else would, on loopback and without a key: a file to a URL."""
    with ExitStack() as stack:

        def start(file: Path) -> str:
            url = f"http://127.0.0.1:{(port := free_port())}"
            flags = ["--model", str(file), "--port", str(port), "--ctx-size", "1024", "--parallel", "2"]
            flags += ["--threads", "1", "--no-webui", "--fit", "off", "--cache-ram", "0"]
            command = [sys.executable, "-P", "-m", "quantwise.runtimes.llamacpp_host", *flags]
            stack.enter_context(ServerProcess(command, url, env={"OMP_WAIT_POLICY": "PASSIVE"}))
            return url

        yield start


def answers(record: dict[str, Any], candidate: str) -> dict[str, str]:
    return {v["task"]: v["verdict"] for v in record["verdicts"] if v["candidate"].startswith(candidate)}


def test_two_servers_by_url(
    here: Callable[..., Any],
    serve: Callable[[Path], str],
    gguf_file: Path,
    broken_gguf: Path,
    own_words: Path,
    own_choices: Path,
) -> None:
    theirs, same, broken = serve(gguf_file), serve(gguf_file), serve(broken_gguf)
    asked = ["--baseline", theirs, "--candidate", same, "--candidate", broken, "--tasks", own_words, own_choices]
    ended = here("decide", *asked, "--items", 96, "--context", 64, *MARGINS, "--json")
    assert ended.code == 0, ended.err
    assert set(answers(ended.record, same).values()) == {"PASS"}
    assert answers(ended.record, broken)["words"] == "FAIL"
    # Equal servers differ in nothing but the noise of their times, and noise decides nothing.
    assert ended.record["decision"]["ship"] == f"{theirs}@openai"
    assert ended.record["decision"]["acceptable"] == [f"{same}@openai"]
    assert (
        "FAILs words" in {r["candidate"]: r["why"] for r in ended.record["decision"]["ruled_out"]}[f"{broken}@openai"]
    )
    kl = {line["candidate"]: line["kl_mean"] for line in ended.record["screen"]}
    assert kl[f"{same}@openai"] < 1e-6 < 0.01 < kl[f"{broken}@openai"]
    # No weight was touched: nothing was built, and nothing is known of the bytes.
    assert not list(Path(ended.record["folder"]).glob("artifacts/*"))
    assert [c["artifact_bytes"] for c in ended.record["costs"]] == [None, None, None]


def test_a_server_that_goes_away_ends_in_one_line_and_the_run_goes_on_when_it_is_back(
    here: Callable[..., Any], gguf_file: Path, own_words: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    flags = ["--model", str(gguf_file), "--port", str(port), "--ctx-size", "512", "--parallel", "2", "--threads", "1"]
    command = [sys.executable, "-P", "-m", "quantwise.runtimes.llamacpp_host", *flags, "--no-webui"]
    asked = [
        "decide",
        "--baseline",
        url,
        "--candidate",
        gguf_file,
        "--tasks",
        own_words,
        "--items",
        32,
        "--context",
        64,
    ]
    asked += ["--margin", "words=40%", "--run", "run", "--json"]
    with ServerProcess(command, url):
        assert here(*asked, "--budget", "0s").code == 0
    gone = here("measure", "run")
    assert gone.code in (1, 2)
    assert url in gone.complaint
    with ServerProcess(command, url):
        ended = here(*asked)
    assert ended.code == 0, ended.err
    assert set(answers(ended.record, str(gguf_file)).values()) == {"PASS"}


def test_brought_files(
    here: Callable[..., Any], gguf_file: Path, broken_gguf: Path, own_words: Path, own_choices: Path, tmp_path: Path
) -> None:
    shutil.copy(gguf_file, tmp_path / "same.gguf")
    asked = ["--baseline", gguf_file, "--candidate", "same.gguf", "--candidate", broken_gguf]
    ended = here(
        "decide",
        *asked,
        "--tasks",
        own_words,
        own_choices,
        "--items",
        96,
        "--context",
        64,
        *MARGINS,
        "--json",
        "--strict",
    )
    assert ended.code == 0, ended.err
    assert set(answers(ended.record, "same.gguf").values()) == {"PASS"}
    assert answers(ended.record, str(broken_gguf))["words"] == "FAIL"
    assert ended.record["decision"]["acceptable"] == ["same.gguf@llamacpp"]
    assert ended.record["decision"]["ship"] == f"{gguf_file}@llamacpp"
    only = here("decide", "--baseline", gguf_file, "--candidate", broken_gguf, "--tasks", own_words, "--strict",
                "--items", 64, "--context", 64, "--margin", "words=20%")  # fmt: skip
    assert only.code == 3
    assert "FAILs words" in only.out


def test_a_brought_pair_of_folders(
    here: Callable[..., Any], model: Path, own_words: Path, own_choices: Path, tmp_path: Path
) -> None:
    """The candidate as other tools store it: compressed-tensors, one packed and one expanded to be computed."""
    built = here("build", model, "rtn:int8-channel", "rtn:int2-tensor", "--out", "out", "--quiet", "--json")
    assert (built.code, built.err) == (0, "")
    good, bad = (artifact["path"] for artifact in built.record)
    shutil.copytree(model, tmp_path / "theirs")
    asked = ["--baseline", "theirs", "--candidate", good, "--candidate", bad, "--tasks", own_words, own_choices]
    ended = here(
        "decide", *asked, "--items", 96, "--context", 64, "--margin", "words=30%", "--margin", "preferred=30%", "--json"
    )
    assert ended.code == 0, ended.err
    assert "FAIL" not in answers(ended.record, good).values()
    assert answers(ended.record, bad)["words"] == "FAIL"
    decision = ended.record["decision"]
    named = {row["name"]: row for row in ended.record["candidates"]}
    assert [named[f"{one}@transformers"]["executes"] for one in (good, bad)] == ["packed", "dequantized"]
    assert decision["ship"] != f"{bad}@transformers", "it is stored small and expanded to be computed"
    assert os.path.samefile(tmp_path / "theirs", decision["rollback"].removesuffix("@transformers"))
