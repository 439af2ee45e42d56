from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from quantwise.cli.main import main


def test_claims_are_printed_with_what_would_overturn_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "--hardware", "hopper", "--need", "prompt"]) == 0
    out = capsys.readouterr().out
    assert "CONTRADICTED: 4-bit weights are multiplied in 4 bit on an H100." in out
    assert "overturned by: nothing: it is hardware" in out
    assert out.splitlines()[-1].endswith("untested here")
    assert max(map(len, out.splitlines())) <= 100


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "--json", "--status", "supported"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert {record["status"] for record in records} == {"supported"}
    assert all(record["source"] and record["overturned"] for record in records)


def test_failures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["advise", "--failure"]) == 0
    assert "crushed-channels: " in capsys.readouterr().out
    assert main(["advise", "--failure", "fragmentation", "--json"]) == 0
    assert [record["name"] for record in json.loads(capsys.readouterr().out)] == ["fragmentation"]
    assert main(["advise", "--failure", "--json"]) == 0
    out = capsys.readouterr().out
    assert not re.search(r"\{\w+\}", out)
    assert all(record["case"] and record["fixes"] for record in json.loads(out))
    log = tmp_path / "server.log"
    log.write_text("V cache quantization requires flash_attn\n")
    assert main(["advise", "--log", str(log)]) == 0
    assert capsys.readouterr().out.startswith("cache-of-few-bits-refused: ")
    log.write_text("all is well\n")
    assert main(["advise", "--log", str(log)]) == 0
    assert "no message" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hardware", "tpu"], "unknown hardware 'tpu'; allowed: cpu, apple"),
        (["--failure", "gremlins"], "unknown failure 'gremlins'; failures: does-not-fit"),
        (["--log", "missing.log"], "cannot be read"),
        (["--failure", "fragmentation", "--status", "supported"], "--failure and --status ask different questions"),
        (["--hardware", "cpu", "--log", "server.log"], "--log and --hardware ask different questions"),
        (["--failure", "fragmentation", "--log", "server.log"], "--log and --failure ask different questions"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", *arguments]) == 2
    assert message in capsys.readouterr().err
