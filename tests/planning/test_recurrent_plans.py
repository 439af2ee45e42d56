"""What llama.cpp computes recurrent layers in is not known here, and then no figure is told that rests on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantwise.cli.main import main
from quantwise.core.errors import InputError
from quantwise.planning import PlanRequest, plan


@pytest.mark.parametrize("model", ["mamba-2.8b", "jamba-v0.1", "lfm2-1.2b", "qwen3-next-80b-a3b"])
@pytest.mark.parametrize("site", ["laptop", "rtx-4090", "h200", "m4-max"])
def test_no_total_without_the_buffer(model: str, site: str) -> None:
    found = plan(PlanRequest((model,), site=site))
    for row in found["candidates"]:
        least = row["total_bytes_at_least"]
        assert row["compute_bytes"] is row["total_bytes"] is row["concurrency"] is None
        assert row["fits"] == ("no" if least > row["limit_bytes"] else "unknown")
        assert row["weights_bytes"] + row["kv_cache_bytes"] <= least
        assert bool(row["fixes"]) == (row["fits"] == "no")
        assert row["most_on_gpu"] is None
        assert not any(term["name"] == "compute" for term in row["terms"])
        assert any("recurrent layers" in note for note in row["notes"])


@pytest.mark.parametrize("site", ["laptop", "h200"])
def test_the_screen_says_so(site: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "jamba-v0.1", "--site", site]) == 0
    out = capsys.readouterr().out
    assert "how much more is unknown" in out or "nothing here fits" in out
    assert "recurrent layers" in out


def test_in_a_family_they_are_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(PlanRequest(("lfm2-1.2b", "qwen3-0.6b"), memory_bytes=8 << 30))
    mine = [row for row in found["frontier"] if row["model"] == "lfm2-1.2b"]
    assert mine
    for row in mine:
        assert (row["fits"], row["longest_context"], row["total_bytes"]) == ("unknown", None, None)
        assert "recurrent layers" in row["why"]
        assert not row["on_frontier"]
        assert row["weights_bytes"] > 0
    assert {row["model"] for row in found["frontier"] if row["on_frontier"]} == {"qwen3-0.6b"}
    assert main(["plan", "lfm2-1.2b", "qwen3-0.6b", "--memory", "8GiB"]) == 0
    assert "lfm2-1.2b: unknown (llama.cpp's compute buffer" in capsys.readouterr().out


def test_in_a_family_they_do_not_fit_where_their_weights_do_not() -> None:
    found = plan(PlanRequest(("lfm2-350m", "jamba-v0.1"), memory_bytes=8 << 30, schemes=("q8_0",)))
    assert {(row["model"], row["fits"]) for row in found["frontier"]} == {
        ("lfm2-350m", "unknown"),
        ("jamba-v0.1", "no"),
    }


def test_a_family_tells_of_those_that_a_runtime_does_not_take(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "mamba-130m", "qwen3-0.6b", "--memory", "8GiB", "--runtime", "vllm"]
    assert main(words) == 0
    assert "mamba-130m: pages of recurrent layers" in capsys.readouterr().out


def test_other_runtimes_are_planned() -> None:
    found = plan(PlanRequest(("mamba-130m",), site="rtx-4090", runtime="transformers"))
    assert found["total_bytes"] > found["weights_bytes"] > 0
    with pytest.raises(InputError, match="recurrent"):
        plan(PlanRequest(("mamba-130m",), site="rtx-4090", runtime="vllm"))


@pytest.mark.parametrize("layers", [None, 5])
def test_a_host_that_is_too_small_has_a_fix_too(layers: int | None) -> None:
    asked = PlanRequest(("qwen3.5-4b",), site="rtx-4090", schemes=("16bit",), host="700MB", gpu_layers=layers)
    found = plan(asked)
    assert (found["fits"], found["failure"]["name"]) == ("no", "host-memory-short")
    changes = {change["knob"]: change["value"] for change in found["fixes"][0]["changes"]}
    assert set(changes) == {"model"}
    assert plan(replace(asked, models=(changes["model"],)))["fits"] == "yes"
