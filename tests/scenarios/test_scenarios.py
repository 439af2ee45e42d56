from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.scenarios.presets import DEMO, LAPTOP, PRESETS
from quantwise.scenarios.prices import Prices, Review
from quantwise.scenarios.reader import read_scenario
from quantwise.scenarios.scenario import DEFAULT_MARGINS, KINDS, Scenario
from quantwise.scenarios.site import Site


def test_presets_and_their_first_objectives() -> None:
    assert {name: s.objective[0] for name, s in PRESETS.items()} == {
        "laptop": "bytes", "nas": "joules_per_item", "lab-server": "p99_over_p50", "demo": "bytes",
    }  # fmt: skip
    assert all(read_scenario(name) is scenario for name, scenario in PRESETS.items())


def test_margins() -> None:
    assert {kind: LAPTOP.margin("any", kind) for kind in KINDS} == {
        "code": 0.01, "instructions": 0.02, "reasoning": 0.005, "other": 0.01,
    }  # fmt: skip
    assert LAPTOP.margin("any", "a kind from the future") == 0.01
    mine = replace(LAPTOP, margins={"code": 0.03, "recall": 0.04})
    assert mine.margin("code-golf", "code") == 0.03
    assert mine.margin("recall", "other") == 0.04
    assert mine.margin("recall", "code") == 0.04
    assert mine.margin("gsm8k", "reasoning") == 0.005


def test_the_demo_declares_its_wider_margins() -> None:
    assert DEMO.objective == LAPTOP.objective
    for kind in KINDS:
        assert DEFAULT_MARGINS[kind] < DEMO.margin("any", kind) <= 0.05
    assert "wider than the defaults" in DEMO.note
    assert "before any certification item was asked" in DEMO.note


@pytest.mark.parametrize("name", PRESETS)
def test_a_question_can_hold_a_scenario(name: str) -> None:
    record = json.loads(json.dumps(PRESETS[name].to_json()))
    assert read_scenario(record) == PRESETS[name]
    assert record["objective"][0] == PRESETS[name].objective[0]


