from __future__ import annotations

import pytest

from quantwise.models.presets import preset_decoder
from quantwise.plan.constants import LLAMACPP_BUILDS
from quantwise.plan.llamacpp import graph, model
from quantwise.plan.llamacpp.layers import enough_layers
from quantwise.plan.llamacpp.replay import buffer_bytes
from quantwise.plan.llamacpp.settings import LlamacppSettings


def test_a_deep_model_is_cut_in_whole_pairs_of_periods() -> None:
    assert enough_layers("a" * 12) == list(range(12))
    kept = enough_layers("a" * 81)
    assert len(kept) < 12
    assert len(kept) % 2 == 81 % 2
    assert kept[-1] == 80
    pattern = ("b" * 5 + "a") * 10 + "bb"
    kept = enough_layers(pattern)
    assert (62 - len(kept)) % 6 == 0
    assert len(kept) < 24
    # What is left still follows the pattern.
    assert "".join(pattern[n] for n in kept) == pattern[: len(kept)]


def test_what_stands_apart_is_kept() -> None:
    kept = enough_layers("ddd" + "m" * 58)
    assert kept[:4] == [0, 1, 2, 3]
    assert len(kept) < 14
    assert enough_layers([*range(40)]) == list(range(40))


@pytest.mark.parametrize("preset", ["llama-3.1-70b", "gemma-3-27b", "gpt-oss-20b", "deepseek-v2-lite", "qwen3-8b"])
@pytest.mark.parametrize("settings", [LlamacppSettings(2048), LlamacppSettings(1000, 3, flash_attention=False)])
def test_it_is_what_all_layers_take(preset: str, settings: LlamacppSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = preset_decoder(preset)
    few = [buffer_bytes(graph.graph_of(decoder, settings, build)) for build in LLAMACPP_BUILDS]
    monkeypatch.setattr(model, "enough_layers", lambda kinds: list(range(len(kinds))))
    assert few == [buffer_bytes(graph.graph_of(decoder, settings, build)) for build in LLAMACPP_BUILDS]
