"""Scenarios by preset name, from a TOML file, or back from a question's record.

A file may start from a preset: ``base = "laptop"``; whatever else it names replaces that part.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from quantwise.core.errors import InputError
from quantwise.scenarios.presets import PRESETS
from quantwise.scenarios.scenario import Scenario, Site

FIELDS = tuple(f.name for f in fields(Scenario))
SITE_FIELDS = tuple(f.name for f in fields(Site))


def read_scenario(source: str | Path | Mapping[str, Any]) -> Scenario:
    """A preset by name, a ``.toml`` file, or a record of ``Scenario.to_json``. Raises InputError on anything else."""
    if isinstance(source, Mapping):
        return _scenario(source, "scenario")
    if str(source) in PRESETS:
        return PRESETS[str(source)]
    path = Path(source).expanduser()
    if path.suffix in (".yaml", ".yml"):
        raise InputError(f"{path}: scenarios are written in TOML, not YAML; write the same names into a .toml file")
    if path.suffix != ".toml":
        raise InputError(f"unknown scenario {str(source)!r}; presets: {', '.join(PRESETS)}; or give a .toml file")
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; presets: {', '.join(PRESETS)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML ({error})") from error
    return _scenario({"name": path.stem} | record, str(path))


def _scenario(record: Mapping[str, Any], where: str) -> Scenario:
    given: dict[str, Any] = {"name": ""} | dict(record)
    base = given.pop("base", None)
    if base is not None and (not isinstance(base, str) or base not in PRESETS):
        raise InputError(f"{where}: unknown base {base!r}; presets: {', '.join(PRESETS)}")
    if base is None and "objective" not in given:
        raise InputError(
            f'{where}: objective is missing, such as objective = ["bytes", "seconds_per_item"]; or name a base'
        )
    try:
        _refuse_unknown(given, FIELDS)
        if "site" in given:
            given["site"] = _site(given["site"])
        if isinstance(given.get("objective"), list):
            given["objective"] = tuple(given["objective"])
        if base is None:
            return Scenario(**given)
        # The preset's note speaks of the preset's values, which this file changes.
        return replace(PRESETS[base], **({"note": ""} | given))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _site(given: Any) -> Site:
    if not isinstance(given, Mapping):
        raise InputError("site must be a table with name and memory_bytes")
    _refuse_unknown(given, SITE_FIELDS)
    return Site(**given)


def _refuse_unknown(given: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise InputError(f"unknown field {unknown[0]!r}; fields: {', '.join(allowed)}")