FILE = """
objective = ["bytes", "-tokens_per_s"]
context = 4096
concurrency = 2
max_p95_seconds = 3
budget_seconds = 1800
alpha = 0.01
[site]
name = "server"
memory_bytes = 17179869184
[margins]
code = 0.02
[floors]
gsm8k = 0.7
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file(tmp_path: Path) -> None:
    scenario = read_scenario(str(write(tmp_path / "mine.toml", FILE)))
    assert scenario == Scenario(
        name="mine",
        objective=("bytes", "-tokens_per_s"),
        site=Site("server", 16 << 30),
        context=4096,
        concurrency=2,
        max_p95_seconds=3,
        margins={"code": 0.02},
        floors={"gsm8k": 0.7},
        budget_seconds=1800,
        alpha=0.01,
    )
    assert read_scenario(scenario.to_json()) == scenario


def test_a_file_on_top_of_a_preset(tmp_path: Path) -> None:
    scenario = read_scenario(write(tmp_path / "mine.toml", 'base = "lab-server"\nconcurrency = 64\n'))
    expected = replace(PRESETS["lab-server"], name="mine", concurrency=64, note="")
    assert scenario == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objective = [", "not TOML"),
        ("", "objective is missing"),
        ('objective = "bytes"', "objective must be a list"),
        ("objective = []", "objective must be a list"),
        ('objective = ["speed"]', "unknown objective 'speed'; objectives: bytes, memory_bytes"),
        ("objective = [3]", "unknown objective 3"),
        ("objective = [[]]", "unknown objective []"),
        ('objective = ["tokens_per_s"]', "unknown objective 'tokens_per_s'"),
        ('objective = ["bytes", "bytes"]', "twice"),
        ('base = "desktop"', "unknown base 'desktop'; presets: laptop, nas, lab-server, demo"),
        ('base = ["laptop"]', "unknown base"),
        ('base = "laptop"\nmargin = 1', "unknown field 'margin'; fields: name, objective"),
        ('base = "laptop"\nsite = "here"', "site must be a table"),
        ('base = "laptop"\n[site]\nram = 1', "unknown field 'ram'; fields: name, memory_bytes"),
        ('base = "laptop"\n[site]\nmemory_bytes = "16 GB"', "memory_bytes must be"),
        ('base = "laptop"\n[site]\nmemory_bytes = 0', "memory_bytes must be"),
        ('base = "laptop"\n[site]\nname = 3', "site name"),
        ('base = "laptop"\nname = ""', "scenario name"),
        ('base = "laptop"\nnote = 3', "scenario note"),
        ('base = "laptop"\ncontext = 0', "context must be"),
        ('base = "laptop"\ncontext = true', "context must be"),
        ('base = "laptop"\nconcurrency = 1.5', "concurrency must be"),
        ('base = "laptop"\nmax_p95_seconds = -1', "max_p95_seconds must be"),
        ('base = "laptop"\nmax_p95_seconds = nan', "max_p95_seconds must be"),
        ('base = "laptop"\nbudget_seconds = inf', "budget_seconds must be"),
        ('base = "laptop"\nalpha = 0', "alpha must lie"),
        ('base = "laptop"\nalpha = "5 %"', "alpha must lie"),
        ('base = "laptop"\nmargins = 0.01', "margins must be a table"),
        ('base = "laptop"\n[margins]\ncode = 1', "margin of code"),
        ('base = "laptop"\n[margins]\ncode = "1 %"', "margin of code"),
        ('base = "laptop"\n[margins]\ncode = 0', "margin of code"),
        ('base = "laptop"\n[floors]\ncode = 70', "floor of code"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "mine.toml", text)
    with pytest.raises(InputError) as caught:
        read_scenario(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_scenario(tmp_path: Path) -> None:
    cases: list[tuple[Any, str]] = [
        ("desktop", "unknown scenario 'desktop'; presets: laptop"),
        (tmp_path / "missing.toml", "cannot be read"),
        (tmp_path / "missing.yaml", "cannot be read"),
        (tmp_path, "unknown scenario"),
        ({"name": "x"}, "scenario: objective is missing"),
        ({"objective": ["bytes"]}, "name"),
    ]
    for source, message in cases:
        with pytest.raises(InputError) as caught:
            read_scenario(source)
        assert message in str(caught.value)
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"not TOML"):
        read_scenario(tmp_path / "bytes.toml")


def test_service_levels_are_milliseconds_by_the_words_of_slo(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", 'base = "laptop"\n[service_levels]\nttft = 500\ne2el = 1.5e4\n')
    scenario = read_scenario(path)
    assert scenario.service_levels == {"ttft": 500.0, "e2e": 15000.0}
    assert read_scenario(json.loads(json.dumps(scenario.to_json()))) == scenario


def test_template_arguments_are_plain_values_by_name(tmp_path: Path) -> None:
    told = "enable_thinking = false\nreasoning_effort = 'high'\nbudget = 3\n"
    scenario = read_scenario(write(tmp_path / "mine.toml", f'base = "laptop"\n[template_arguments]\n{told}'))
    assert scenario.template_arguments == {"enable_thinking": False, "reasoning_effort": "high", "budget": 3}
    assert read_scenario(json.loads(json.dumps(scenario.to_json()))) == scenario


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("service_levels = 500", "service_levels must be a table of ttft, tpot, e2e in milliseconds"),
        ("service_levels = { p99 = 500 }", "unknown service level 'p99'; levels: ttft, tpot, e2e, e2el"),
        ("service_levels = { e2e = 1, e2el = 2 }", "service_levels gives e2e twice"),
        ("service_levels = { ttft = 0 }", "service level ttft must be milliseconds above 0, such as 500, not 0"),
        ("service_levels = { ttft = '500ms' }", "service level ttft must be milliseconds above 0"),
        ("service_levels = { tpot = true }", "service level tpot must be milliseconds above 0"),
        ("service_levels = { tpot = nan }", "service level tpot must be milliseconds above 0"),
        ("service_levels = { e2el = inf }", "service level e2el must be milliseconds above 0"),
        ("template_arguments = false", "template_arguments must be a table, such as { enable_thinking = false }"),
        ("template_arguments = { messages = 'x' }", "template argument messages is given by quantwise itself"),
        ("template_arguments = { enable-thinking = true }", "'enable-thinking' is no name of a template argument"),
        ("template_arguments = { thinking = [1] }", "template argument thinking must be true, false, a number or a t"),
        ("template_arguments = { thinking = nan }", "template argument thinking must be true, false, a number or a t"),
    ],
)
def test_broken_tables_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "mine.toml", f'base = "laptop"\n{text}')
    with pytest.raises(InputError) as caught:
        read_scenario(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


PRICED = """
base = "laptop"
reruns = 2
requests_per_month = 100000
[prices]
currency = "CHF"
machine_hour = 1.2
[review]
probability = 0.5
price = 0.6
"""


def test_prices_are_read_and_kept_in_the_record(tmp_path: Path) -> None:
    scenario = read_scenario(write(tmp_path / "priced.toml", PRICED))
    assert scenario == replace(
        LAPTOP,
        name="priced",
        note="",
        prices=Prices("CHF", 1.2),
        reruns=2,
        review=Review(0.5, 0.6, 1.0),
        requests_per_month=100000,
    )
    assert read_scenario(json.loads(json.dumps(scenario.to_json()))) == scenario


@pytest.mark.parametrize("name", PRESETS)
def test_without_prices_the_record_is_what_it_was_before_there_were_any(name: str) -> None:
    assert set(PRESETS[name].to_json()) == {
        *("name", "objective", "site", "context", "concurrency", "max_p95_seconds"),
        *("margins", "floors", "budget_seconds", "alpha", "note"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reruns = 1", "reruns has no use without prices; add [prices]"),
        ("requests_per_month = 9", "requests_per_month has no use without prices"),
        ("[review]\nprobability = 1\nprice = 1", "review has no use without prices"),
        ("prices = 3", "prices must be a table with currency, machine_hour"),
        ("[prices]\ncurrency = 'EUR'", "prices machine_hour is missing"),
        ("[prices]\ncurrency = 'EUR'\nmachine_hour = 1\nkwh = 1", "unknown field 'kwh' in prices; fields: currency"),
        ("[prices]\ncurrency = 'EUR'\nmachine_hour = 0", "machine_hour must be an amount above 0"),
        ("[prices]\ncurrency = 'EUR'\nmachine_hour = inf", "machine_hour must be an amount above 0"),
        ("[prices]\ncurrency = ''\nmachine_hour = 1", "currency must be a short text"),
        ("[prices]\ncurrency = 978\nmachine_hour = 1", "currency must be a short text"),
        ("{prices}reruns = 1.5", "reruns must be a whole number"),
        ("{prices}reruns = -1", "reruns must be a whole number"),
        ("{prices}reruns = true", "reruns must be a whole number"),
        ("{prices}requests_per_month = 0", "requests_per_month must be a number above 0"),
        ("{prices}review = 0.5", "review must be a table with probability, price"),
        ("{prices}review = { probability = 0.5 }", "review price is missing"),
        ("{prices}review = { probability = 1.5, price = 1 }", "review probability must be a share from 0 to 1"),
        ("{prices}review = { probability = 1, price = -1 }", "review price must be an amount of at least 0"),
        ("{prices}review = { probability = 1, price = 1, solves = '1' }", "review solves must be a share"),
        ("{prices}review = { probability = 1, price = 1, hours = 1 }", "unknown field 'hours' in review"),
    ],
)
def test_broken_prices_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    prices = 'prices = { currency = "EUR", machine_hour = 1 }\n'
    path = write(tmp_path / "mine.toml", 'base = "laptop"\n' + text.replace("{prices}", prices))
    with pytest.raises(InputError) as caught:
        read_scenario(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
