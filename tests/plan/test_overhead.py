from __future__ import annotations

import pytest

from quantwise.plan.overhead import PROCESS_BYTES, overhead_bytes

STORIES = {"hidden": 64, "intermediate": 172, "vocab": 512}
BABYLLAMA = {"hidden": 128, "intermediate": 352, "vocab": 105}


@pytest.mark.parametrize(
    ("model", "context", "concurrency", "logged"),
    [
        # Compute buffers that llama.cpp logged for these models (f16, flash attention on its own choice).
        (STORIES, 512, 4, 2_264_924),
        (STORIES, 1024, 1, 2_778_726),
        (STORIES, 1024, 4, 2_789_212),
        (STORIES, 2048, 2, 3_827_302),
        (BABYLLAMA, 1024, 4, 4_540_334),
        (BABYLLAMA, 2048, 2, 5_588_910),
    ],
)
def test_llamacpps_compute_buffer(model: dict[str, int], context: int, concurrency: int, logged: int) -> None:
    found = overhead_bytes("llamacpp", **model, context=context, concurrency=concurrency)
    assert found is not None
    assert found - PROCESS_BYTES["llamacpp"] == pytest.approx(logged, rel=0.03)


def test_transformers_grows_with_the_batch_and_llamacpp_does_not() -> None:
    def of(runtime: str, concurrency: int) -> int:
        return overhead_bytes(runtime, **STORIES, context=1024, concurrency=concurrency) or 0

    base = PROCESS_BYTES["transformers"]
    assert of("transformers", 8) - base == 8 * (of("transformers", 1) - base)
    assert of("llamacpp", 8) == of("llamacpp", 1)


def test_a_large_vocabulary_takes_the_larger_reservation() -> None:
    sizes = {"hidden": 2048, "intermediate": 11008, "vocab": 151936}
    found = overhead_bytes("llamacpp", **sizes, context=512, concurrency=1)
    assert found == PROCESS_BYTES["llamacpp"] + 4 * 512 * (151936 + 2048) + 2 * 512 * 512


def test_a_server_of_others_is_unknown() -> None:
    assert overhead_bytes("openai", **STORIES, context=512, concurrency=1) is None
