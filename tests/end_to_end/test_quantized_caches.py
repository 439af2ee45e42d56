"""Cache schemes of Transformers through the whole loop, on the reference model and items of the recall suite."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantwise.tasks.recall import SUITE
from quantwise.tasks.suite import items

FINE, COARSE = "16bit@transformers,kv=int8-token", "16bit@transformers,kv=int4-token"


@pytest.fixture
def record(here: Callable[..., Any], tmp_path: Path) -> dict[str, Any]:
    """Four items to screen with and 32 to decide on."""
    lines = [
        {"messages": [{"role": "user", "content": q.text}], "target": q.target, "scorer": "exact", "max_tokens": 10}
        for q in items(SUITE, "certify", 36)
    ]
    (tmp_path / "codes.jsonl").write_text("".join(json.dumps(line | {"id": i}) + "\n" for i, line in enumerate(lines)))
    asked = ["--tasks", "codes.jsonl", "--fixed-n", 32, "--margin", "codes=30%", "--run", "run"]
    ended = here("decide", "--candidate", FINE, "--candidate", COARSE, *asked, "--json")
    assert ended.code == 0, ended.err
    found: dict[str, Any] = ended.record
    return found


@pytest.mark.long
def test_a_cache_gets_a_quality_verdict_and_its_real_bytes_and_no_speed(record: dict[str, Any]) -> None:
    verdicts = {v["candidate"]: v for v in record["verdicts"]}
    assert set(verdicts) == {FINE, COARSE}
    assert all(v["n"] == 32 for v in verdicts.values())
    assert verdicts[FINE]["verdict"] == "PASS"
    costs = {c["candidate"]: c for c in record["costs"]}
    for name in (FINE, COARSE):
        assert costs[name]["artifact_bytes"] == costs["16bit@transformers"]["artifact_bytes"]
        unknown = ("seconds_per_item", "tokens_per_s", "p99_over_p50", "memory_bytes")
        assert [costs[name][term] for term in unknown] == [None] * 4
    held = {c["name"]: c["footprint"]["cache_bytes"] for c in record["candidates"]}
    # The same batches: a head's 64 numbers take 128 bytes, 64 and a scale, or 32 with a scale and a minimum.
    assert held[FINE] * 128 == held["16bit@transformers"] * 66
    assert held[COARSE] * 128 == held["16bit@transformers"] * 36
    measured = {line["candidate"]: line["kl_mean"] for line in record["screen"]}
    assert 0 < measured[FINE] < measured[COARSE]
    decision = record["decision"]
    assert (decision["status"], decision["ship"], decision["acceptable"]) == ("keep", "16bit@transformers", [])
    why = {line["candidate"]: line["why"] for line in decision["ruled_out"]}
    assert why[FINE].startswith("passes on quality only: its cache is kept small but read back into 16 bit here")
