"""Bytes of weights: the folklore's figures, llama.cpp's own table, published totals, and what the builders write."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.core.scheme import FIXED_SCHEMES, parse_scheme
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.safetensors_header import read_folder
from quantwise.models.presets import preset_decoder
from quantwise.plan.decoder_weights import decoder_weights, raw_bytes
from quantwise.plan.gguf_file import gguf_bytes
from quantwise.plan.gguf_names import as_llamacpp_attends
from quantwise.plan.layer_bytes import stored_layer_bytes
from quantwise.plan.model_source import read_decoder, read_folder_decoder, read_source
from quantwise.plan.weight_scheme import parse_weight_scheme
from quantwise.plan.weight_table import weight_table
from quantwise.plan.weights import artifact_bytes, gguf_data_bytes
from tiny_families import write_tiny


@pytest.mark.parametrize(
    ("billions", "bits", "gigabytes"),
    [(size, bits, size * bits / 8) for size in (7, 13, 70) for bits in (32, 16, 8, 4)],
)
def test_the_folklore_to_the_digit(billions: int, bits: int, gigabytes: float) -> None:
    assert raw_bytes(billions * 10**9, bits) == gigabytes * 1e9


def test_raw_and_effective_are_two_figures() -> None:
    seven = preset_decoder("llama-2-7b")
    for scheme, bits in (("fp32", 32), ("16bit", 16), ("int8-channel", 8), ("int4-g128", 4), ("q4_k_m", 4), ("nf4", 4)):
        weights = decoder_weights(seven, scheme)
        assert weights.raw == 6_738_415_616 * bits // 8
        assert (weights.effective == weights.raw) == (bits > 8)
        assert weights.effective >= weights.raw
    # 7B in 4 bit: 3.4 GB of codes, and 3.9 with scales (and 16 bytes of shape a matrix) and what stays in 16 bit.
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    scales, shapes, rest = 2 * matrices // 128, 16 * 7 * 32, 2 * (6_738_415_616 - matrices)
    assert decoder_weights(seven, "int4-g128").effective == matrices // 2 + scales + shapes + rest


# Bits per weight of Llama 3.1 8B in llama.cpp's tools/quantize/README.md.
LLAMACPP_SAYS = {
    "q2_k": 3.1593, "q3_k_s": 3.6429, "q3_k_m": 3.9960, "q3_k_l": 4.2979, "q4_k_s": 4.6672, "q4_k_m": 4.8944,
    "q5_k_s": 5.5704, "q5_k_m": 5.7036, "q6_k": 6.5633, "q8_0": 8.5008, "f16": 16.0005, "iq1_s": 2.0042,
    "iq1_m": 2.1460, "iq2_xxs": 2.3824, "iq2_xs": 2.5882, "iq2_s": 2.7403, "iq2_m": 2.9294, "q2_k_s": 2.9697,
    "iq3_xxs": 3.2548, "iq3_xs": 3.4977, "iq3_s": 3.6606, "iq3_m": 3.7628, "iq4_xs": 4.4597, "iq4_nl": 4.6818,
}  # fmt: skip


@pytest.mark.parametrize("mix", LLAMACPP_SAYS)
def test_every_mix_of_a_published_model_has_the_bits_that_llamacpp_prints(mix: str) -> None:
    weights = decoder_weights(preset_decoder("llama-3.1-8b"), mix, rope_factors=64)
    assert round(weights.bits_per_weight, 4) == LLAMACPP_SAYS[mix]
    assert weights.exact


# What llama-bench prints of files that others made ("size"), found in public records.
LLAMABENCH_SAYS = [
    ("granite-3.3-2b", "q4_k_m", 1.44), ("phi-4", "q4_k_m", 8.43), ("phi-4-mini", "q4_k_m", 2.31),
    ("deepseek-v2-lite", "q4_k_m", 9.65), ("gpt-oss-20b", "mxfp4_moe", 11.27), ("gpt-oss-120b", "mxfp4_moe", 59.02),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mix", "gibibytes"), LLAMABENCH_SAYS)
def test_files_that_others_made_have_the_planned_size(name: str, mix: str, gibibytes: float) -> None:
    found = read_source(name)
    weights = decoder_weights(found.decoder, mix, rope_factors=found.rope_factors)
    assert round(weights.effective / 2**30, 2) == gibibytes


def test_a_file_that_others_made_to_the_byte() -> None:
    # Granite 3.3 2B in IQ4_XS: "model_size" 1395281392 of 2533539840 parameters.
    assert decoder_weights(preset_decoder("granite-3.3-2b"), "iq4_xs").effective == 1_395_281_392


@pytest.mark.parametrize(("name", "total"), [("gpt-oss-20b", 13_761_264_768), ("gpt-oss-120b", 65_248_815_744)])
def test_gpt_oss_as_it_is_published(name: str, total: int) -> None:
    # "total_size" in model.safetensors.index.json of openai/gpt-oss-*.
    assert decoder_weights(preset_decoder(name), "mxfp4-experts").effective == total


@pytest.mark.parametrize(
    ("name", "billions", "digits"),
    # Cards and papers; all but gpt-oss (arXiv 2508.10925) and Kimi K2 count the embedding, of which one row is read.
    [("gpt-oss-20b", 3.61, 2), ("gpt-oss-120b", 5.13, 2), ("mixtral-8x7b", 12.9, 1), ("deepseek-v3", 37, 0),
     ("qwen3-30b-a3b", 3.3, 1), ("qwen3-235b-a22b", 22, 0), ("kimi-k2", 32, 0), ("llama-4-scout", 17, 0)],
)  # fmt: skip
def test_active_parameters_of_mixtures(name: str, billions: float, digits: int) -> None:
    decoder = preset_decoder(name)
    embedding = 0 if name.startswith(("gpt-oss", "kimi")) else decoder.vocab * decoder.hidden
    active = decoder_weights(decoder, "16bit").active_parameters + embedding
    assert active / 1e9 == pytest.approx(billions, abs=0.6 * 10**-digits)


def test_what_a_token_reads_of_dense_models() -> None:
    eight, one = (decoder_weights(preset_decoder(f"llama-{name}"), "16bit") for name in ("3.1-8b", "3.2-1b"))
    assert eight.effective - eight.active == 2 * (128256 - 1) * 4096
    # The embedding is the output matrix there, which is read whole.
    assert one.active == one.effective
    assert (eight.second_copy, one.second_copy) == (0, 0)
    assert decoder_weights(preset_decoder("llama-3.2-1b"), "q8_0").second_copy == 128256 * 2048 // 32 * 34


def test_what_stays_in_sixteen_bit() -> None:
    decoder = preset_decoder("qwen3-30b-a3b")
    table = {tensor.name: tensor for tensor in weight_table(decoder, "int4-g128")}
    assert table["model.layers.3.mlp.gate.weight"].type == "16bit"
    experts = table["model.layers.3.mlp.experts.0.up_proj.weight"]
    assert (experts.type, experts.count) == ("int4-g128", 128)
    assert table["lm_head.weight"].bytes == 2 * 151936 * 2048
    weights = decoder_weights(decoder, "int4-g128")
    assert weights.unquantized == sum(t.bytes for t in table.values() if t.type == "16bit")


@pytest.mark.parametrize("ggml", ["iq4_xs", "iq3_xxs", "iq2_s", "iq1_m", "tq1_0", "tq2_0", "mxfp4", "iq4_nl", "q4_k"])
def test_uniform_types(ggml: str) -> None:
    gguf = pytest.importorskip("gguf")
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[ggml.upper()]]
    decoder = preset_decoder("llama-3.1-8b")
    matrices = sum(math.prod(shape) for shape in decoder.tensors.values() if len(shape) == 2)
    vectors = sum(math.prod(shape) for shape in decoder.tensors.values() if len(shape) == 1)
    weights = decoder_weights(decoder, f"uniform-{ggml}")
    assert weights.effective == matrices // block * size + 4 * vectors
    assert not weights.exact
    assert "mix and are larger" in weights.source


def test_every_scheme_plans_every_preset() -> None:
    names = [
        *FIXED_SCHEMES,
        "int3-g32-asym",
        "rtn:int4-g128,layout=gptq",
        "rtn:int4-g64,layout=awq",
        "awq+rtn:int4-g128",
    ]
    for scheme in [*names, "fp32", "uniform-iq4_xs"]:
        for name in ("llama-3.1-8b", "gpt-oss-20b", "jamba-v0.1", "opt-1.3b", "falcon-7b"):
            weights = decoder_weights(preset_decoder(name), scheme)
            assert 0 < weights.active <= weights.effective
            assert weights.unquantized <= weights.effective


def test_a_vision_part_is_left_alone() -> None:
    plain = preset_decoder("gemma-3-4b")
    vision = {
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight": (4304, 1152),
        "multi_modal_projector.mm_input_projection_weight": (1152, 2560),
    }
    named = {f"language_model.{name}": shape for name, shape in plain.tensors.items()}
    seeing = replace(plain, architecture="Gemma3ForConditionalGeneration", tensors={**named, **vision})
    for scheme in ("q4_k_m", "iq4_xs"):
        assert decoder_weights(seeing, scheme).effective == decoder_weights(plain, scheme).effective
        assert decoder_weights(seeing, scheme).exact
    beside = 2 * sum(math.prod(shape) for shape in vision.values())
    assert decoder_weights(seeing, "int4-g128").effective == decoder_weights(plain, "int4-g128").effective + beside


@pytest.mark.parametrize(
    ("name", "slides"),
    [("mistral-7b-v0.1", False), ("phi-3-mini-4k", False), ("gemma-3-1b", True), ("gpt-oss-20b", True),
     ("llama-4-scout", True), ("starcoder2-3b", False)],
)  # fmt: skip
def test_windows_that_llamacpp_has(name: str, slides: bool) -> None:
    decoder = preset_decoder(name)
    windows = [layer.attention.window for layer in as_llamacpp_attends(decoder).layers if layer.attention]
    assert any(windows) == slides
    assert any(layer.attention.window for layer in decoder.layers if layer.attention)
    assert len(windows) == len(decoder.layers)


def test_deepseek_in_gguf_splits_its_latent_matrices() -> None:
    table = {t.name: t for t in weight_table(preset_decoder("deepseek-v2-lite"), "q4_k_m")}
    assert table["blk.1.attn_k_b.weight"].shape == (16, 512, 128)
    assert table["blk.1.attn_v_b.weight"].shape == (16, 128, 512)
    # Rows of 128 do not split into blocks of 256.
    assert table["blk.1.attn_k_b.weight"].type == "q5_0"
    assert table["blk.1.ffn_down_exps.weight"].shape == (64, 2048, 1408)
    assert not decoder_weights(preset_decoder("deepseek-v2-lite"), "q4_k_m").exact


def test_experts_in_one_tensor_are_quantized_one_by_one() -> None:
    table = {t.name: t for t in weight_table(preset_decoder("gpt-oss-20b"), "int4-g32")}
    found = table["model.layers.0.mlp.experts.gate_up_proj"].bytes
    assert found == 32 * (stored_layer_bytes(5760, 2880, parse_scheme("int4-g32")) or 0)
    in_file = {t.name: t for t in weight_table(preset_decoder("gpt-oss-20b"), "q8_0")}
    assert in_file["blk.0.ffn_gate_exps.weight"].shape == in_file["blk.0.ffn_up_exps.weight"].shape == (32, 2880, 2880)
    assert in_file["blk.0.ffn_down_exps.bias"].type == in_file["blk.0.ffn_gate_inp.weight"].type == "f32"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int5-g128", "unknown scheme 'int5-g128'; allowed: 16bit, "),
        ("uniform-q9", "unknown type 'q9'; allowed: fp32, iq1_s, "),
        ("gptq:nf4", "gptq cannot fill 'nf4'"),
        ("stored", "is known by its config alone"),
        ("auto:1bpw", "auto:1bpw is too small a budget; the smallest mix of this model takes"),
    ],
)
def test_what_cannot_be_planned_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        weight_table(preset_decoder("llama-2-7b"), text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_budget_is_spent_to_the_byte() -> None:
    decoder = preset_decoder("llama-2-7b")
    found = decoder_weights(decoder, "auto:4.5bpw")
    assert found.effective == int(4.5 * found.parameters / 8)
    whole = decoder_weights(decoder, "uniform-q8_0").effective
    assert decoder_weights(decoder, "auto:900GB").effective == whole


def test_names_of_schemes() -> None:
    assert parse_weight_scheme(" IQ4_XS ").kind == "mix"
    assert parse_weight_scheme("uniform-iq4_xs").kind == "uniform"
    assert parse_weight_scheme("q4_k").bits == 4
    assert parse_weight_scheme("uniform-q4_k").kind == "uniform"
    assert parse_weight_scheme("F32").name == "fp32"


SCHEMES = [
    "16bit", "f16", "q8_0", "q4_0", "q4_k_m", "q2_k", "rtn:int8-channel", "rtn:int4-g32-asym", "rtn:int4-tensor", "nf4",
    "nf4-dq", "llm-int8", "fp8", "w8a8", "rtn:int4-g32,layout=gptq", "rtn:int4-g32,layout=awq",
    "rtn:layerwise-int4-g32",
]  # fmt: skip


@pytest.mark.parametrize("name", ["babyllama-tok105", "stories260K"])
def test_a_decoder_plans_what_its_folder_plans(shared_data: Path, name: str) -> None:
    folder = shared_data / "models" / name
    decoder = read_folder_decoder(folder)
    for scheme in SCHEMES:
        assert decoder_weights(decoder, scheme).effective == artifact_bytes(scheme, folder), scheme


def test_a_mixture_is_planned_as_it_is_built(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from quantwise.build.walk import build

    source, made = tmp_path / "m", tmp_path / "made"
    write_tiny("qwen2_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "hidden_size": 64,
                             "shared_expert_intermediate_size": 64, "dtype": "bfloat16"}, source)  # fmt: skip
    decoder = read_folder_decoder(source)
    names = ["rtn:int8-channel", "rtn:layerwise-int4-g32"]
    for recipe, artifact in zip(names, build(source, [parse_recipe(n) for n in names], [], made), strict=True):
        written = sum(entry.bytes for entry in read_folder(Path(artifact.location)).values())
        assert decoder_weights(decoder, recipe).effective == artifact_bytes(recipe, source) == written, recipe


@pytest.mark.parametrize("name", ["babyllama-tok105", "stories260K"])
def test_file_sizes_are_exact_to_the_byte(shared_data: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    from quantwise.build.walk import build

    folder = shared_data / "models" / name
    names = ["f16", "q8_0", "q4_0", "q4_k_m", "q3_k_s"]
    for recipe, artifact in zip(names, build(folder, [parse_recipe(n) for n in names], [], tmp_path), strict=True):
        place = Path(artifact.location)
        file = place if place.is_file() else next(iter(place.glob("*.gguf")))
        planned = gguf_bytes(read_folder_decoder(folder), parse_recipe(recipe), folder)
        assert planned.total == file.stat().st_size, recipe
        assert planned.data == gguf_data_bytes(read_gguf_header(file))
        brought = read_decoder(str(file))
        assert decoder_weights(brought, "stored").effective == gguf_data_bytes(read_gguf_header(file))
        assert decoder_weights(brought, recipe).effective == decoder_weights(brought, "stored").effective
        assert replace(brought, layers=()).hidden == read_folder_decoder(folder).hidden
        assert brought.layers == read_folder_decoder(folder).layers


def test_a_file_without_tokenizer_has_an_unknown_header() -> None:
    planned = gguf_bytes(preset_decoder("llama-3.1-8b"), parse_recipe("q4_k_m"), rope_factors=64)
    assert planned.total is None
    assert planned.data == decoder_weights(preset_decoder("llama-3.1-8b"), "q4_k_m", rope_factors=64).effective
    for recipe, message in (("int4-g128", "makes no GGUF file"), ("auto:4bpw", "its budget is the size")):
        with pytest.raises(InputError, match=message):
            gguf_bytes(preset_decoder("llama-2-7b"), parse_recipe(recipe))


ODDLY_STORED = ["jamba-v0.1", "gpt-oss-20b", "deepseek-v2-lite", "mixtral-8x7b", "llama-4-scout", "gemma-4-26b-a4b",
                "qwen3-next-80b-a3b", "falcon-7b", "phi-3.5-moe", "mamba-130m"]  # fmt: skip


@pytest.mark.parametrize("name", ODDLY_STORED)
def test_no_weight_is_lost_on_the_way_into_gguf(name: str) -> None:
    decoder = preset_decoder(name)
    made = sum(math.prod(tensor.shape) for tensor in weight_table(decoder, "q8_0"))
    assert made == decoder_weights(decoder, "16bit").parameters


def test_sixteen_bit_presets_weigh_two_bytes_a_parameter() -> None:
    for name in ("qwen3-0.6b", "phi-2", "mamba-130m", "lfm2-350m", "starcoder2-3b", "olmoe-1b-7b"):
        weights = decoder_weights(preset_decoder(name), "16bit")
        assert weights.effective == weights.raw == 2 * weights.parameters
