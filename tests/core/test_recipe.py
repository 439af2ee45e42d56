"""Recipes and schemes: what is read, what is refused, and how many bits a weight takes."""

import pytest

from quantwise.core.errors import InputError
from quantwise.core.recipe import QUANTIZERS, parse_recipe
from quantwise.core.scheme import parse_scheme


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtn:int4-g64", "rtn:int4-g64"),
        (" GPTQ:INT4-G64 ", "gptq:int4-g64"),
        ("q4_0", "rtn:q4_0"),
        ("rtn:q8_0", "rtn:q8_0"),
        ("int8-channel", "rtn:int8-channel"),
        ("16bit", "16bit"),
        ("f16", "f16"),
        ("gptq:int3-g128-asym", "gptq:int3-g128-asym"),
        ("q4_k", "rtn:q4_k_m"),
        ("gptq:q4_k_m", "gptq:q4_k_m"),
        ("awq+rtn:int4-g128", "awq+rtn:int4-g128"),
        ("awq:int4-g128", "awq+rtn:int4-g128"),
        ("smoothquant+gptq:w8a8", "smoothquant+gptq:w8a8"),
        ("gptq+propagate:int4-g128", "gptq+propagate:int4-g128"),
        ("smoothquant+rtn+propagate:w8a8", "smoothquant+rtn+propagate:w8a8"),
        ("rtn+propagate:w8a8-static", "rtn+propagate:w8a8-static"),
        ("distil+gptq:q2_k", "distil+gptq:q2_k"),
        ("gptq:int4-g128,layout=awq", "gptq:int4-g128,layout=awq"),
        ("gptq:layerwise-int4-g128", "gptq:layerwise-int4-g128"),
        ("Layerwise-W4A8", "rtn:layerwise-w4a8"),
        ("auto:4.5bpw", "auto:4.5bpw"),
        ("imatrix+auto:900MB", "imatrix+auto:900mb"),
    ],
)
def test_a_recipe_has_one_name(text: str, name: str) -> None:
    assert parse_recipe(text).name == name
    assert parse_recipe(name) == parse_recipe(text)


@pytest.mark.parametrize(
    "text",
    ["", "int4", "int5-g64", "int4-g48", "rtn:", "gptq:nf4", "best:int4-g64", "gptq:fp8", "rtn:16bit", "gptq:f16",
     "int4-tensor-asym", "int4-g64-sym", "rtn:int4-g64:more",
     "rtn+gptq:int4-g64", "awq+rtn:nf4", "auto:4.5", "auto:0bpw", "gptq:int3-g128,layout=awq",
     "rtn:q4_k_m,layout=gptq", "gptq:layerwise-int8-g128", "layerwise-q4_k_m", "layerwise-nf4", "layerwise-",
     "layerwise-int4-g128-asym",
     "layerwise-layerwise-int4-g128", "gptq:layerwise-int4-g128,layout=gptq",
     "foo+gptq:int4-g64", "awq+awq:int4-g64",
     "distil+gptq:w8a8", "distil+rtn:nf4", "distil+gptq:int4-g128,layout=gptq",
     "auto:5ib", "auto:5bib", "rtn+propagate:int4-g64", "propagate:q4_k_m",
     "rtn+propagate+auto:4bpw", "distil+rtn+propagate:q2_k"],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_with_what_can(text: str) -> None:
    with pytest.raises(
        InputError, match=r"allowed|quantizers|use |write |leave it out|leave propagate out|it takes"
    ) as caught:
        parse_recipe(text)
    assert "\n" not in str(caught.value)


def test_a_budget_is_bits_or_bytes() -> None:
    bits, held = parse_recipe("auto:4.5bpw").budget, parse_recipe("rtn+auto:1.5MiB").budget
    assert bits is not None
    assert held is not None
    assert (bits.bits_per_weight, bits.bytes, held.bits_per_weight, held.bytes) == (4.5, None, None, 1_572_864)


def test_an_unknown_recipe_lists_quantizers_and_schemes() -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe("q9_k")
    assert all(word in str(caught.value) for word in (*QUANTIZERS, "q4_0", "channel", "g64"))


@pytest.mark.parametrize(
    ("name", "bits"),
    [("int4-g64", 4.25), ("int4-g128", 4.125), ("int4-g64-asym", 4.3125), ("q8_0", 8.5), ("q4_0", 4.5), ("16bit", 16.0),
     ("int8-channel", 8 + 16 / 256), ("int4-tensor", 4 + 16 / (128 * 256))],
)  # fmt: skip
def test_bits_count_scales_and_zero_points(name: str, bits: float) -> None:
    assert parse_scheme(name).bits_per_weight(128, 256) == pytest.approx(bits)


def test_rows_that_do_not_split_are_known() -> None:
    assert not parse_scheme("int4-g64").divides(172)
    assert parse_scheme("int4-channel").divides(172)


@pytest.mark.parametrize(
    "text", ["gptq:int4-g64", "imatrix:q4_0", "awq+rtn:int4-g64", "w8a8-static", "fp8-static", "auto:4bpw"]
)
def test_recipes_that_read_calibration_texts(text: str) -> None:
    assert parse_recipe(text).reads_data


@pytest.mark.parametrize("text", ["16bit", "f16", "q4_k_m", "rtn:int4-g64", "w8a8", "fp8", "nf4-dq", "llm-int8"])
def test_recipes_that_see_weights_alone(text: str) -> None:
    assert not parse_recipe(text).reads_data
