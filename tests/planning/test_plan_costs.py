"""What tokens cost, in a plan: rent over speed, for all devices, and unknown where a site does not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantwise.cli.main import main
from quantwise.planning import PlanRequest, plan
from quantwise.scenarios.sites import sites


def planned(**asked: Any) -> dict[str, Any]:
    return plan(PlanRequest(models=("llama-3.1-8b",), **asked))


@pytest.mark.parametrize("devices", [1, 2])
def test_dollars_and_joules_follow_from_the_speed(devices: int) -> None:
    found = planned(site="h100", runtime="vllm", concurrency=16, tensor_parallel=devices)
    site, (slow, fast) = sites()["h100"], found["decode_tokens_per_s_total"]
    assert site.price_per_hour
    assert site.watts
    low, high = found["cost"]["decode_dollars_per_million_tokens"]
    assert low == pytest.approx(devices * site.price_per_hour / 3600 / fast * 1e6, abs=0.001)
    assert high == pytest.approx(devices * site.price_per_hour / 3600 / slow * 1e6, abs=0.001)
    assert found["cost"]["decode_joules_per_token"][1] == pytest.approx(devices * site.watts / slow, abs=0.001)
    assert found["cost"]["prompt_dollars_per_million_tokens"][1] < low
    assert "2026" in found["cost"]["source"]


def test_every_candidate_has_its_own() -> None:
    rows = planned(site="h100")["candidates"]
    dollars = [row["cost"]["decode_dollars_per_million_tokens"][0] for row in rows]
    assert dollars == sorted(dollars, reverse=True)


def test_nothing_is_made_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "own.toml"
    site.write_text('name = "own"\nkind = "gpu"\nmemory_bytes = 24000000000\nbandwidth = 1e12\nwatts = 300\n')
    found = planned(site=str(site))["cost"]
    assert found["decode_dollars_per_million_tokens"] is None
    assert found["decode_joules_per_token"] is not None
    assert found["prompt_joules_per_token"] is None  # No rate, so no time of a prompt.
    assert main(["plan", "llama-3.1-8b", "--site", str(site)]) == 0
    assert "a price is unknown: the site says no price_per_hour" in capsys.readouterr().out
    assert main(["plan", "llama-3.1-8b", "--memory", "24GB"]) == 0
    assert "unknown, as the speed is" in capsys.readouterr().out
    site.write_text(site.read_text().replace("watts = 300", ""))
    assert main(["plan", "llama-3.1-8b", "--site", str(site)]) == 0
    assert "neither price_per_hour nor watts" in capsys.readouterr().out


def test_the_screen_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.1-8b", "--site", "rtx-4090"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cost ")]
    assert len(lines) == 1
    assert "a million tokens $" in lines[0]
