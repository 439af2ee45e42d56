from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.scenarios.presets import LAPTOP
from quantwise.scenarios.reader import read_scenario, read_site
from quantwise.scenarios.site import RATE_TYPES, Site
from quantwise.scenarios.sites import site_of, sites

GIB = 2**30
NAMED = (
    "laptop nas lab-server x86-vnni x86-avx512 x86-amx rtx-3090 rtx-4090 rtx-5090 a100-40gb a100-80gb h100 h200 mi300x "
    "m1 m1-pro m1-max m1-ultra m2 m2-pro m2-max m2-ultra m3 m3-pro m3-max m3-ultra m4 m4-pro m4-max"
)


def test_the_sites_that_ship() -> None:
    assert " ".join(sites()) == NAMED
    for name, site in sites().items():
        assert site.name == name
        assert site.kind is not None
        assert site_of(json.loads(json.dumps(site.to_json()))) == site
        # A figure without a source is none.
        for field in ("memory_bytes", "bandwidth", "bus", "link", "watts", "rates"):
            assert not getattr(site, field) or site.source_of(field), (name, field)
        assert site.price_per_hour is None or "20" in site.sources["price_per_hour"], name
        assert site.usable == 1 or site.sources["usable"], name
        assert any(year in site.source for year in map(str, range(2019, 2027))), name


def test_rates_are_dense_and_in_order() -> None:
    for site in sites().values():
        assert not set(site.rates) & set(site.lacks)
        rates = site.rates
        assert rates.get("fp16", 0) >= rates.get("fp32", 0) or "fp16" in site.lacks, site.name
        if {"int8", "fp16"} <= set(rates):
            assert 2 <= rates["int8"] / max(rates["fp16"], rates.get("bf16", 0)) <= 4.1, site.name
        if {"fp8", "int8"} <= set(rates):
            assert rates["int8"] / rates["fp8"] in (pytest.approx(1), pytest.approx(2)), site.name
    # With sparsity these would be twice as much.
    assert sites()["h100"].rates["fp8"] == 1978.9e12
    assert sites()["a100-80gb"].rates["bf16"] == 312e12


def test_what_hardware_really_has() -> None:
    have = {kind: {name for name, site in sites().items() if kind in site.rates} for kind in RATE_TYPES}
    assert have["fp8"] == {"rtx-4090", "rtx-5090", "h100", "h200", "mi300x"}
    assert have["fp4"] == {"rtx-5090"}
    assert have["int4"] == {"rtx-3090", "rtx-4090", "a100-40gb", "a100-80gb"}
    for name in have["fp8"]:
        assert "fp8" not in sites()[name].lacks


def test_a_question_without_hardware_is_hashed_as_before() -> None:
    assert LAPTOP.to_json()["site"] == {"name": "this machine", "memory_bytes": None}
    assert Site("server", 5).to_json() == {"name": "server", "memory_bytes": 5}


def test_usable_memory() -> None:
    # As logs show them: 115,448.73 MB, 12,713.12 MB, 23.64 GiB, 139.80 GiB.
    for name, logged in (("m4-max", 115448.73e6), ("m1", 12713.12e6), ("rtx-4090", 23.64 * GIB), ("h200", 139.8 * GIB)):
        assert sites()[name].limit_bytes == pytest.approx(logged, rel=0.002), name
    assert sites()["mi300x"].limit_bytes == 192 * GIB
    assert Site().limit_bytes is None


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


TOML = 'base = "m4-max"\nmemory_bytes = 38654705664\nprice_per_hour = 0.05\n[rates]\nfp16 = 1e13\n'
YAML = "base: m4-max\nmemory_bytes: 38654705664\nprice_per_hour: 0.05\nrates: {fp16: 1.0e+13}\n"


@pytest.mark.parametrize(("name", "text"), [("mine.toml", TOML), ("mine.yaml", YAML), ("mine.yml", YAML)])
def test_a_file_on_top_of_a_site(tmp_path: Path, name: str, text: str) -> None:
    site = read_site(written(tmp_path / name, text))
    assert (site.name, site.memory_bytes, site.bandwidth, site.price_per_hour) == ("mine", 36 << 30, 546e9, 0.05)
    assert dict(site.rates) == {"fp16": 1e13}
    assert site.source_of("memory_bytes") == "given by the user"
    assert site.source_of("bandwidth").startswith("Apple Newsroom")
    assert site.note == ""


def test_a_scenario_names_a_site_or_starts_from_one(tmp_path: Path) -> None:
    named = read_scenario(written(tmp_path / "a.toml", 'base = "laptop"\nsite = "rtx-4090"\n'))
    assert named.site == sites()["rtx-4090"]
    assert read_scenario(json.loads(json.dumps(named.to_json()))) == named
    started = read_scenario(written(tmp_path / "b.yaml", "base: nas\nsite: {base: nas, memory_bytes: 8589934592}\n"))
    assert (started.name, started.site.memory_bytes, started.site.bandwidth) == ("b", 8 << 30, 38.4e9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory: 3", "unknown field 'memory'; fields: name, memory_bytes, kind"),
        ("base: m5", "unknown base 'm5' of a site; sites: laptop"),
        ("base: [m4]", "unknown base"),
        ("kind: tpu", "kind must be one of gpu, unified, cpu"),
        ("usable: 1.5", "usable must be a share"),
        ("bandwidth: fast", "bandwidth must be a number above 0"),
        ("bandwidth: -1", "bandwidth must be a number above 0"),
        ("bandwidth: .nan", "bandwidth must be a number above 0"),
        ("devices: 0", "devices must be a whole number"),
        ("rates: {fp64: 1}", "unknown number type 'fp64'"),
        ("rates: [1]", "rates must be a table"),
        ("rates: {fp16: 0}", "rate of fp16"),
        ("lacks: fp8", "lacks must be a list"),
        ("lacks: [fp8]\nrates: {fp8: 1}", "keep one of the two"),
        ("sources: {speed: me}", "sources must name fields"),
        ("note: 3", "note must be a text"),
        ("- 1", "must hold a table"),
        ("3: 4", "must hold a table"),
        ("a: [", "not YAML"),
        ("a: &x 1\nb: *x", "aliases"),
        ("a: !!python/object/apply:os.system [echo]", "not YAML"),
        ("\x01", "not YAML"),
    ],
)
def test_broken_sites(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path / "mine.yaml", text)
    with pytest.raises(InputError) as caught:
        read_site(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_site(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown site 'h300'; sites: laptop, nas"):
        read_site("h300")
    with pytest.raises(InputError, match="cannot be read"):
        read_site(tmp_path / "none.toml")
    with pytest.raises(InputError, match="too many"):
        read_site(written(tmp_path / "long.yaml", "a: 1\n" * 300_000))


def test_yaml_without_its_reader_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(EnvironmentFailure, match="needs the pyyaml package"):
        read_site(written(tmp_path / "mine.yaml", "base: nas"))


def test_the_shipped_file_is_what_a_user_may_write() -> None:
    text = resources.files("quantwise.scenarios").joinpath("sites.toml").read_text(encoding="utf-8")
    records: Mapping[str, Any] = tomllib.loads(text)
    assert all(isinstance(record, dict) for record in records.values())
