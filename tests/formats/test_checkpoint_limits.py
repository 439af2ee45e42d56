"""Which matrices stay in 16 bit, from shapes alone."""

import pytest

from quantwise.core.recipe import parse_recipe
from quantwise.core.scheme import parse_scheme
from quantwise.formats.checkpoint_limits import packs, refuses_awq, refuses_gptq, stays


def test_whole_words() -> None:
    assert packs(40, 4)
    assert not packs(40, 3)


def test_what_does_not_fill_words_is_refused_with_its_reason() -> None:
    assert refuses_gptq(parse_scheme("int4-g32"), 40, 64) is None
    assert refuses_gptq(parse_scheme("int3-g32"), 40, 64) == "40 outputs of 3 bits do not fill 32-bit words"
    assert refuses_gptq(parse_scheme("int4-channel"), 40, 60) == "60 inputs of 4 bits do not fill 32-bit words"


def test_awq_holds_four_bits_of_eight_outputs() -> None:
    assert refuses_awq(parse_scheme("int3-g32"), 64, 64) == "AWQ checkpoints hold 4 bits, not 3"
    assert refuses_awq(parse_scheme("int4-g32"), 20, 64) == "20 outputs are no multiple of 8"


@pytest.mark.parametrize(
    ("recipe", "rows", "columns", "why"),
    [
        ("rtn:int4-g64", 20, 128, None),
        ("rtn:int4-g64", 20, 96, "rows of 96 are no multiple of 64: left in 16 bit"),
        ("rtn:int8-channel", 20, 7, None),
        ("rtn:int3-g32", 40, 64, None),
        ("rtn:int3-g32,layout=gptq", 40, 64, "40 outputs of 3 bits do not fill 32-bit words: left in 16 bit"),
        ("rtn:int4-g32,layout=awq", 20, 64, "20 outputs are no multiple of 8: left in 16 bit"),
        ("llm-int8", 3, 5, None),
    ],
)
def test_what_stays_depends_on_scheme_and_format(recipe: str, rows: int, columns: int, why: str | None) -> None:
    assert stays(parse_recipe(recipe).scheme, rows, columns) == why
