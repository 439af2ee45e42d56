"""Presets against what the hub shows: the exact count of parameters of each model's weights."""

from __future__ import annotations

import math

import pytest

from quantwise.core.errors import InputError
from quantwise.models.presets import PRESETS, preset_decoder

# The count that the hub shows under "Safetensors" on a model's page (Pythia: appendix A of arXiv 2304.01373), where a
# tied matrix counts once. Not fetched by a program but known, some of them looked up in public records of others: a
# wrong digit here or in a config would show.
PUBLISHED = {
    "llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320, "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248, "llama-3-70b": 70_553_706_496, "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496, "llama-3.1-405b": 405_853_388_800, "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824, "llama-3.3-70b": 70_553_706_496, "codellama-34b": 33_743_970_304,
    "tinyllama-1.1b": 1_100_048_384, "smollm2-135m": 134_515_008, "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384, "yi-6b": 6_061_035_520, "yi-34b": 34_388_917_248, "solar-10.7b": 10_731_524_096,
    "falcon3-1b": 1_669_408_768, "falcon3-3b": 3_227_655_168, "falcon3-7b": 7_455_550_464,
    "falcon3-10b": 10_305_653_760, "mistral-7b-v0.1": 7_241_732_096, "mistral-7b": 7_248_023_552,
    "mistral-7b-v0.3": 7_248_023_552, "mistral-nemo-12b": 12_247_782_400, "mistral-small-24b": 23_572_403_200,
    "mistral-large-2407": 122_610_069_504, "codestral-22b": 22_247_282_688, "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_630_071_296, "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688, "qwen2.5-7b": 7_615_616_512, "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352, "qwen2.5-72b": 72_706_203_648, "qwq-32b": 32_763_876_352,
    "qwen3-0.6b": 596_049_920, "qwen3-1.7b": 1_720_574_976, "qwen3-4b": 4_022_468_096, "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200, "qwen3-32b": 32_762_123_264, "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560, "qwen1.5-moe-a2.7b": 14_315_784_192, "qwen3-next-80b-a3b": 79_674_391_296,
    "gemma-2b": 2_506_172_416, "gemma-7b": 8_537_680_896, "gemma-2-2b": 2_614_341_888, "gemma-2-9b": 9_241_705_984,
    "gemma-2-27b": 27_227_128_320, "gemma-3-270m": 268_098_176, "gemma-3-1b": 999_885_952,
    "phi-3-mini-4k": 3_821_079_552, "phi-3-mini-128k": 3_821_079_552, "phi-3-medium-4k": 13_960_238_080,
    "phi-3.5-mini": 3_821_079_552, "phi-4": 14_659_507_200, "phi-4-mini": 3_836_021_760, "phi-1.5": 1_418_270_720,
    "phi-2": 2_779_683_840, "phi-3.5-moe": 41_873_153_344, "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v2": 235_741_434_880, "deepseek-v3": 671_026_419_200, "deepseek-r1": 671_026_419_200,
    "kimi-k2": 1_026_408_232_448, "gpt-oss-20b": 20_914_757_184, "gpt-oss-120b": 116_829_156_672,
    "olmo-1b": 1_176_764_416, "olmo-7b": 6_888_095_744, "olmo-2-1b": 1_484_916_736, "olmo-2-7b": 7_298_617_344,
    "olmo-2-13b": 13_716_198_400, "olmo-2-32b": 32_234_279_936, "olmoe-1b-7b": 6_919_161_856,
    "granite-3.3-2b": 2_533_539_840, "granite-3.3-8b": 8_170_864_640, "smollm3-3b": 3_075_098_624,
    "seed-oss-36b": 36_151_104_512, "starcoder2-3b": 3_030_371_328, "starcoder2-7b": 7_173_923_840,
    "starcoder2-15b": 15_957_889_024, "pythia-70m": 70_426_624, "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016, "pythia-1b": 1_011_781_632, "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960, "pythia-6.9b": 6_857_302_016, "pythia-12b": 11_846_072_320, "opt-125m": 125_239_296,
    "opt-1.3b": 1_315_758_080, "opt-6.7b": 6_658_473_984, "command-r": 34_980_831_232,
    "command-r-plus": 103_810_674_688, "command-r7b": 8_028_033_024, "stablelm-2-1.6b": 1_644_515_328,
    "stablelm-3b": 2_795_443_200, "falcon-7b": 6_921_720_704, "falcon-40b": 41_303_293_952,
    "jamba-v0.1": 51_570_323_328, "mamba-130m": 129_135_360, "mamba-2.8b": 2_768_345_600, "lfm2-350m": 354_483_968,
    "lfm2-700m": 742_489_344, "lfm2-1.2b": 1_170_340_608,
    "qwen3-coder-480b-a35b": 480_154_875_392, "qwen3.5-0.8b": 752_393_024, "qwen3.5-2b": 1_881_825_088,
    "qwen3.5-4b": 4_205_751_296, "qwen3.5-9b": 8_953_803_264, "qwen3.5-27b": 26_895_998_464,
    "qwen3.5-35b-a3b": 34_660_610_688, "glm-4-9b": 9_400_279_040, "glm-4-32b": 32_566_081_536,
    "glm-4.5-air": 106_852_251_264, "glm-4.5": 352_797_829_024, "minimax-m2": 228_689_764_864,
    "olmo-3-7b": 7_298_011_136, "olmo-3-32b": 32_233_522_176,
    # As llama.cpp prints them, less the 256 numbers of its rope_freqs.
    "gemma-4-26b-a4b": 25_233_142_046 - 256, "gemma-4-31b": 30_697_345_596 - 256,
}  # fmt: skip
# With a vision part: SigLIP and its projector in Gemma 3 (416,866,032 and 1152 * hidden + 1152); that of Llama 4 was
# not counted but is the same number in both models.
WITH_VISION = {
    "gemma-3-4b": (4_300_079_472, 416_866_032 + 1152 * 2560 + 1152),
    "gemma-3-12b": (12_187_325_040, 416_866_032 + 1152 * 3840 + 1152),
    "gemma-3-27b": (27_432_406_640, 416_866_032 + 1152 * 5376 + 1152),
    "llama-4-scout": (108_641_793_536, 871_932_416),
    "llama-4-maverick": (401_583_781_376, 871_932_416),
}


