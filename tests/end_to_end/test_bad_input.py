"""Bad input: one line that names what and where, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from quantwise.runtimes.process import free_port


@pytest.fixture
def place(tmp_path: Path, model: Path, gguf_file: Path, own_words: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with good files and damaged ones."""
    monkeypatch.delenv("QUANTWISE_DATA", raising=False)
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "tiny.gguf").symlink_to(gguf_file)
    (tmp_path / "words.jsonl").symlink_to(own_words)
    for name in ("cut", "no-config", "bad-config", "no-tokenizer"):
        shutil.copytree(model, tmp_path / name)
    with (tmp_path / "cut" / "model.safetensors").open("r+b") as stream:
        stream.truncate(100_000)
    (tmp_path / "no-config" / "config.json").unlink()
    (tmp_path / "bad-config" / "config.json").write_text('{"architectures": [')
    (tmp_path / "no-tokenizer" / "tokenizer.json").unlink()
    data = gguf_file.read_bytes()
    for name, content in (("cut", data[:30_000]), ("header", data[:300]), ("noise", data[::-1]), ("empty", b"")):
        (tmp_path / f"{name}.gguf").write_bytes(content)
    lines = own_words.read_text(encoding="utf-8").splitlines()
    broken = [*lines[:16], '{"id": 17, "prompt": "Who', *lines[17:]]
    (tmp_path / "broken.jsonl").write_text("\n".join(broken), encoding="utf-8")
    (tmp_path / "twice.jsonl").write_text("\n".join([*lines, lines[3]]), encoding="utf-8")
    (tmp_path / "nothing.jsonl").write_text("\n\n")
    (tmp_path / "binary.txt").write_bytes(bytes([0xFF, 0xFE, 0x00, 0x80]) * 64)
    (tmp_path / "one.txt").write_text("t")
    (tmp_path / "few.txt").write_text("one\ntwo\nthree\n")
    asked = max((json.loads(line)["prompt"] for line in lines), key=len)
    (tmp_path / "leak.txt").write_text("Some other text.\n\nIt goes on:  " + asked.upper() + " and on.\n\nAnd on.")
    return tmp_path


def build_of(source: str, *more: str) -> list[str]:
    return ["decide", source, "--candidate", "q8_0", "--tasks", "words.jsonl", *more]


def candidate(name: str, *more: str) -> list[str]:
    return ["decide", "model", "--candidate", name, "--tasks", "words.jsonl", *more]


def brought(name: str) -> list[str]:
    return ["decide", "--baseline", "tiny.gguf", "--candidate", name, "--tasks", "words.jsonl"]


def tasks(name: str) -> list[str]:
    return ["decide", "model", "--candidate", "q8_0", "--tasks", name]


