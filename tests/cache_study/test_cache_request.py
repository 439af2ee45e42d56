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


@pytest.mark.parametrize("changed", [{"margin": 0.6}, {"alpha": 0.4}])
def test_the_rule_of_a_run_folder_may_not_change(changed: dict[str, Any], tmp_path: Path) -> None:
    request = Request(None, parse_options(TYPES))
    kept = [settings(r, "h", 512, "xllamacpp 1", ()) for r in (request, replace(request, **changed))]
    with Store(tmp_path, create=True) as store:
        _freeze(store, kept[0])
        _freeze(store, kept[0])
        with pytest.raises(InputError, match=rf"changed: {next(iter(changed))}\); choose another --run"):
            _freeze(store, kept[1])
