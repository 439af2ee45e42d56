"""The runtime ``vllm`` with vLLM itself: the contract, and a candidate named ``@vllm`` through ``decide``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from quantwise.cli.main import main
from quantwise.core.artifact import Artifact
from quantwise.core.runtime import RuntimeOptions
from quantwise.models import reference
from quantwise.runtimes.vllm import Vllm
from quantwise.testing.runtime_contract import check_refusals, check_session

PYTHON = os.environ.get("QUANTWISE_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not PYTHON, reason="QUANTWISE_VLLM_PYTHON names no Python with vLLM; run `make test-vllm`"),
]


def test_it_keeps_the_contract() -> None:
    prompts = [f"<|user|>What is {n} + {7 * n}?<|assistant|>" for n in range(3, 11)]
    options = RuntimeOptions(context=256, parallel=4, timeout_s=120.0)
    with Vllm().open(Artifact(str(reference.path()), "safetensors", "", None), options) as session:
        check_session(session, prompts)
    check_refusals(Vllm(), Artifact("nothing", "server", "", None))


def test_a_candidate_of_its_own_in_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    candidate = "rtn:int4-g64,layout=gptq@vllm"
    asked = ["--tasks", "recall", "--fixed-n", "32", "--margin", "recall=60%", "--context", "1024", "--json", "--quiet"]
    assert main(["decide", "--candidate", candidate, *asked]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {v["candidate"]: v["verdict"] for v in record["verdicts"]} == {candidate: "PASS"}
    costs = {c["candidate"]: c for c in record["costs"]}
    # Four bits are computed by vLLM's own kernels, so its times count.
    assert costs[candidate]["seconds_per_item"] is not None
    assert {c["kl_mean"] is not None for c in record["screen"] if c["candidate"] == candidate} == {True}
    # Started without a cache of prefixes, with blocks enough for everybody; the baseline ran in Transformers.
    used = {c["name"]: c["cache_use"] for c in record["candidates"]}
    assert (used[candidate]["prefix_caching"], used[candidate]["preemptions"]) == (False, 0)
    assert used[candidate]["prefix_cache_hit_rate"] is None
    assert used[candidate]["blocks"] * used[candidate]["block_tokens"] > 1024
    assert 0 <= (used[candidate]["most_blocks_seen"] or 0) < used[candidate]["blocks"]
