"""The table of floating-point types against torch's own."""

import pytest
import torch

from quantwise.grids.floats import FLOAT_TYPES, FloatType

OF_TORCH = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8-e4m3": torch.float8_e4m3fn,
    "fp8-e5m2": torch.float8_e5m2,
}


@pytest.mark.parametrize("kind", FLOAT_TYPES, ids=lambda kind: kind.name)
def test_range_and_precision(kind: FloatType) -> None:
    theirs = torch.finfo(OF_TORCH[kind.name])
    assert kind.bits == theirs.bits
    assert kind.largest == theirs.max
    assert kind.smallest_normal == theirs.tiny
    assert kind.step == theirs.eps
    smallest = torch.tensor([1], dtype={8: torch.uint8, 16: torch.int16, 32: torch.int32}[kind.bits])
    assert kind.smallest == smallest.view(OF_TORCH[kind.name]).item()
