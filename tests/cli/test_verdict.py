"""``quantwise verdict`` as a user meets it."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from quantwise.cli import verdict
from quantwise.core.errors import InputError

COUNTS = ["--regressions", "12", "--improvements", "8", "--items", "1000"]
FAILING = ["--regressions", "60", "--improvements", "20", "--items", "1319", "--margin", "0.01"]
PASSING = ["--regressions", "5", "--improvements", "9", "--items", "541", "--margin", "3%"]


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    verdict.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["verdict", *options])
    return int(args.verb(args))


def as_json(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    assert run(*options, "--json") == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_json_of_the_golden_counts(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, *COUNTS, "--margin", "0.01")
    assert found["z"] == pytest.approx(1.2648, abs=1e-4)
    assert found["e_pass"] == pytest.approx(1.309, abs=1e-3)
    assert found["e_fail"] == pytest.approx(0.464, abs=1e-3)
    assert (found["verdict"], found["reason"]) == ("UNKNOWN", "need_n")
    assert (found["n"], found["delta"]) == (1000, -0.004)
    assert found["interval"] == pytest.approx([-0.0211, 0.0122], abs=1e-4)
    assert isinstance(found["n_more"], list)
    assert len(found["n_more"]) == 3
    assert found["max_drop"] == found["smallest_margin"] or math.isclose(
        float(str(found["max_drop"])), float(str(found["smallest_margin"])), abs_tol=1e-6
    )
    assert "no evidence of >1 % loss yet" in str(found["explanation"])


def test_percent_and_share_are_the_same_margin(capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, *COUNTS, "--margin", "1%") == as_json(capsys, *COUNTS, "--margin", "0.01")


def test_every_answer_exits_0_unless_strict(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = [*COUNTS, "--margin", "1%"]
    assert [run(*o) for o in (PASSING, FAILING, unknown)] == [0, 0, 0]
    assert [run(*o, "--strict") for o in (PASSING, FAILING, unknown)] == [0, 3, 4]
    text = capsys.readouterr().out
    assert "PASS  the candidate against the baseline" in text
    assert "60 got worse and 20 got better" in text


def test_the_block_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    run(*COUNTS, "--margin", "1%", "--seconds-per-item", "2", "--items-left", "300")
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert len(lines) <= 10


def test_candidates_share_alpha_and_fixed_n_uses_tango(capsys: pytest.CaptureFixture[str]) -> None:
    zero = ["--regressions", "0", "--improvements", "0", "--margin", "1%"]
    assert as_json(capsys, *zero, "--items", "600")["verdict"] == "PASS"
    assert as_json(capsys, *zero, "--items", "600", "--candidates-shippable", "2")["verdict"] == "UNKNOWN"
    assert as_json(capsys, *zero, "--items", "299")["verdict"] == "UNKNOWN"
    assert as_json(capsys, *zero, "--items", "299", "--fixed-n")["verdict"] == "PASS"
    assert as_json(capsys, *zero, "--items", "298", "--fixed-n")["verdict"] == "UNKNOWN"
    assert as_json(capsys, *zero, "--items", "10")["verdict"] == "UNKNOWN"


def samples(path: Path, scores: list[float]) -> str:
    path.write_text("".join(json.dumps({"id": i, "score": s}) + "\n" for i, s in enumerate(scores)), encoding="utf-8")
    return str(path)


def test_samples_give_what_their_counts_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = samples(tmp_path / "base.jsonl", [1.0] * 500 + [0.0] * 500)
    cand = samples(tmp_path / "cand.jsonl", [0.0] * 12 + [1.0] * 496 + [0.0] * 492)
    found = as_json(capsys, "--samples", base, cand, "--margin", "1%")
    counted = as_json(capsys, *COUNTS, "--margin", "1%")
    for key in ("z", "e_pass", "e_fail", "interval", "n_more", "verdict", "regressions", "improvements"):
        assert found[key] == counted[key]
    assert (found["baseline"], found["candidate"]) == ("base.jsonl", "cand.jsonl")


def test_graded_samples_have_no_z(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = samples(tmp_path / "b", [0.5] * 300)
    cand = samples(tmp_path / "c", [0.5, 0.75, 0.25] * 100)
    found = as_json(capsys, "--samples", base, cand, "--margin", "5%")
    assert found["z"] is None
    assert found["n_more"] or found["verdict"] != "UNKNOWN"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--regressions", "5", "--improvements", "9", "--items", "4", "--margin", "1%"], "do not fit into 4 items"),
        (["--regressions", "-1", "--improvements", "9", "--items", "40", "--margin", "1%"], "negative"),
        ([*COUNTS, "--margin", "0"], "margin 0 is out of range"),
        ([*COUNTS, "--margin", "1%", "--alpha", "0.9"], "alpha 0.9 is out of range"),
        (["--items", "40", "--margin", "1%"], "evidence is missing"),
        ([*COUNTS, "--samples", "a", "b", "--margin", "1%"], "exclude each other"),
        ([*COUNTS, "--metric", "acc", "--margin", "1%"], "belongs to --samples"),
        ([*COUNTS, "--margin", "1%", "--items-left", "-4"], "--items-left -4 is negative"),
        ([*COUNTS[:-1], str(10**30), "--margin", "1%"], "are no counts of items"),
        ([*COUNTS, "--margin", "1%", "--seconds-per-item", "inf"], "is no number of seconds above 0"),
        ([*COUNTS, "--margin", "1%", "--seconds-per-item", "nan"], "is no number of seconds above 0"),
        (["--samples", "no-such-a", "no-such-b", "--margin", "1%"], "no-such-a: cannot be read"),
    ],
)
def test_bad_input_is_one_line(options: list[str], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        run(*options)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_neither_torch_nor_scipy_is_imported() -> None:
    program = (
        "import sys; import quantwise.cli.verdict; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