CASES: list[tuple[list[str], str]] = [
    (build_of("missing"), "model folder missing does not exist"),
    (build_of("tiny.gguf"), "model folder tiny.gguf is a file"),
    (build_of("no-config"), "no-config has no config.json"),
    (build_of("bad-config"), "bad-config/config.json is no JSON"),
    (build_of("cut"), "cut/model.safetensors is damaged: its header describes"),
    (build_of("no-tokenizer"), "no-tokenizer/tokenizer.json: No such file"),
    (brought("cut.gguf"), "cut.gguf is no complete GGUF file"),
    (brought("header.gguf"), "header.gguf is no complete GGUF file"),
    (brought("noise.gguf"), "noise.gguf is no complete GGUF file"),
    (brought("empty.gguf"), "empty.gguf is no complete GGUF file"),
    (brought("missing.gguf"), "missing.gguf: no such file"),
    (brought("words.jsonl"), "words.jsonl: neither a .gguf file nor a folder"),
    (brought("no-config"), "no-config has no config.json"),
    (brought("ftp://127.0.0.1"), "begins with http:// or https://"),
    (brought("http://[::1"), "'http://[::1' is no URL of a server"),
    (brought("http://127.0.0.1:99999"), "is no URL of a server"),
    (candidate("gptq:int5-g64"), "no such integer scheme 'int5-g64'; allowed: 16bit"),
    (candidate("awful:int4-g64"), "unknown quantizer 'awful'; allowed: rtn"),
    (candidate("gptq:nf4"), "gptq cannot fill 'nf4'; use rtn:nf4"),
    (candidate("q9_0"), "unknown recipe 'q9_0'"),
    (candidate("q8_0@vllm"), "not in 'vllm'"),
    (candidate("q8_0,kv=q9"), "unknown cache scheme 'q9'; allowed: f32"),
    (candidate("rtn:int4-g64,kv=q8_0"), "unknown cache scheme 'q8_0'; allowed: f16, int8-token"),
    (candidate("q8_0", "--candidate", "q8_0"), "q8_0@llamacpp is named twice"),
    (candidate("gptq:int4-g64", "--calibration", "missing.txt"), "missing.txt: No such file"),
    (candidate("q8_0", "--scenario", "desktop"), "unknown scenario 'desktop'; presets: laptop"),
    (candidate("q8_0", "--scenario", "missing.toml"), "missing.toml: cannot be read"),
    (candidate("q8_0", "--margin", "words=200%"), "'200%' is no share"),
    (candidate("q8_0", "--margin", "words=0"), "margin of words must lie between 0 and 1"),
    (candidate("q8_0", "--margin", "words=nan"), "'nan' is no share"),
    (candidate("q8_0", "--margin", "5%"), "'5%' is not TASK=SHARE"),
    (candidate("q8_0", "--margin", "sums=5%"), "no task 'sums' in this question; tasks: words"),
    (candidate("q8_0", "--budget", "soon"), "'soon' is no duration"),
    (candidate("q8_0", "--items", "0"), "'0' is not a whole number above 0"),
    (candidate("q8_0", "--alpha", "0"), "alpha 0 is out of range"),
    (tasks("coding"), "coding: neither a suite nor a file; suites: json_output"),
    (tasks("broken.jsonl"), "broken.jsonl:17: not JSON"),
    (tasks("twice.jsonl"), "is already on line 4; ids must differ"),
    (tasks("nothing.jsonl"), "nothing.jsonl: no items"),
    (["decide", "--baseline", "tiny.gguf", "--tasks", "words.jsonl"], "a baseline alone decides nothing"),
    (["decide", "--frob"], "unrecognized arguments: --frob"),
    (["frobnicate"], "invalid choice: 'frobnicate'"),
    (["report", "missing"], "missing is no run folder (no question.json)"),
    (["measure", "model"], "model is no run folder"),
    (["plan", "cut"], "cut/model.safetensors is damaged"),
    (["build", "missing", "q8_0"], "model folder missing does not exist"),
    (["build", "tiny.gguf", "q8_0"], "model folder tiny.gguf is a file"),
    (["build", "model", "q9_0"], "unknown recipe 'q9_0'"),
    (["build", "model", "gptq:nf4"], "gptq cannot fill 'nf4'; use rtn:nf4"),
    (["build", "model", "gptq:int4-g64", "--samples", "3"], "--samples 3 is out of range; give 16 to 10000"),
    (["build", "model", "gptq:int4-g64", "--calibration", "nothing.jsonl"], "nothing.jsonl is empty"),
    (["build", "model", "gptq:int4-g64", "--calibration", "binary.txt"], "binary.txt: no UTF-8 text at byte 0"),
    (["build", "model", "gptq:int4-g64", "--calibration", "general"], "QUANTWISE_DATA is not set"),
    (["build", "model", "gptq:int4-g64", "--calibration", "one.txt"], "has 1 token, and statistics want 16"),
    (["build", "model", "gptq:int4-g64", "--calibration", "few.txt", "--samples", "16"], "few.txt has 3 calibration"),
    (["build", "model", "q4_0", "--calibration-study"], "reads no calibration data"),
    (
        ["build", "model", "gptq:int4-g64", "--calibration-study", "--samples", "16"],
        "leave --calibration and --samples",
    ),
    (["build", "cut", "gptq:int4-g64"], "cut/model.safetensors is damaged: its header describes"),
    (["build", "no-tokenizer", "gptq:int4-g64"], "no-tokenizer/tokenizer.json"),
    (candidate("gptq:int4-g64", "--calibration", "leak.txt"), "hold 1 of the"),
]


@pytest.mark.parametrize(("arguments", "expected"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_one_line_and_nothing_left(place: Path, here: Callable[..., Any], arguments: list[str], expected: str) -> None:
    before = sorted(place.rglob("*"))
    ended = here(*arguments)
    assert expected in ended.complaint
    assert ended.code == 2
    assert ended.out == ""
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("arguments", [build_of("missing"), tasks("broken.jsonl"), brought("http://127.0.0.1:1")])
def test_the_same_from_a_shell(place: Path, quantwise: Callable[..., Any], arguments: list[str]) -> None:
    ended = quantwise(place, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert {"missing", "broken.jsonl:17", "http://127.0.0.1:1"} & set(ended.complaint.replace(": ", " ").split())
    assert not (place / "runs").exists()


def test_the_command_is_installed() -> None:
    import subprocess

    command = Path(sys.executable).with_name("quantwise")
    told = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0
    assert told.stdout.startswith("quantwise ")


class WebPage(BaseHTTPRequestHandler):
    """Any web server: a page at /, at /v1/models what the class says."""

    status, body = 404, b"<html><body>\nNot\nfound</body></html>"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(params=[(404, WebPage.body), (200, WebPage.body), (200, b'{"models": []}'), (200, b'{"data": []}')])
def web_page(request: pytest.FixtureRequest) -> Iterator[str]:
    status, body = request.param
    handler = type("Handler", (WebPage,), {"status": status, "body": body})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_url_that_is_no_such_server(place: Path, here: Callable[..., Any], web_page: str) -> None:
    ended = here(*brought(web_page))
    assert ended.code == 2
    assert web_page in ended.complaint
    assert "<" not in ended.complaint
    assert not (place / "runs").exists()


def test_a_url_at_which_nobody_answers(place: Path, here: Callable[..., Any]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for arguments in (
        brought(url),
        ["decide", "--baseline", url, "--candidate", "tiny.gguf", "--tasks", "words.jsonl"],
    ):
        ended = here(*arguments)
        assert ended.code == 2
        assert f"no server answers at {url}" in ended.complaint
    assert not (place / "runs").exists()
