"""The reference model against a smaller one that is cut out of it: floors, one memory budget, one price; SIGKILL."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_killed import Killed, rows

from quantwise.models import reference

KEPT = 512
TASKS = ("classification", "extraction")
# No timing decides how much is asked: bytes stand first and are exact, and no budget asks for the price, whose interval
# after two blocks is as wide as their times differ.
SCENARIO = """
base = "laptop"
name = "two models"
objective = ["bytes", "money_per_solved"]
compare = "floor"
reruns = 1
prices = { currency = "EUR", machine_hour = 1.8 }
review = { probability = 0.25, price = 0.01 }
site = { name = "small box", memory_bytes = 2000000000 }
"""


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model with the 512 of each layer's 768 channels that the largest weights lead out of."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("smaller") / "model"
    model = AutoModelForCausalLM.from_pretrained(reference.path(), dtype=torch.bfloat16)
    for layer in model.model.layers:
        part = layer.mlp
        weight = part.down_proj.weight.float().norm(dim=0) * part.up_proj.weight.float().norm(dim=1)
        kept = weight.topk(KEPT).indices.sort().values
        part.gate_proj.weight = torch.nn.Parameter(part.gate_proj.weight[kept])
        part.up_proj.weight = torch.nn.Parameter(part.up_proj.weight[kept])
        part.down_proj.weight = torch.nn.Parameter(part.down_proj.weight[:, kept])
    model.config.intermediate_size = KEPT
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(reference.path()).save_pretrained(folder)
    return folder


def question(smaller: Path, place: Path, items: int) -> list[object]:
    (place / "two.toml").write_text(SCENARIO)
    floors = [part for task in TASKS for part in ("--floor", f"{task}=55%")]
    return [
        "decide", f"large={reference.path()}", f"small={smaller}", "--candidate", "large:q4_k_m", "--candidate",
        "small:q8_0", "--scenario", "two.toml", "--tasks", *TASKS, *floors, "--items", items, "--context", 256,
        "--json",
    ]  # fmt: skip


def told(record: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same: the question, every floor and verdict to the last digit, the decision, the bytes."""
    decision = {k: record["decision"][k] for k in ("ship", "status", "fallback", "rollback", "acceptable")}
    return {
        "question": record["question_hash"],
        "decision": decision,
        "floors": record["floors"],
        "verdicts": [{k: v[k] for k in ("candidate", "task", "verdict", "n", "delta")} for v in record["verdicts"]],
        "artifacts": {c["name"]: c["artifact"]["hash"] for c in record["candidates"]},
        "fits": {c["name"]: (c["fit"]["fits"], c["fit"]["limit_bytes"]) for c in record["candidates"]},
    }


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_real_models_killed_in_every_stage_end_in_the_same_decision_from_the_same_rows(
    quantwise: Callable[..., Any], smaller: Path, tmp_path: Path
) -> None:
    asked = question(smaller, tmp_path, 128)
    calm = quantwise(tmp_path, *asked, "--run", "calm")
    assert calm.code == 0, calm.err
    record = calm.record
    verdicts = {(row["candidate"], row["task"]): row for row in record["floors"]}
    assert len(verdicts) == 3 * len(TASKS)
    assert all(verdicts["large:q4_k_m@llamacpp", task]["verdict"] == "PASS" for task in TASKS)
    names = {"large:q4_k_m@llamacpp", "small:q8_0@llamacpp"}
    assert verdicts["small:q8_0@llamacpp", "extraction"]["verdict"] == "FAIL", "a third of its channels is missing"
    assert record["decision"]["ship"] == "large:q4_k_m@llamacpp"
    limits = {c["fit"]["limit_bytes"] for c in record["candidates"]}
    assert len(limits) == 1, "one memory budget"
    assert {item["candidate"] for item in record["solved"]["items"]} == names
    assert all(item["ours"]["money"] for item in record["solved"]["items"])
    command = [sys.executable, "-m", "quantwise", *map(str, asked), "--run", "killed"]
    killed = Killed(command, tmp_path, {**os.environ, "OMP_NUM_THREADS": "1"})
    for stage in ("build", "screen", "aa", "certify", "certify"):
        killed.kill_in(stage)
    assert not killed.orphans
    ended = quantwise(tmp_path, *asked, "--run", "killed")
    assert ended.code == 0, ended.err
    assert json.loads(json.dumps(told(ended.record))) == json.loads(json.dumps(told(record)))
    assert rows(tmp_path / "killed") == rows(tmp_path / "calm")
