"""The reader of per-item results: three formats, paired by id, and every complaint with its file and line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.core.evidence import Measurement, Pair
from quantwise.tasks.samples import read_pairs, read_samples


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def harness_row(doc: int, flt: str = "none", **metrics: Any) -> dict[str, Any]:
    """One row as lm-evaluation-harness logs it."""
    return {
        "doc_id": doc,
        "doc": {"question": f"q{doc}", "answer": "A"},
        "target": "A",
        "arguments": {"gen_args_0": {"arg_0": f"Question: q{doc}", "arg_1": " A"}},
        "resps": [[["-1.5", "False"]]],
        "filtered_resps": [["-1.5", "False"]],
        "filter": flt,
        "metrics": list(metrics),
        "doc_hash": f"hash{doc}",
        "prompt_hash": f"prompt{doc}",
        "target_hash": "t",
        **metrics,
    }


def measurement(item: str, score: float | None, **changes: Any) -> dict[str, Any]:
    row = Measurement("rtn:int8@transformers", "certify", "code", item, 0, 0, score, "stop", "out")
    return dataclasses.asdict(dataclasses.replace(row, **changes))


def test_plain_rows_are_paired_by_id_in_the_order_of_the_baseline(tmp_path: Path) -> None:
    base = write(
        tmp_path / "base.jsonl", [{"id": "x", "score": 1}, {"id": 2, "score": 0.5}, {"id": "z", "score": True}]
    )
    cand = write(
        tmp_path / "cand.jsonl", [{"id": "z", "score": 0}, {"id": "x", "score": 1.0}, {"id": "2", "score": 0.25}]
    )
    found = read_pairs(base, cand)
    assert found.pairs == (Pair("x", 1.0, 1.0), Pair("2", 0.5, 0.25), Pair("z", 1.0, 0.0))
    assert (found.missing, found.notes, found.metric) == (0, (), "score")


def test_null_counts_against_the_candidate_on_either_side(tmp_path: Path) -> None:
    base = write(tmp_path / "b", [{"id": 1, "score": None}, {"id": 2, "score": 1}, {"id": 3, "score": 0}])
    cand = write(tmp_path / "c", [{"id": 1, "score": 1}, {"id": 2, "score": None}, {"id": 3, "score": 0}])
    found = read_pairs(base, cand)
    assert found.pairs == (Pair("1", 1.0, 1.0), Pair("2", 1.0, 0.0), Pair("3", 0.0, 0.0))
    assert found.missing == 2


def test_harness_rows_with_one_metric_need_no_choice(tmp_path: Path) -> None:
    base = write(tmp_path / "b", [harness_row(0, acc=1.0), harness_row(1, acc=0.0)])
    cand = write(tmp_path / "c", [harness_row(1, acc=1.0), harness_row(0, acc=0.0)])
    found = read_pairs(base, cand)
    assert found.pairs == (Pair("0", 1.0, 0.0), Pair("1", 0.0, 1.0))
    assert found.metric == "acc"


def test_several_metrics_ask_for_a_choice(tmp_path: Path) -> None:
    path = write(tmp_path / "b", [harness_row(0, acc=1.0, acc_norm=0.0), harness_row(1, acc=0.0, acc_norm=1.0)])
    with pytest.raises(InputError, match=r"several metrics.*--metric, of acc, acc_norm"):
        read_samples(path)
    assert read_samples(path, "acc_norm").scores == {"0": [0.0], "1": [1.0]}
    with pytest.raises(InputError, match=r"no metric 'f1'.*offers acc, acc_norm"):
        read_samples(path, "f1")


def test_several_filters_are_chosen_by_metric_and_filter(tmp_path: Path) -> None:
    rows = [
        harness_row(doc, flt, exact_match=score)
        for doc in range(3)
        for flt, score in (("strict-match", 0.0), ("flexible-extract", 1.0))
    ]
    path = write(tmp_path / "b", rows)
    with pytest.raises(InputError, match="exact_match,flexible-extract, exact_match,strict-match"):
        read_samples(path, "exact_match")
    strict = read_samples(path, "exact_match,strict-match")
    assert strict.scores == {"0": [0.0], "1": [0.0], "2": [0.0]}
    assert strict.metric == "exact_match,strict-match"


def test_metrics_that_are_no_single_number_are_not_offered(tmp_path: Path) -> None:
    path = write(tmp_path / "b", [harness_row(0, word_perplexity=[-10.5, 7], acc=1.0)])
    assert read_samples(path).metric == "acc"
    with pytest.raises(InputError, match="no metric 'word_perplexity'"):
        read_samples(path, "word_perplexity")


def test_older_harness_rows_without_filter_and_metrics(tmp_path: Path) -> None:
    row = {"doc_id": 4, "doc": {}, "target": "1", "arguments": [], "resps": [], "filtered_resps": [], "acc": 1.0}
    assert read_samples(write(tmp_path / "b", [row])).scores == {"4": [1.0]}


def test_other_documents_behind_equal_ids_are_refused_and_other_prompts_noted(tmp_path: Path) -> None:
    base = write(tmp_path / "b.jsonl", [harness_row(0, acc=1.0), harness_row(1, acc=1.0)])
    other = write(tmp_path / "o.jsonl", [harness_row(0, acc=1.0), harness_row(1, acc=1.0) | {"doc_hash": "else"}])
    with pytest.raises(InputError, match=r"o\.jsonl: line 2: doc_hash of doc_id 1 differs from .*b\.jsonl line 2"):
        read_pairs(base, other)
    prompted = write(tmp_path / "p.jsonl", [harness_row(0, acc=1.0), harness_row(1, acc=1.0) | {"prompt_hash": "else"}])
    (note,) = read_pairs(base, prompted).notes
    assert "prompts of 1 items differ" in note


def test_our_own_rows_average_repeats_and_leave_out_screening(tmp_path: Path) -> None:
    rows = [
        measurement("i1", 1.0),
        measurement("i1", 0.0, repeat=1),
        measurement("i2", 1.0, stage="screen"),
        measurement("i3", 0.0, finish="crash"),
        measurement("i4", 1.0, cluster="passage"),
        measurement("i5", 0.0, cluster="passage"),
    ]
    base = write(tmp_path / "b", rows)
    found = read_pairs(base, base)
    assert found.pairs == (Pair("i1", 0.5, 0.5), Pair("i3", 1.0, 0.0), Pair("passage", 0.5, 0.5))
    assert found.missing == 1


def test_our_own_rows_of_two_candidates_or_repeated_are_refused(tmp_path: Path) -> None:
    two = write(tmp_path / "two", [measurement("i1", 1.0), measurement("i2", 1.0, candidate="other")])
    with pytest.raises(InputError, match="several values of candidate"):
        read_samples(two)
    twice = write(tmp_path / "twice", [measurement("i1", 1.0), measurement("i1", 1.0)])
    with pytest.raises(InputError, match=r"twice: line 2 repeats item 'i1', repeat 0, of line 1"):
        read_samples(twice)
    with pytest.raises(InputError, match="screening"):
        read_samples(write(tmp_path / "s", [measurement("i1", 1.0, stage="screen")]))
    with pytest.raises(InputError, match="one metric"):
        read_samples(twice, "acc")


def test_broken_line_17_is_named(tmp_path: Path) -> None:
    lines = [json.dumps({"id": i, "score": 1}) for i in range(30)]
    lines[16] = lines[16][:-1]
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=r"items\.jsonl: line 17 is broken JSON"):
        read_samples(path)
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(InputError, match=r"items\.jsonl: line 1 is broken JSON"):
        read_samples(path)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"id": 3}', "line 2 has no 'score'"),
        ('{"score": 1}', "line 2 has no 'id'"),
        ('{"id": 3, "score": 1.5}', "line 2: 'score' is 1.5"),
        ('{"id": 3, "score": NaN}', "line 2: 'score' is NaN"),
        ('{"id": 3, "score": "1"}', "line 2: 'score' is \"1\""),
        ('{"id": 1, "score": 1}', "line 2 repeats item '1' of line 1"),
        ("[1, 2]", "line 2 is no JSON object"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": 1, "score": 1}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="bad") as caught:
        read_samples(path)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_items_that_only_one_side_has_are_named(tmp_path: Path) -> None:
    base = write(tmp_path / "base.jsonl", [{"id": i, "score": 1} for i in (1, 2, 3, 4)])
    cand = write(tmp_path / "cand.jsonl", [{"id": i, "score": 1} for i in (1, 2)])
    for pair in ((base, cand), (cand, base)):
        with pytest.raises(InputError, match=r"cand\.jsonl: item '3' \(.*base\.jsonl line 3\) and 1 more is not there"):
            read_pairs(*pair)


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_samples(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_samples(tmp_path)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n", encoding="utf-8")
    with pytest.raises(InputError, match="is empty"):
        read_samples(empty)
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_samples(binary)
    with pytest.raises(InputError, match="no per-item result"):
        read_samples(write(tmp_path / "other", [{"name": "x"}]))
