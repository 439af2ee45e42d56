from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from quantwise.core.errors import InputError
from quantwise.core.scheme import parse_scheme
from quantwise.formats.safetensors_header import TensorEntry, read_folder
from quantwise.models.config import ModelShape
from quantwise.plan.weights import artifact_bytes, check_shapes, scheme_bytes, sixteen_bit_bytes

SHAPE = ModelShape("LlamaForCausalLM", 1, 64, 2, 1, 32, 96, 10, True, 128)


def entries(dtype: str = "F32") -> dict[str, TensorEntry]:
    shapes = {
        "model.embed_tokens.weight": (10, 64),
        "model.norm.weight": (64,),
        "model.layers.0.input_layernorm.weight": (64,),
        "model.layers.0.post_attention_layernorm.weight": (64,),
        "model.layers.0.self_attn.q_proj.weight": (64, 64),
        "model.layers.0.self_attn.k_proj.weight": (32, 64),
        "model.layers.0.self_attn.v_proj.weight": (32, 64),
        "model.layers.0.self_attn.o_proj.weight": (64, 64),
        "model.layers.0.mlp.gate_proj.weight": (96, 64),
        "model.layers.0.mlp.up_proj.weight": (96, 64),
        "model.layers.0.mlp.down_proj.weight": (64, 96),
    }
    bits = {"F32": 4, "BF16": 2}[dtype]
    return {
        n: TensorEntry(n, dtype, s, Path("m"), 0, bits * (s[0] * (s[1] if len(s) > 1 else 1)))
        for n, s in shapes.items()
    }


MATRICES = 64 * 64 * 2 + 32 * 64 * 2 + 96 * 64 * 3
REST = 10 * 64 + 3 * 64


def test_sixteen_bit_whatever_is_stored() -> None:
    assert sixteen_bit_bytes(entries("F32")) == sixteen_bit_bytes(entries("BF16")) == 2 * (MATRICES + REST)
    assert scheme_bytes(entries(), parse_scheme("16bit"), SHAPE) == 2 * (MATRICES + REST)


def test_integer_schemes_count_scales_and_leave_what_does_not_split() -> None:
    shapes = 7 * 16
    channels = 64 + 32 + 32 + 64 + 96 + 96 + 64
    assert scheme_bytes(entries(), parse_scheme("int8-channel"), SHAPE) == MATRICES + 2 * channels + shapes + 2 * REST
    assert scheme_bytes(entries(), parse_scheme("int4-tensor"), SHAPE) == MATRICES // 2 + 2 * 7 + shapes + 2 * REST
    down = 64 * 96
    grouped = MATRICES - down
    expected = grouped // 2 + 2 * grouped // 64 + 6 * 16 + 2 * down + 2 * REST
    assert scheme_bytes(entries(), parse_scheme("int4-g64"), SHAPE) == expected


def test_gguf_schemes_keep_vectors_in_32_bit_and_the_embedding_in_8() -> None:
    vectors = 3 * 64 * 4
    assert scheme_bytes(entries(), parse_scheme("q8_0"), SHAPE) == (MATRICES + 640) * 34 // 32 + vectors
    assert scheme_bytes(entries(), parse_scheme("q4_0"), SHAPE) == MATRICES * 18 // 32 + 640 * 34 // 32 + vectors
    assert scheme_bytes(entries(), parse_scheme("f16"), SHAPE) == (MATRICES + 640) * 2 + vectors


def test_a_tied_output_matrix_is_stored_once() -> None:
    both = entries() | {"lm_head.weight": TensorEntry("lm_head.weight", "F32", (10, 64), Path("m"), 0, 2560)}
    scheme = parse_scheme("q8_0")
    assert scheme_bytes(both, scheme, SHAPE) == scheme_bytes(entries(), scheme, SHAPE)
    assert (
        scheme_bytes(both, scheme, dataclasses.replace(SHAPE, tied=False))
        == scheme_bytes(entries(), scheme, dataclasses.replace(SHAPE, tied=False)) + 640 * 34 // 32
    )


def shapes(found: Mapping[str, TensorEntry]) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in found.items()}


def test_missing_weights_are_noticed() -> None:
    check_shapes(shapes(entries()), SHAPE, Path("m"))
    fewer = {n: e for n, e in entries().items() if "mlp" not in n}
    with pytest.raises(InputError, match=r"m holds .* weights, its config\.json describes"):
        check_shapes(shapes(fewer), SHAPE, Path("m"))


@pytest.mark.parametrize("name", ["babyllama-tok105", "stories260K"])
def test_what_the_builders_write_is_what_was_planned(shared_data: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    from quantwise.build.walk import build
    from quantwise.core.recipe import parse_recipe
    from quantwise.formats.gguf.header import read_gguf_header
    from quantwise.plan.weights import gguf_data_bytes

    model = shared_data / "models" / name
    names = [
        "16bit",
        "rtn:int8-channel",
        "rtn:int4-g64",
        "rtn:int3-g32-asym",
        "rtn:int4-tensor",
        "q8_0",
        "q4_0",
        "q4_k_m",
        "q2_k",
    ]
    for recipe, artifact in zip(names, build(model, [parse_recipe(n) for n in names], [], tmp_path), strict=True):
        place = Path(artifact.location)
        files = [place] if place.is_file() else list(place.glob("*.gguf"))
        found = (
            gguf_data_bytes(read_gguf_header(files[0])) if files else sum(e.bytes for e in read_folder(place).values())
        )
        assert artifact_bytes(recipe, model) == found, recipe


def test_a_budget_is_the_plan_of_auto_within_what_types_allow() -> None:
    from quantwise.core.recipe import parse_recipe
    from quantwise.plan.weights import recipe_bytes

    # Rows of 64 and 96 take q4_0 (18 bytes for 32 weights) at least and q8_0 (34) at most; vectors take 32 bits.
    matrices, vectors = MATRICES + 10 * 64, 3 * 64
    least, most = matrices // 32 * 18 + 4 * vectors, matrices // 32 * 34 + 4 * vectors
    weights = matrices + vectors
    assert recipe_bytes(entries(), parse_recipe("auto:6bpw"), SHAPE) == int(6 * weights / 8)
    assert recipe_bytes(entries(), parse_recipe("auto:20kB"), SHAPE) == 20_000 > least
    assert recipe_bytes(entries(), parse_recipe("auto:9MB"), SHAPE) == most
    with pytest.raises(InputError, match=f"too small a budget; the smallest mix of this model takes {least} bytes"):
        recipe_bytes(entries(), parse_recipe(f"auto:{least - 1}b"), SHAPE)
    assert recipe_bytes(entries(), parse_recipe(f"auto:{least}b"), SHAPE) == least
    with pytest.raises(InputError, match=r"takes 4\.\d+ bits per weight"):
        recipe_bytes(entries(), parse_recipe("auto:2bpw"), SHAPE)
