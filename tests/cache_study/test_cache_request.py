"""Which options a list of types makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantwise.cache_study.request import TYPES, Request, parse_options, settings
from quantwise.cache_study.study import _freeze
from quantwise.core.errors import InputError
from quantwise.store import Store


def names(types: str, flash: str = "on") -> list[str]:
    return [option.name for option in parse_options(types, flash)]  # type: ignore[arg-type]


def test_the_usual_types_have_flash_attention() -> None:
    assert names(TYPES) == ["f16", "q8_0", "q8_0/q4_0", "q4_0"]


def test_both_doubles_only_what_can_do_without() -> None:
    found = names("f16,q8_0,q8_0/f16", "both")
    assert found == ["f16", "f16,fa=off", "q8_0", "q8_0/f16", "q8_0/f16,fa=off"]


def test_off_is_refused_where_values_are_blocks() -> None:
    assert names("f16,q8_0/f16", "off") == ["f16,fa=off", "q8_0/f16,fa=off"]
    with pytest.raises(InputError, match="f16/q8_0 needs flash attention"):
        parse_options("f16,f16/q8_0", "off")


@pytest.mark.parametrize("types", ["", ",", "f16,f16", "q8_0,Q8_0/q8_0"])
def test_none_or_one_twice_is_refused(types: str) -> None:
    with pytest.raises(InputError, match="names no type, or one twice"):
        parse_options(types)


def test_an_unknown_type_names_those_that_are_known() -> None:
    with pytest.raises(InputError, match="unknown cache scheme 'q3_0'; allowed: f32, f16"):
        parse_options("f16,q3_0")


@pytest.mark.parametrize("changed", [{"margin": 0.6}, {"alpha": 0.4}, {"seed": 1}])
def test_a_margin_is_not_chosen_after_the_answers_were_seen(tmp_path: Path, changed: dict[str, Any]) -> None:
    request = Request(None, parse_options("f16,q8_0"))
    with Store(tmp_path / "run", create=True) as store:
        for again in (request, replace(request, documents=99)):
            _freeze(store, settings(again, "h", 1024, "xllamacpp", ()))
        with pytest.raises(InputError, match=rf"another study \(changed: {next(iter(changed))}\)"):
            _freeze(store, settings(replace(request, **changed), "h", 1024, "xllamacpp", ()))
