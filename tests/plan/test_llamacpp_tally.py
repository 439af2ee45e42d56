"""Sums by layer against going over all tensors for every split, which is what they spare."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import pytest

from quantwise.formats.gguf.header import GgufTensor
from quantwise.plan.constants import XLLAMACPP_2026_10
from quantwise.plan.llamacpp.file import is_repacked, mapped_bytes, repacked_bytes, tensors_of_mix, tied_bytes
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.llamacpp.tally import tally
from quantwise.plan.offload import split_layers
from quantwise.testing.blank_gguf import BlankModel

BUILD = XLLAMACPP_2026_10
DENSE = BlankModel(hidden=1024, layers=6, heads=16, kv_heads=4, feed_forward=3072, vocab=32768)
MODELS = [DENSE, replace(DENSE, tied=True), replace(DENSE, architecture="qwen3moe", experts=8, experts_used=2)]


def padded(tensor: GgufTensor) -> int:
    return -(-tensor.bytes // 32) * 32


def lies_on_gpu(tensor: GgufTensor, layers: int, settings: LlamacppSettings) -> bool:
    if not tensor.name.startswith("blk."):
        return settings.gpu_layers > 0 and not tensor.name.startswith("token_embd")
    number = int(tensor.name.split(".")[1])
    if "_exps." in tensor.name and number < settings.experts_on_cpu:
        return False
    return number >= layers + 1 - settings.gpu_layers


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("layers", [0, 1, 4, 7])
@pytest.mark.parametrize("experts", [0, 3])
def test_a_split_is_the_sum_over_its_tensors(model: BlankModel, layers: int, experts: int) -> None:
    decoder, tensors = model.decoder(), tensors_of_mix(model.decoder(), model.mix)
    settings = LlamacppSettings(2048, gpu_layers=layers, experts_on_cpu=experts)
    found = split_layers(decoder, tally(decoder, tensors, BUILD), settings, BUILD)
    gpu = [t for t in tensors if lies_on_gpu(t, len(decoder.layers), settings)]
    cpu = [t for t in tensors if not lies_on_gpu(t, len(decoder.layers), settings)]
    held = {(t.name, t.device): t.low for t in found.memory.terms}
    assert held["weights", "cpu"] == sum(t.bytes for t in cpu)
    assert held.get(("weights", "gpu"), 0) == (sum(t.bytes for t in gpu) + tied_bytes(tensors) if layers else 0)
    apart = sum(t.bytes for t in cpu if is_repacked(t, BUILD))
    assert held["repacked", "cpu"] == (apart if layers else repacked_bytes(tensors, BUILD))
    # Where the driver pins host memory, nothing is repacked: that is what a build says which repacks no type.
    pinned = tally(decoder, tensors, replace(BUILD, repacked=frozenset()))
    beside = split_layers(decoder, pinned, settings, BUILD)
    assert next(t.low for t in beside.memory.terms if t.name == "repacked") == 0
    read = {t.name: t.bytes // decoder.vocab if t.name == "token_embd.weight" else t.bytes for t in tensors}
    read |= {t.name: t.bytes * 2 // 8 for t in tensors if "_exps." in t.name}
    tied = tied_bytes(tensors)
    assert found.read_cpu == sum(read[t.name] for t in cpu) + (0 if layers else tied)
    assert found.read_gpu == sum(read[t.name] for t in gpu) + (tied if layers else 0)
    matrices = sum(t.bytes for t in cpu if len(t.shape) > 1 and t.name != "token_embd.weight")
    assert found.prompt_crossing >= (matrices if layers else 0)
    assert found.prompt_crossing - (matrices if layers else 0) < 1 << 24


@pytest.mark.parametrize("model", MODELS)
def test_a_file_that_stays_with_the_processor(model: BlankModel) -> None:
    tensors = tensors_of_mix(model.decoder(), model.mix)
    found = tally(model.decoder(), tensors, BUILD)
    assert (found.mapped, found.repacked) == (mapped_bytes(tensors, BUILD), repacked_bytes(tensors, BUILD))
    ends = list(accumulate(padded(t) for t in tensors))
    used = [i for i, tensor in enumerate(tensors) if not is_repacked(tensor, BUILD)]
    start, end = ends[used[0]] - padded(tensors[used[0]]), ends[used[-1]]
    inside = [t for t, last in zip(tensors, ends, strict=True) if is_repacked(t, BUILD) and start < last < end]
    assert found.read_once == sum(map(padded, inside))
    assert found.mapped - found.read_once == pytest.approx(sum(tensors[i].bytes for i in used), abs=32 * len(tensors))
    assert bool(found.read_once) == bool(found.repacked)
    parts = (*found.layers.values(), *found.experts.values(), found.embedding, found.outside)
    assert sum(part.bytes for part in parts) == sum(tensor.bytes for tensor in tensors)
