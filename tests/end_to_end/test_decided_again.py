"""The same command on a run that is decided reads what is there: no model, no server, no tensor library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Nothing that decides may load these, nor start a server.
AGAIN = """
import json, subprocess, sys
from quantwise.cli.main import main
subprocess.Popen = None
code = main(json.loads(sys.argv[1]))
heavy = {"torch", "transformers", "tokenizers", "gguf", "xllamacpp"} & set(sys.modules)
sys.exit(code or (f"loaded {heavy}" if heavy else 0))
"""


def test_it_loads_nothing_and_says_the_same(here: Callable[..., Any], model: Path, own_words: Path) -> None:
    asked = ["decide", str(model), "--candidate", "int8-channel", "--tasks", str(own_words), "--items", "32"]
    asked += ["--context", "64", "--run", "run", "--json"]
    first = here(*asked)
    assert first.code == 0, first.err
    ended = subprocess.run([sys.executable, "-c", AGAIN, json.dumps(asked)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for part in ("question_hash", "verdicts", "decision", "screen", "noise"):
        assert json.loads(ended.stdout)[part] == first.record[part]
    assert [c["artifact"] for c in json.loads(ended.stdout)["candidates"]] == [
        c["artifact"] for c in first.record["candidates"]
    ]
