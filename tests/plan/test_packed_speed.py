"""What is planned of packed weights in Transformers: fewer bytes to read, and no time where they are widened."""

from __future__ import annotations

from typing import Any

import pytest

from quantwise.core.loads import expands
from quantwise.core.packing import NARROW_ROWS, kernel_group
from quantwise.core.scheme import parse_scheme
from quantwise.models.stored_scheme import expanded_because
from quantwise.plan.layer_bytes import packed_layer_bytes
from quantwise.planning import PlanRequest, plan


def planned(scheme: str, concurrency: int, **asked: Any) -> dict[str, Any]:
    return plan(
        PlanRequest(
            models=("llama-3.1-8b",), schemes=(scheme,), runtime="transformers", site="x86-amx", context=512,
            concurrency=concurrency, **asked,
        )
    )  # fmt: skip


def test_fewer_bytes_are_read_at_few_requests_and_no_time_is_told_at_many() -> None:
    whole = planned("16bit", 1)
    for scheme, bits in (("rtn:int8-channel", 8), ("rtn:int4-g128", 4)):
        found = planned(scheme, 1)
        assert found["weights_bytes"] < (0.65 if bits == 8 else 0.45) * whole["weights_bytes"]
        assert found["decode_tokens_per_s"][1] > 1.5 * whole["decode_tokens_per_s"][1]
        rows = NARROW_ROWS[bits]
        assert planned(scheme, rows)["decode_tokens_per_s"] is not None
        wide = planned(scheme, rows + 1)
        assert wide["decode_tokens_per_s"] is None
        assert any("Transformers widens packed weights" in note for note in wide["notes"])
    for scheme in ("16bit", "rtn:int3-g64", "nf4-dq"):
        assert planned(scheme, 64)["decode_tokens_per_s"] is not None


def test_bytes_by_hand() -> None:
    assert packed_layer_bytes(10, 33, parse_scheme("int8-channel")) == 10 * 48 + 20
    # 100 rows are filled to 128; two groups of 128.
    assert packed_layer_bytes(100, 256, parse_scheme("int4-g128")) == 128 * 128 + 2 * 128 * 4
    assert packed_layer_bytes(100, 256, parse_scheme("int4-g128-asym")) == 128 * 128 + 2 * 128 * 6
    assert packed_layer_bytes(64, 1024, parse_scheme("int4-channel")) == 64 * 512 + 4 * 64 * 4
    assert packed_layer_bytes(64, 100, parse_scheme("int4-g64")) is None
    assert [kernel_group(n) for n in (32, 96, 128, 512, 1000)] == [32, 32, 128, 256, None]


@pytest.mark.parametrize(
    ("scheme", "why"),
    [
        ("int8-channel", None), ("int8-tensor", None), ("int4-g32", None), ("int4-g128-asym", None), ("w8a8", None),
        ("w8a8-static", None), ("layerwise-int4-channel", None), ("int8-g64", "one scale per channel"),
        ("int8-channel-asym", "without zero points"), ("int3-g64", "3 bits"), ("int2-channel", "2 bits"),
        ("w4a8", "4-bit weights and eight-bit inputs"), ("fp8", "FP8"), ("layerwise-int4-g64", "one scale per channel"),
        ("layerwise-w4a8", "4-bit weights"),
    ],
)  # fmt: skip
def test_what_is_expanded_and_why(scheme: str, why: str | None) -> None:
    found = expands("transformers", parse_scheme(scheme))
    assert (found is None) if why is None else (found is not None and why in found)
    assert expands("vllm", parse_scheme(scheme)) is None


def test_of_a_folder_every_group_has_to_have_a_kernel() -> None:
    def group(bits: int, size: int) -> dict[str, Any]:
        weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": size, "symmetric": True}
        return {"weights": weights, "input_activations": None}

    settings: dict[str, Any] = {"quant_method": "compressed-tensors", "config_groups": {"a": group(4, 64)}}
    assert expanded_because(settings) is None
    settings["config_groups"]["b"] = group(8, 64)
    assert "one scale per channel" in str(expanded_because(settings))
    assert "no groups of 24" in str(expanded_because({"quant_method": "gptq", "bits": 4, "group_size": 24}))
    assert expanded_because({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}) is None
    assert "does not say" in str(expanded_because({"quant_method": "gptq"}))
    assert expanded_because({}) is None
    assert expanded_because({"quant_method": "bitsandbytes"}) is None
