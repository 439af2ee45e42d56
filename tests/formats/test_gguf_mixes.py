"""The types that llama-quantize gives each tensor, taken from its own files (llama.cpp of October 2026)."""

import pytest

from quantwise.core.scheme import FIXED_SCHEMES
from quantwise.formats.gguf.mixes import GGML_BLOCKS, MixedModel, fitting, ggml_types, tensor_bytes

MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def llama(layers: int, tied: bool, columns: int = 256, wide: int = 256) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (2048, columns), "output_norm.weight": (columns,)}
    if not tied:
        shapes["output.weight"] = (2048, columns)
    for layer in range(layers):
        shapes[f"blk.{layer}.attn_norm.weight"] = (columns,)
        for part in MATRICES:
            shapes[f"blk.{layer}.{part}.weight"] = (256, wide if part == "ffn_down" else columns)
    return shapes


def of(types: dict[str, str], part: str, layers: int) -> list[str]:
    return [types[f"blk.{layer}.{part}.weight"] for layer in range(layers)]


# Layers, queries for each key, mix: the type of value, output and down projections; a digit for
# each layer where they differ.
FOUND = [
    (5, 1, "q2_k", "3", "3", "3"),
    (5, 1, "q3_k_s", "3", "3", "3"),
    (5, 1, "q3_k_m", "55444", "4", "4"),
    (5, 1, "q3_k_l", "5", "5", "5"),
    (5, 1, "q4_k_s", "55554", "4", "4"),
    (5, 1, "q4_k_m", "44646", "4", "44646"),
    (5, 1, "q5_k_s", "5", "5", "5"),
    (5, 1, "q5_k_m", "55656", "5", "55656"),
    (5, 1, "q6_k", "6", "6", "6"),
    (16, 2, "q2_k", "3", "3", "3"),
    (16, 2, "q3_k_m", "5544444444444444", "4", "5444444444444444"),
    (16, 2, "q4_k_s", "5555444444444444", "4", "5544444444444444"),
    (16, 2, "q4_k_m", "6644644644644666", "4", "6644644644644666"),
    (16, 2, "q5_k_m", "6655655655655666", "5", "6655655655655666"),
    (32, 4, "q2_k", "4", "3", "3"),
    (32, 4, "q3_k_m", "55" + 30 * "4", "4", "55" + 30 * "4"),
    (32, 4, "q4_k_s", "5555" + 28 * "4", "4", "5555" + 28 * "4"),
    (32, 4, "q4_k_m", "6666" + 8 * "446" + "6666", "4", None),
    (32, 4, "q5_k_m", "6666" + 8 * "556" + "6666", "5", None),
]


@pytest.mark.parametrize(("layers", "share", "mix", "value", "output", "down"), FOUND)
@pytest.mark.parametrize("tied", [True, False])
def test_each_mix_is_that_of_llama_quantize(
    layers: int, share: int, mix: str, value: str, output: str, down: str | None, tied: bool
) -> None:
    types, main = ggml_types(llama(layers, tied), mix, MixedModel(layers, share)), mix[:4]
    for part, digits in (("attn_v", value), ("attn_output", output), ("ffn_down", down or value)):
        expected = [f"q{digit}_k" for digit in (digits * layers if len(digits) == 1 else digits)]
        assert of(types, part, layers) == expected, part
    for part in ("attn_q", "attn_k", "ffn_gate", "ffn_up"):
        assert set(of(types, part, layers)) == {main}
    assert types["blk.0.attn_norm.weight"] == types["output_norm.weight"] == "f32"
    assert types["token_embd.weight"] == ("q6_k" if tied else main)
    assert types.get("output.weight", "q6_k") == "q6_k"


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_simple_types_give_the_output_matrix_more(name: str) -> None:
    types = ggml_types(llama(8, tied=False), name, MixedModel(8, 1))
    assert types["output.weight"] == ("q8_0" if name == "q8_0" else "q6_k")
    assert types["token_embd.weight"] == name
    assert set(of(types, "ffn_down", 8)) == {name}


def test_importance_guards_the_first_down_projections_of_simple_types() -> None:
    model = MixedModel(16, 1)
    found = of(ggml_types(llama(16, True), "q4_0", model, importance=True), "ffn_down", 16)
    assert found == ["q4_1"] * 2 + ["q4_0"] * 14
    for mix in ("q4_k_m", "q4_1", "q8_0"):
        assert ggml_types(llama(16, True), mix, model, importance=True) == ggml_types(llama(16, True), mix, model)


