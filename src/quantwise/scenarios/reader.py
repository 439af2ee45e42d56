"""Scenarios by preset name, from a TOML or YAML file, or back from a question's record; sites likewise.

A file may start from a preset: ``base = "laptop"``; whatever else it names replaces that part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from quantwise.core.decoding import decoding_of
from quantwise.core.errors import InputError
from quantwise.core.template_arguments import template_arguments_of
from quantwise.scenarios.presets import PRESETS
from quantwise.scenarios.prices import budget_of, prices_of, review_of
from quantwise.scenarios.records import SUFFIXES, read_record
from quantwise.scenarios.scenario import Scenario
from quantwise.scenarios.service_levels import service_levels_of
from quantwise.scenarios.site import Site
from quantwise.scenarios.sites import refuse_unknown, site_of, sites

FIELDS = tuple(f.name for f in fields(Scenario))


def read_scenario(source: str | Path | Mapping[str, Any]) -> Scenario:
    """A preset by name, a file, or a record of ``Scenario.to_json``. Raises InputError on anything else."""
    if isinstance(source, Mapping):
        return _scenario(source, "scenario")
    if str(source) in PRESETS:
        return PRESETS[str(source)]
    path = Path(source).expanduser()
    if path.suffix not in SUFFIXES:
        raise InputError(f"unknown scenario {str(source)!r}; presets: {', '.join(PRESETS)}; or give a .toml file")
    return _scenario({"name": path.stem} | read_record(path), str(path))


def read_site(source: str | Path) -> Site:
    """A site that ships by name, or a file that holds one. Raises InputError on anything else."""
    if str(source) in sites():
        return sites()[str(source)]
    path = Path(source).expanduser()
    if path.suffix not in SUFFIXES:
        raise InputError(f"unknown site {str(source)!r}; sites: {', '.join(sites())}; or give a .toml file")
    try:
        return site_of({"name": path.stem} | read_record(path))
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


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
        refuse_unknown(given, FIELDS)
        if "site" in given:
            given["site"] = site_of(given["site"])
        readers = {
            "prices": prices_of, "review": review_of, "budget": budget_of, "decoding": decoding_of,
            "service_levels": service_levels_of, "template_arguments": template_arguments_of,
        }  # fmt: skip
        for name, read in readers.items():
            if name in given:
                given[name] = read(given[name])
        if isinstance(given.get("objective"), list):
            given["objective"] = tuple(given["objective"])
        if base is None:
            return Scenario(**given)
        # The preset's note speaks of the preset's values, which this file changes.
        return replace(PRESETS[base], **({"note": ""} | given))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
