"""A GGUF file is planned as it is, alone or in a family."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantwise.core.errors import InputError
from quantwise.planning import PlanRequest, plan
from quantwise.testing.blank_gguf import BlankModel, write_blank


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "small.gguf"
    write_blank(path, BlankModel())
    return str(path)


@pytest.mark.parametrize("scheme", ["q8_0", "q4_k_m", "16bit"])
def test_it_is_in_no_other_scheme(file: str, scheme: str) -> None:
    with pytest.raises(InputError, match="is a GGUF file, planned as it is") as caught:
        plan(PlanRequest((file,), site="rtx-4090", schemes=(scheme,)))
    assert "\n" not in str(caught.value)


def test_one_of_its_names_is_its_own(file: str) -> None:
    found = plan(PlanRequest((file,), site="nas", schemes=("stored", "q8_0")))
    assert [row["scheme"] for row in found["candidates"]] == ["stored"]
    assert list(found["refused"]) == ["q8_0@llamacpp"]
    assert found["weights_bytes"] == plan(PlanRequest((file,), site="nas"))["weights_bytes"]
