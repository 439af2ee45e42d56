"""A plan over several GPUs: one device's limit, bytes that add up to the whole, and refusals in a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantwise.cli.main import main
from quantwise.core.errors import InputError
from quantwise.plan.constants import VLLM_0_32
from quantwise.plan.fix import CLASSES
from quantwise.planning import PlanRequest, plan


def planned(model: str, **asked: Any) -> dict[str, Any]:
    return plan(PlanRequest(models=(model,), **asked))


def test_four_gpus_that_share_every_layer_hold_a_quarter_each() -> None:
    asked: dict[str, Any] = {"site": "h100", "runtime": "vllm", "schemes": ("16bit",), "context": 8192}
    one, four = (planned("llama-3.1-70b", **asked, tensor_parallel=count) for count in (1, 4))
    # 70.55e9 weights of 2 bytes; norms are kept whole.
    norms = 2 * 161 * 8192
    assert one["weights_bytes"] == 141_107_412_992
    assert four["weights_bytes"] == (141_107_412_992 - norms) // 4 + norms
    assert four["kv_cache_bytes"] == 2_684_354_560 // 4
    assert (one["fits"], four["fits"]) == ("no", "yes")
    assert four["limit_bytes"] == one["limit_bytes"]
    scratch = four["compute_bytes"][1] + four["overhead_bytes"]
    room = int(VLLM_0_32.utilization * four["limit_bytes"]) - four["weights_bytes"] - scratch
    assert four["concurrency"]["theoretical"] == room // (2_684_354_560 // 4)
    assert four["devices"]["kv_heads"] == 2
    # The link is NVLink's; still a step is not four times as fast.
    assert one["decode_tokens_per_s"][1] < four["decode_tokens_per_s"][1] < 4 * one["decode_tokens_per_s"][1]


@pytest.mark.parametrize("model", ["llama-3.1-70b", "qwen3-4b"])  # The second one's output is its embedding.
def test_llama_cpp_s_stages_hold_together_what_one_gpu_holds(model: str) -> None:
    asked: dict[str, Any] = {"site": "rtx-4090", "schemes": ("q4_k_m",), "context": 8192, "concurrency": 2}
    one, three = (planned(model, **asked, pipeline_parallel=count) for count in (1, 3))
    stages = three["devices"]["stages"]
    assert sum(stage["weights_bytes"] for stage in stages) == one["weights_bytes"]
    layers = {"llama-3.1-70b": 80, "qwen3-4b": 36}[model]
    assert sum(stage["layers"] for stage in stages) == layers
    fullest = max(stages, key=lambda stage: stage["total_bytes"][1])
    assert three["total_bytes"] == fullest["total_bytes"][1]
    assert three["kv_cache_bytes"] * layers == one["kv_cache_bytes"] * fullest["layers"]
    assert three["devices"]["messages_per_token"] == 2


def test_transformers_stages_and_shares_are_within_a_whole() -> None:
    asked: dict[str, Any] = {"site": "h100", "runtime": "transformers", "schemes": ("16bit",), "context": 4096}
    one = planned("qwen3-8b", **asked)
    four = planned("qwen3-8b", **asked, tensor_parallel=2, pipeline_parallel=2)
    assert one["kv_cache_bytes"] == 4 * four["kv_cache_bytes"]
    assert one["weights_bytes"] / 4 < four["weights_bytes"] < one["weights_bytes"] / 3
    assert four["devices"]["count"] == 4


def test_a_plan_that_does_not_fit_gets_a_fix_for_the_same_devices() -> None:
    found = planned("llama-3.1-70b", site="rtx-4090", schemes=("q4_k_m", "q3_k_m"), pipeline_parallel=2, context=8192)
    row = found["candidates"][0]
    assert row["fits"] == "marginal"
    assert row["fixes"][0]["total_bytes"] < row["total_bytes"]
    assert all(change["knob"] != "gpu_layers" for fix in row["fixes"] for change in fix["changes"])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"runtime": "vllm", "tensor_parallel": 3}, "64 heads do not split over 3 devices"),
        ({"tensor_parallel": 2}, "take --pipeline-parallel 2"),
        ({"pipeline_parallel": 81}, "80 layers do not split into 81 stages"),
        ({"pipeline_parallel": 2, "gpu_layers": 10}, "wholly on them"),
        ({"pipeline_parallel": 2, "site": "m4-max"}, "is no GPU"),
        ({"pipeline_parallel": 0}, "at least 1"),
    ],
)
def test_what_does_not_split_is_told_in_a_line(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        planned("llama-3.1-70b", **{"site": "h100", **asked})


def test_the_screen_says_who_holds_what(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-70b", "--site", "h100", "--runtime", "vllm", "--tensor-parallel", "4"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "4 of h100; 4 share every layer, 2 key-value heads each" in out
    assert main([*words[:2], "--site", "h100", "--tensor-parallel", "2", "--train", "lora"]) == 2
    assert "training is planned for one device" in capsys.readouterr().err


def test_a_latent_cache_is_whole_on_each() -> None:
    asked: dict[str, Any] = {"site": "h200", "runtime": "vllm", "schemes": ("fp8",), "context": 4096}
    one, eight = (planned("deepseek-v3", **asked, tensor_parallel=count) for count in (1, 8))
    assert eight["kv_cache_bytes"] == one["kv_cache_bytes"]
    assert eight["devices"]["kv_heads"] is None


def test_a_family_is_weighed_over_several_devices() -> None:
    names, asked = ("llama-3.1-8b", "llama-3.1-70b"), {"site": "h100", "runtime": "vllm", "schemes": ("int8-channel",)}
    found = plan(PlanRequest(models=names, tensor_parallel=2, **asked))  # type: ignore[arg-type]
    longest = {row["model"]: row["longest_context"] for row in found["frontier"] if row["cache"] == "f16"}
    assert found["devices"] == 2
    assert longest["llama-3.1-70b"]
    with pytest.raises(InputError, match=r"llama-3\.1-8b: 32 heads do not split over 3 devices"):
        plan(PlanRequest(models=names, tensor_parallel=3, **asked))  # type: ignore[arg-type]


@pytest.mark.parametrize("runtime", ["llamacpp", "vllm"])
def test_more_of_the_same_gpus_are_proposed(runtime: str) -> None:
    asked = PlanRequest(("llama-3.1-70b",), site="a100-80gb", runtime=runtime, schemes=("16bit",), context=4096)
    found = plan(asked)
    assert found["fits"] == "no"
    kinds = [fix["kind"] for fix in found["fixes"]]
    # A second card is dearer than a smaller model, another site dearer still.
    assert kinds == sorted(kinds, key=CLASSES.index)
    assert {"model", "devices", "site"} <= set(kinds)
    more = found["fixes"][kinds.index("devices")]
    assert "pipeline_parallel" in {change["knob"] for change in more["changes"]}
    after = plan(replace(asked, **{change["knob"]: change["value"] for change in more["changes"]}))
    assert (after["fits"], after["total_bytes"]) == ("yes", more["total_bytes"])


def test_more_devices_come_first_where_nothing_smaller_helps() -> None:
    found = plan(PlanRequest(("deepseek-v3",), site="h200", runtime="vllm", schemes=("int4-g128",)))
    assert [(c["knob"], c["value"]) for c in found["fixes"][0]["changes"]] == [("tensor_parallel", 4)]


def test_a_smaller_scheme_takes_fewer_devices() -> None:
    found = plan(PlanRequest(("deepseek-v3",), site="h200", runtime="vllm", schemes=("fp8",)))
    changes = {c["knob"]: c["value"] for c in found["fixes"][0]["changes"]}
    assert changes == {"scheme": "int4-g128", "tensor_parallel": 4}


def test_no_more_devices_than_the_site_has(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text('name = "two"\nkind = "gpu"\nmemory_bytes = 85899345920\ndevices = 2\n')
    found = plan(PlanRequest(("deepseek-v3",), site=str(tmp_path / "two.toml"), runtime="vllm", schemes=("fp8",)))
    assert {fix["kind"] for fix in found["fixes"]} == {"site"}
