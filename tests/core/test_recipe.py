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
    ],
)
def test_a_recipe_has_one_name(text: str, name: str) -> None:
    assert parse_recipe(text).name == name
    assert parse_recipe(name) == parse_recipe(text)


@pytest.mark.parametrize(
    "text",
    ["", "int4", "int5-g64", "int4-g48", "rtn:", "rtn:nf4", "best:int4-g64", "gptq:q4_0", "rtn:16bit", "gptq:f16",
     "int4-tensor-asym", "int4-g64-sym", "rtn:int4-g64:more"],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_with_what_can(text: str) -> None:
    with pytest.raises(InputError, match=r"allowed|quantizers|use ") as caught:
        parse_recipe(text)
    assert "\n" not in str(caught.value)


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
