"""Masks and rotary embeddings are kept once for all batches, and change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import TEXTS, write_tiny

from quantwise.build import stream
from quantwise.build.calibration import calibrate
from quantwise.build.shared_calls import SharedCalls
from quantwise.build.skeleton import Skeleton
from quantwise.build.stream import walk_blocks
from quantwise.formats.safetensors_folder import ModelFolder


class Unshared:
    """Every batch keeps its own."""

    bytes = 0

    def share(self, calls: list[dict[str, object]]) -> list[dict[str, object]]:
        return calls


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gemma3_text"])
def test_what_layers_see_is_the_same(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 8 tokens; Gemma 2 runs eagerly, the others do not."""
    write_tiny(tmp_path, kind)
    skeleton = Skeleton(ModelFolder(tmp_path))
    texts = [text[: 40 + 17 * i] for i, text in enumerate(TEXTS)]
    batches = list(calibrate(tmp_path, texts, 100, 0).batches(256))
    assert len({batch.ids.shape for batch in batches}) > 2
    shared = list(walk_blocks(skeleton, batches))
    monkeypatch.setattr(stream, "SharedCalls", Unshared)
    alone = list(walk_blocks(skeleton, batches))
    for one, other in zip(shared, alone, strict=True):
        assert one.keys() == other.keys()
        for name, seen in one.items():
            assert torch.equal(seen.values["hessian"], other[name].values["hessian"]), name


def test_shorter_calls_are_views_of_the_longest() -> None:
    shared = SharedCalls()

    def call(rows: int, length: int) -> dict[str, object]:
        mask = torch.ones(length, length).tril().log()[None, None].expand(rows, 1, length, length).contiguous()
        turns = torch.arange(length).float()[None, :, None] * torch.ones(1, 1, 8)
        return {"attention_mask": mask, "position_embeddings": (turns.cos(), turns.sin()), "use_cache": False}

    given = [call(2, 50), call(3, 31), call(5, 20), call(7, 50)]
    found = [shared.share([one, one]) for one in given]
    assert shared.bytes == 4 * (50 * 50 + 2 * 50 * 8)
    for one, (first, second) in zip(given, found, strict=True):
        assert first["attention_mask"] is second["attention_mask"]
        assert torch.equal(first["attention_mask"], one["attention_mask"])
        for kept, whole in zip(first["position_embeddings"], one["position_embeddings"], strict=True):
            assert torch.equal(kept, whole)
        assert first["use_cache"] is False


def test_what_is_no_beginning_of_another_is_kept_itself() -> None:
    shared = SharedCalls()
    (one,) = shared.share([{"x": torch.arange(6.0).reshape(2, 3)}])
    (other,) = shared.share([{"x": torch.arange(1.0, 5.0).reshape(2, 2)}])
    (whole,) = shared.share([{"x": torch.arange(6).reshape(2, 3)}])
    assert torch.equal(one["x"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(other["x"], torch.arange(1.0, 5.0).reshape(2, 2))
    assert whole["x"].dtype == torch.int64
    assert shared.bytes == 4 * 6 + 4 * 4 + 8 * 6
