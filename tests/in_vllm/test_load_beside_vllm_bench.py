"""``quantwise load`` beside ``vllm bench serve``, both on a server whose delays are known: the same figures."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from known_server import known_server
from quantwise.core.progress import Silent
from quantwise.load.arrivals import Arrivals
from quantwise.load.trial import Trial, run_trial
from quantwise.load.workload import MadeUp

PYTHON = os.environ.get("QUANTWISE_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON, reason="QUANTWISE_VLLM_PYTHON names no Python with vLLM; run `make test-vllm`"),
]

BENCH = (
    "import argparse\nfrom vllm.benchmarks.serve import add_cli_args, main\n"
    "p = argparse.ArgumentParser()\nadd_cli_args(p)\nmain(p.parse_args())"
)
REFERENCE = Path(__file__).parents[2] / "src" / "quantwise" / "models" / "reference"
FIGURES = [f"{kind}_{name}_ms" for name in ("ttft", "tpot", "itl", "e2el") for kind in ("mean", "median", "p95", "p99")]


def test_both_say_the_same_of_one_server(tmp_path: Path) -> None:
    load = ["--request-rate", "40", "--num-prompts", "300", "--num-warmups", "8", "--ignore-eos"]
    load += ["--dataset-name", "random", "--random-input-len", "64", "--random-output-len", "24"]
    load += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "95,99"]
    load += ["--save-result", "--result-dir", str(tmp_path), "--result-filename", "theirs.json"]
    with known_server(ttft=0.3, tpot=0.03, tokens=24) as url:
        (ours,) = run_trial(Trial((url,), Arrivals(40), MadeUp(64, 24), requests=300), Silent())["servers"]
        server = ["--backend", "openai", "--base-url", url, "--model", "known", "--tokenizer", str(REFERENCE)]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [PYTHON, "-c", BENCH, *server, *load], capture_output=True, text=True, env=environment, check=False
        )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads((tmp_path / "theirs.json").read_text())
    for name in FIGURES:
        print(f"{name:<16} {ours[name]:9.2f} {theirs[name]:9.2f}")
        tolerance = 0.1 if name.startswith("p9") and "itl" in name else 0.02  # single gaps take the machine's noise
        assert ours[name] == pytest.approx(theirs[name], rel=tolerance)
    for name in ("completed", "failed", "total_output_tokens"):
        assert ours[name] == theirs[name]
    assert set(theirs) & {"mean_ttft_ms", "request_goodput", "total_token_throughput"} <= set(ours)
