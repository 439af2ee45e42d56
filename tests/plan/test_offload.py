from __future__ import annotations

from dataclasses import replace

import pytest

from quantwise.plan.constants import XLLAMACPP_2026_10
from quantwise.plan.llamacpp.cache import llamacpp_cache
from quantwise.plan.llamacpp.file import tensors_of_mix
from quantwise.plan.llamacpp.memory import llamacpp_memory
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.llamacpp.tally import FileTally, tally
from quantwise.plan.offload import LayerSplit, fewest_experts_on_cpu, largest_gpu_layers, split_layers
from quantwise.testing.blank_gguf import BlankModel

GIB = 1 << 30
MODEL = BlankModel(hidden=1024, layers=6, heads=16, kv_heads=4, feed_forward=3072, vocab=32768)
TIED = replace(MODEL, tied=True)
MOE = replace(MODEL, architecture="qwen3moe", experts=8, experts_used=2, feed_forward=768)
SETTINGS = LlamacppSettings(4096, 2)


def planned(model: BlankModel, layers: int, experts_on_cpu: int = 0) -> LayerSplit:
    settings = replace(SETTINGS, gpu_layers=layers, experts_on_cpu=experts_on_cpu)
    return split_layers(model.decoder(), tally_of(model), settings)


def tally_of(model: BlankModel) -> FileTally:
    return tally(model.decoder(), tensors_of_mix(model.decoder(), model.mix), XLLAMACPP_2026_10)


def weights(found: LayerSplit, device: str) -> int:
    return sum(term.low for term in found.memory.terms if (term.name, term.device) == ("weights", device))


def test_without_layers_on_the_gpu_nothing_is_there_or_crosses() -> None:
    found = planned(MODEL, 0)
    assert found.memory.on("gpu") == (0, 0)
    assert found.crossing == found.prompt_crossing == found.read_gpu == 0
    alone = llamacpp_memory(MODEL.decoder(), tally_of(MODEL), SETTINGS)
    assert found.memory.on("cpu")[0] == pytest.approx(alone.on("cpu")[0], rel=1e-6)


def test_every_layer_moves_its_weights_and_its_cache() -> None:
    stored = MODEL.stored
    whole, cache = sum(stored.values()), llamacpp_cache(MODEL.decoder(), SETTINGS).total
    for layers in range(8):
        found = planned(MODEL, layers)
        on_gpu = [n for n in range(6) if n >= 7 - layers]
        expected = sum(b for name, b in stored.items() if any(name.startswith(f"blk.{n}.") for n in on_gpu))
        if layers:
            expected += stored["output.weight"] + stored["output_norm.weight"]
        assert weights(found, "gpu") == expected
        assert weights(found, "cpu") + weights(found, "gpu") == whole
        assert found.memory.of("cache")[0] == cache
        gpu_cache = sum(t.low for t in found.memory.terms if (t.name, t.device) == ("cache", "gpu"))
        assert gpu_cache == cache * len(on_gpu) // 6


def test_a_tied_output_is_copied() -> None:
    found = planned(TIED, 7)
    assert weights(found, "cpu") == TIED.stored["token_embd.weight"]
    assert weights(found, "cpu") + weights(found, "gpu") == sum(TIED.stored.values()) + TIED.stored["token_embd.weight"]


def test_experts_that_stay_behind() -> None:
    whole, some = planned(MOE, 7), planned(MOE, 7, experts_on_cpu=2)
    experts = sum(b for n, b in MOE.stored.items() if "_exps." in n and n.startswith(("blk.0.", "blk.1.")))
    assert weights(whole, "gpu") - weights(some, "gpu") == experts
    # There and back around two layers, in float32; two of eight experts are read.
    assert some.crossing - whole.crossing == 2 * 2 * 4 * 1024
    assert some.read_cpu - whole.read_cpu == pytest.approx(experts / 4, rel=0.001)
    assert some.read_cpu + some.read_gpu == whole.read_cpu + whole.read_gpu
    assert some.prompt_crossing - whole.prompt_crossing == experts + 2 * 2 * 4 * 1024 * 512


@pytest.mark.parametrize("model", [MODEL, TIED, MOE])
def test_the_largest_that_fits(model: BlankModel) -> None:
    file = tally_of(model)
    for gpu in (GIB // 2, 600 << 20, 650 << 20, 700 << 20, GIB, 4 * GIB):
        layers = largest_gpu_layers(model.decoder(), file, SETTINGS, gpu)
        if layers:
            assert planned(model, layers).memory.on("gpu")[1] <= gpu
        if layers < 7:
            assert planned(model, layers + 1).memory.on("gpu")[1] > gpu
    assert largest_gpu_layers(model.decoder(), file, SETTINGS, 4 * GIB) == 7
    assert largest_gpu_layers(model.decoder(), file, SETTINGS, 1 << 20) == 0


def test_the_fewest_experts_that_must_stay() -> None:
    file = tally_of(MOE)
    need = [planned(MOE, 7, kept).memory.on("gpu")[1] for kept in range(7)]
    assert sorted(need, reverse=True) == need
    for kept in range(7):
        assert fewest_experts_on_cpu(MOE.decoder(), file, SETTINGS, need[kept]) == kept
    assert fewest_experts_on_cpu(MOE.decoder(), file, SETTINGS, need[6] - 1) is None
