"""Marks stand where the numbers say, inside the plot, and nothing is drawn that nobody knows."""

from __future__ import annotations

import pytest
from records import blank, brought

from quantwise.report import charts
from quantwise.report.reading import Reading
from quantwise.testing.sample_record import specimen


def test_forest_marks_keep_their_order_and_stay_inside() -> None:
    reading = Reading(specimen())
    for task in reading.tasks:
        plot = charts.forest(reading, task)
        assert 0 < plot.margin < plot.zero < 100
        for row in (r for r in reading.verdicts if r["task"] == task["name"]):
            mark = plot.marks[row["candidate"]]
            assert 0 <= mark.low <= mark.at <= mark.high <= 100
            assert (mark.at < plot.zero) == (row["delta"] < 0)
            if 0 < mark.at < 100:
                assert (mark.at < plot.margin) == (row["delta"] < -task["margin"])


def test_what_leaves_the_window_is_marked() -> None:
    reading = Reading(specimen())
    mark = charts.forest(reading, reading.tasks[0]).marks["rtn:int4-tensor@transformers"]
    assert mark.past_low
    assert not mark.past_high
    assert mark.at == 0


def test_scatter_is_proportional_to_bytes_and_margin_below_zero() -> None:
    reading = Reading(specimen())
    chart = charts.scatter(reading)
    at = {point.name: point for point in chart.points}
    assert at["q4_0@llamacpp"].x / at["q8_0@llamacpp"].x == pytest.approx(2_686_976 / 4_915_200, rel=1e-3)
    assert at["q4_0@llamacpp"].mark.at > at["q8_0@llamacpp"].mark.at == at["bf16@llamacpp"].mark.at
    assert [line.label for line in chart.margins] == ["margin 5 pp"]
    assert chart.margins[0].at > at["bf16@llamacpp"].mark.at
    shifts = [at[name].shift for name in ("rtn:int4-g64@transformers", "gptq:int4-g64@transformers")]
    assert abs(shifts[0] - shifts[1]) >= 20


def test_different_margins_give_two_lines() -> None:
    record = specimen()
    record["question"]["tasks"][0]["margin"] = 0.01
    labels = [line.label for line in charts.scatter(Reading(record)).margins]
    assert labels == ["tightest margin 1 pp", "widest margin 5 pp"]


def test_the_unknown_is_left_out_and_named() -> None:
    chart = charts.scatter(Reading(brought()))
    assert [(name, why) for name, why in chart.left_out] == [
        ("http://127.0.0.1:8080/v1@openai", "bytes and difference unknown")
    ]
    bars = charts.memory(Reading(blank(specimen())))
    assert all(not bar.segments and bar.peak is None for bar in bars)


def test_memory_segments_meet_and_fit() -> None:
    bar = next(bar for bar in charts.memory(Reading(specimen())) if bar.name == "bf16@llamacpp")
    assert [part.kind for part in bar.segments] == ["weights", "cache", "compute"]
    for left, right in zip(bar.segments, bar.segments[1:], strict=False):
        assert left.start + left.width == pytest.approx(right.start, abs=0.02)
    assert bar.segments[-1].start + bar.segments[-1].width < bar.peak < 100


@pytest.mark.parametrize(("span", "step"), [(10, 2), (0.07, 0.01), (9.1, 2), (0, 0.2)])
def test_nice_steps(span: float, step: float) -> None:
    assert charts.nice_step(span, 5 if span != 0.07 else 7) == pytest.approx(step)


def test_letters_do_not_run_out() -> None:
    names = {"candidates": [{"name": str(k)} for k in range(60)]}
    marks = charts.letters(Reading(names))
    assert len(set(marks.values())) == 60
    assert (marks["0"], marks["25"], marks["26"]) == ("A", "Z", "AA")
