from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantwise.models.presets import preset_decoder
from quantwise.models.tensor_table import Alike, TensorTable

MIXTURE = {f"model.layers.{n}.mlp.experts.{e}.{p}.weight": (8, 4) for n in (0, 1) for p in "ab" for e in range(3)}
PLAIN = {"embed.weight": (10, 4), "model.layers.0.mlp.gate.weight": (3, 4), "experts": (1,)}


def test_experts_are_one_row() -> None:
    table = TensorTable.of(PLAIN | MIXTURE)
    assert [row.count for row in table.rows] == [1, 1, 1, 3, 3, 3, 3]
    assert table == PLAIN | MIXTURE
    assert list(table) == list(PLAIN | MIXTURE)
    assert len(table) == 15
    assert table.numbers == sum(math.prod(shape) for shape in (PLAIN | MIXTURE).values())
    assert TensorTable.of(table) is table


@pytest.mark.parametrize("name", ["x", "model.layers.0.mlp.experts.3.a.weight",
                                  "model.layers.0.mlp.experts.01.a.weight",
                                  "model.layers.0.mlp.experts.-1.a.weight", f"l.experts.{'9' * 5000}.a"])  # fmt: skip
def test_what_is_not_there(name: str) -> None:
    assert name not in TensorTable.of(PLAIN | MIXTURE)


NUMBERS = st.sampled_from(["0", "1", "2", "3", "00", "x", "9" * 5000])
NAMES = st.builds("m.{}.experts.{}.{}".format, st.sampled_from("pq"), NUMBERS, st.sampled_from(["w", "experts.1.w"]))


@given(st.dictionaries(NAMES, st.sampled_from([(2, 2), (4,)])))
def test_any_names_are_kept(tensors: dict[str, tuple[int, ...]]) -> None:
    table = TensorTable.of(tensors)
    assert dict(table) == tensors
    assert all(table[name] == shape for name, shape in tensors.items())
    for name in (f"m.p.experts.{number}.w" for number in range(4)):
        assert (name in table) == (name in tensors)


def test_of_two_rows_of_a_name_the_later_counts() -> None:
    table = TensorTable([Alike("a", (1,)), Alike("b", (2,)), Alike("a", (3,))])
    assert dict(table) == {"a": (3,), "b": (2,)}


def test_a_large_mixture_is_a_short_table() -> None:
    tensors = preset_decoder("deepseek-v3").tensors
    assert isinstance(tensors, TensorTable)
    assert len(tensors) > 40_000
    assert len(tensors.rows) < 1_100
    # Names and rows of the table as it is written out are those that would be found in a folder.
    again = TensorTable.of(dict(tensors))
    assert {row.name: row for row in again.rows} == {row.name: row for row in tensors.rows}
