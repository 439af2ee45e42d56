"""What ``quantwise build`` prints: the promised names, a table within 80 columns, the plan before the walk."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from quantwise import calibration_study, workbench
from quantwise.cli.build import shown
from quantwise.cli.main import main
from quantwise.core.artifact import Artifact, Degradation
from quantwise.report.tables import print_artifacts
from quantwise.tasks.calibration import CalibrationSet

LEFT = "rows of 160 are no multiple of 64: left in 16 bit"
MADE = Artifact(
    "out/gptq-int4-g64-0123456789abcdef", "compressed-tensors", "0123456789abcdef" * 2, 123_456_789,
    "smoothquant+gptq+propagate:int4-g128-asym", 4.251, 83.25,
    tuple(Degradation(f"model.layers.{i}.mlp.down_proj", LEFT) for i in range(24)),
)  # fmt: skip


def test_the_promised_names_and_no_others() -> None:
    promised = "recipe path format bytes bits_per_weight hash seconds degradations"
    assert list(shown(MADE)) == promised.split()
    assert shown(MADE)["path"] == MADE.location
    assert shown(MADE)["degradations"][0] == {"where": "model.layers.0.mlp.down_proj", "what": LEFT}


def test_the_table_fits_80_columns_and_says_a_degradation_once() -> None:
    out = io.StringIO()
    print_artifacts([shown(MADE), shown(MADE)], out)
    lines = out.getvalue().splitlines()
    assert max(len(line) for line in lines if not line.startswith((" ", MADE.recipe or ""))) <= 80
    assert f"{MADE.recipe}: {MADE.location}" in lines
    assert lines.count(f"  {LEFT} (model.layers.0.mlp.down_proj and 23 more)") == 2


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def build_recipes(model: Path, recipes: list[str], out: Path, **more: Any) -> list[Artifact]:
        seen.update(more, recipes=recipes)
        if more["tell"]:
            more["tell"]("this job needs 3.1 GiB of memory and about 4 minutes")
        return [MADE]

    monkeypatch.setattr(workbench, "build_recipes", build_recipes)
    return seen


def test_the_plan_goes_to_standard_error(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--calibration", "mixed", "--calibration", "a.txt", "--samples", "64", "--seed", "3"]
    assert main(["build", "model", "gptq:int4-g64", *options, "--json"]) == 0
    told = capsys.readouterr()
    assert "this job needs 3.1 GiB" in told.err
    assert json.loads(told.out) == [shown(MADE)]
    assert asked["calibration"] == CalibrationSet(("mixed", "a.txt"), 64, 3)
    assert main(["build", "model", "gptq:int4-g64", "--json", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_the_study_prints_what_it_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(model: Path, recipes: list[str], *, as_json: bool, report: Any) -> Any:
        return {"recipe": recipes[0]} if as_json else "a table"

    monkeypatch.setattr(calibration_study, "run", run)
    assert main(["build", "model", "gptq:int4-g64", "--calibration-study", "--quiet"]) == 0
    assert capsys.readouterr().out == "a table\n"
    assert main(["build", "model", "gptq:int4-g64", "--calibration-study", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"recipe": "gptq:int4-g64"}


def test_a_recipe_named_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "missing", "int8-channel", "rtn:int8-channel", "--quiet"]) == 2
    assert capsys.readouterr().err == "quantwise: rtn:int8-channel is named twice; name every recipe once\n"


def test_calibration_that_no_recipe_reads_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["build", "missing", "q8_0", "--calibration", "nobody-reads.txt"]
    assert main(asked) == 2
    note, complaint = capsys.readouterr().err.splitlines()
    assert note == "note: no recipe here reads calibration texts"
    assert complaint.startswith("quantwise: model folder missing does not exist")
    assert main([*asked, "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