def test_rows_that_do_not_split_take_what_llama_quantize_takes() -> None:
    assert [fitting(f"q{bits}_k", 288) for bits in (2, 3, 4, 5, 6)] == ["q4_0", "q4_0", "q5_0", "q5_1", "q8_0"]
    assert fitting("q4_k", 100) == fitting("q8_0", 100) == "f16"
    assert fitting("q8_0", 100, sixteen="bf16") == "bf16"
    wide = ggml_types(llama(8, False, wide=288), "q4_k_m", MixedModel(8, 1))
    assert of(wide, "ffn_down", 8)[:3] == ["q8_0", "q5_0", "q5_0"]
    assert of(wide, "attn_q", 8)[0] == "q4_k"
    assert ggml_types(llama(4, True, columns=288), "q4_0", MixedModel(4, 1))["token_embd.weight"] == "q8_0"


# Nine layers: GPT-NeoX's fused matrix, and the experts of a Qwen 2 mixture of four with a shared one.
OTHERS = [
    ("q2_k", "333333333", "333333333"),
    ("q3_k_m", "554444444", "444444444"),
    ("q4_k_s", "555544444", "544444444"),
    ("q4_k_m", "644644666", "644644666"),
    ("q5_k_m", "655655666", "655655666"),
]


@pytest.mark.parametrize(("mix", "fused", "down"), OTHERS)
def test_fused_matrices_and_experts_are_those_of_llama_quantize(mix: str, fused: str, down: str) -> None:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (300, 256), "output.weight": (300, 256)}
    for layer in range(9):
        for part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down", "ffn_down_shexp"):
            shapes[f"blk.{layer}.{part}.weight"] = (256, 256)
        shapes[f"blk.{layer}.ffn_down_exps.weight"] = shapes[f"blk.{layer}.ffn_up_exps.weight"] = (4, 256, 256)
        shapes[f"blk.{layer}.ffn_gate_inp.weight"] = (4, 256)
        shapes[f"blk.{layer}.ffn_gate_inp_shexp.weight"] = (256,)
    for model in (MixedModel(9, 1, 0, "gptneox"), MixedModel(9, 4, 4, "qwen2moe")):
        types = ggml_types(shapes, mix, model)
        if model.experts == 0:
            assert [kind[1] for kind in of(types, "attn_qkv", 9)] == list(fused)
        for part in ("ffn_down", "ffn_down_exps", "ffn_down_shexp"):
            assert [kind[1] for kind in of(types, part, 9)] == list(down)
        assert set(of(types, "ffn_up_exps", 9)) == {mix[:4]}
        assert set(of(types, "ffn_gate_inp", 9)) == set(of(types, "ffn_gate_inp_shexp", 9)) == {"f32"}


def test_seventy_billion_and_eight_experts_are_told_apart() -> None:
    large = ggml_types(llama(80, False), "q4_k_s", MixedModel(80, 8))
    assert set(of(large, "attn_v", 80)) == {"q5_k"}
    for model, kind in (
        (MixedModel(80, 1), "q4_k"),
        (MixedModel(80, 1, architecture="qwen2"), "q5_k"),
        (MixedModel(80, 8, architecture="qwen3"), "q4_k"),
    ):
        assert of(ggml_types(llama(80, False), "q4_k_s", model), "attn_v", 80)[40] == kind
    mixture = ggml_types(llama(8, False), "q4_k_m", MixedModel(8, 4, experts=8))
    assert set(of(mixture, "attn_v", 8)) == set(of(mixture, "attn_k", 8)) == {"q8_0"}
    assert set(of(mixture, "attn_output", 8)) == {"q5_k"}


def test_every_ggml_scheme_has_an_assignment_and_its_bytes() -> None:
    for name, scheme in FIXED_SCHEMES.items():
        if scheme.format == "gguf":
            shapes = llama(3, tied=False)
            types = ggml_types(shapes, name, MixedModel(3, 1))
            assert set(types.values()) <= set(GGML_BLOCKS)
            assert sum(tensor_bytes(shapes[n], t) for n, t in types.items()) > 0


def test_blocks_are_those_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    for name, block in GGML_BLOCKS.items():
        assert tuple(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name.upper()]]) == block