def parameters(name: str) -> int:
    return sum(map(math.prod, preset_decoder(name).tensors.values()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    assert parameters(name) == PUBLISHED[name]


@pytest.mark.parametrize("name", WITH_VISION)
def test_the_language_part_is_what_the_vision_part_leaves(name: str) -> None:
    whole, vision = WITH_VISION[name]
    assert parameters(name) == whole - vision


def test_every_preset_was_counted_and_names_its_source() -> None:
    assert set(PRESETS) == set(PUBLISHED) | set(WITH_VISION)
    for preset in PRESETS.values():
        assert preset.name == preset.name.lower()
        assert len(preset.source.split("/")) == 2


def test_what_a_layer_keeps_and_uses() -> None:
    seventy = preset_decoder("llama-3.1-70b").layers[0].attention
    assert seventy is not None
    assert (seventy.heads, seventy.kv_heads, seventy.key_dim, seventy.window) == (64, 8, 128, None)
    gemma = [layer.attention for layer in preset_decoder("gemma-3-27b").layers]
    assert [a.window for a in gemma if a] == [1024 if (n + 1) % 6 else None for n in range(62)]
    deepseek = preset_decoder("deepseek-v3").layers
    assert [layer.experts for layer in deepseek] == [0] * 3 + [256] * 58
    assert {layer.attention.latent for layer in deepseek if layer.attention} == {576}
    assert (deepseek[0].feed_forward, deepseek[3].feed_forward, deepseek[3].experts_used) == (18432, 2048, 8)
    nexts = preset_decoder("qwen3-next-80b-a3b").layers
    assert [layer.attention is None for layer in nexts] == [True, True, True, False] * 12
    assert {layer.state for layer in nexts} == {0, 32 * 128 * 128 + (2 * 16 * 128 + 32 * 128) * 3}
    scout = [layer.attention for layer in preset_decoder("Llama-4-Scout").layers]
    assert [a.window for a in scout if a] == [8192, 8192, 8192, None] * 12


def test_an_unknown_preset_is_answered_with_its_kin() -> None:
    with pytest.raises(InputError, match=r"unknown preset 'qwen3-9b'; there are .*qwen3-8b") as caught:
        preset_decoder("qwen3-9b")
    assert "\n" not in str(caught.value)
