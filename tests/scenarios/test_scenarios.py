from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.scenarios.presets import DEMO, LAPTOP, PRESETS
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
