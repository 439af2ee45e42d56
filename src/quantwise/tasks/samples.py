"""Reader of per-item results that exist already, paired by item.

Three kinds of JSON Lines, told apart by their first row:

- lm-evaluation-harness ``--log_samples``: one row per document and filter, with ``doc_id``, ``filter``, ``metrics``
  (the names of the metrics, each a key of the row) and ``doc_hash``; older files lack ``filter`` and ``metrics``;
- our own measurements (``core.evidence.Measurement``): ``item``, ``candidate``, ``repeat``, ``score``; repeats of an
  item and items of a ``cluster`` are averaged, rows of other stages than ``certify`` are left out;
- plain: ``id`` and ``score``.

A score of null means that nothing came back: it counts 0 for the candidate and 1 for the baseline.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from quantwise.core.errors import InputError
from quantwise.core.evidence import ANSWERED, Pair

Kind = Literal["lm-eval", "quantwise", "plain"]
Row = tuple[int, dict[str, Any]]

_NOT_METRICS = frozenset({"doc_id", "doc_hash", "prompt_hash", "target_hash", "target", "doc", "filter", "metrics"})


@dataclass(frozen=True, slots=True)
class Samples:
    """Scores of one arm: item id to the scores of its repeats (None: missing), and the line where each item begins."""

    path: Path
    kind: Kind
    metric: str
    scores: dict[str, list[float | None]]
    lines: dict[str, int]
    documents: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairedSamples:
    """Pairs in the order of the baseline's file; ``missing`` of them were scored at their worst; ``notes`` warn."""

    pairs: tuple[Pair, ...]
    metric: str
    missing: int
    notes: tuple[str, ...]


def read_pairs(baseline: Path, candidate: Path, metric: str | None = None) -> PairedSamples:
    """Read both files and pair them by item id. Raises InputError naming file and line."""
    return pair_samples(read_samples(baseline, metric), read_samples(candidate, metric))


def read_samples(path: Path, metric: str | None = None) -> Samples:
    """Read one file of any of the three kinds.

    ``metric`` chooses among several: ``acc``, or ``exact_match,strict-match`` where the harness applied several
    filters; in plain rows it names the key of the score. Raises InputError naming file and line.
    """
    rows = _rows(path)
    first = rows[0][1]
    if "doc_id" in first:
        return _harness(path, rows, metric)
    if "item" in first and "candidate" in first:
        return _measurements(path, rows, metric)
    if "id" in first:
        name = metric or "score"
        return _collect(path, "plain", name, ((n, _key(path, n, row, "id"), row) for n, row in rows), name)
    raise InputError(
        f"{path}: line {rows[0][0]} is no per-item result: expected the keys doc_id (lm-eval --log_samples), "
        "item and candidate (quantwise), or id and score"
    )


def pair_samples(baseline: Samples, candidate: Samples) -> PairedSamples:
    """Pair two arms by item id. Raises InputError when the items, or the documents behind them, are not the same."""
    for one, other in ((baseline, candidate), (candidate, baseline)):
        absent = [item for item in one.scores if item not in other.scores]
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise InputError(
                f"{other.path}: item {absent[0]!r} ({one.path} line {one.lines[absent[0]]}){more} is not there: "
                "both files must hold the same items; give an item that failed a score of null"
            )
    for item, document in baseline.documents.items():
        if candidate.documents.get(item, document) != document:
            raise InputError(
                f"{candidate.path}: line {candidate.lines[item]}: doc_hash of doc_id {item} differs from "
                f"{baseline.path} line {baseline.lines[item]}: the two runs asked "
                "different questions; run them on the same task"
            )
    pairs = []
    missing = 0
    for item, scores in baseline.scores.items():
        base, cand = scores, candidate.scores[item]
        missing += None in base or None in cand
        pairs.append(Pair(item, _mean(base, worst=1.0), _mean(cand, worst=0.0)))
    metric = baseline.metric if baseline.metric == candidate.metric else f"{baseline.metric} against {candidate.metric}"
    return PairedSamples(tuple(pairs), metric, missing, _notes(baseline, candidate))


def _notes(baseline: Samples, candidate: Samples) -> tuple[str, ...]:
    differing = [i for i, prompt in baseline.prompts.items() if candidate.prompts.get(i, prompt) != prompt]
    if not differing:
        return ()
    return (
        f"the prompts of {len(differing)} items differ between the two runs (prompt_hash): this compares templates or "
        "few-shot examples too, not quantization alone",
    )


def _mean(scores: Sequence[float | None], worst: float) -> float:
    return sum(worst if s is None else s for s in scores) / len(scores)


def _rows(path: Path) -> list[Row]:
    """Every non-empty line as a JSON object, with its line number."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give a file of per-item results") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text: give JSON Lines of per-item results") from error
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is broken JSON ({error}): each line must be one object") from error
        if not isinstance(row, dict):
            raise InputError(
                f"{path}: line {number} is no JSON object: each line must be one, such as an id and a score"
            )
        rows.append((number, row))
    if not rows:
        raise InputError(f"{path}: is empty: expected one JSON object per line")
    return rows


def _key(path: Path, number: int, row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{path}: line {number} has no {name!r}: every row needs one, a text or a whole number")
    return str(value)


def _score(path: Path, number: int, row: dict[str, Any], name: str) -> float | None:
    if name not in row:
        raise InputError(f"{path}: line {number} has no {name!r}: every row needs one, between 0 and 1 or null")
    value = row[name]
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        shown = json.dumps(value)[:40]
        raise InputError(
            f"{path}: line {number}: {name!r} is {shown}: a score must be a number between 0 and 1, or null"
        )
    return float(value)


def _collect(path: Path, kind: Kind, metric: str, rows: Iterable[tuple[int, str, dict[str, Any]]], key: str) -> Samples:
    """One score per item; a second row of an item is an error."""
    samples = Samples(path, kind, metric, {}, {})
    for number, item, row in rows:
        if item in samples.lines:
            raise InputError(
                f"{path}: line {number} repeats item {item!r} of line {samples.lines[item]}: each item must occur once"
            )
        samples.lines[item] = number
        samples.scores[item] = [_score(path, number, row, key)]
        for hashes, name in ((samples.documents, "doc_hash"), (samples.prompts, "prompt_hash")):
            if isinstance(row.get(name), str):
                hashes[item] = row[name]
    return samples


def _measurements(path: Path, rows: list[Row], metric: str | None) -> Samples:
    """Our own rows: one candidate, one task, repeats averaged."""
    if metric not in (None, "score"):
        raise InputError(
            f"{path}: metric {metric!r} is unknown: quantwise rows have one metric, score; leave out --metric"
        )
    certified = [r for r in rows if r[1].get("stage", "certify") == "certify"]
    if not certified:
        raise InputError(f"{path}: has no row of the stage certify: screening items are never reused for a verdict")
    for name in ("candidate", "task"):
        found = sorted({str(row.get(name)) for _, row in certified})
        if len(found) > 1:
            raise InputError(f"{path}: holds several values of {name} ({', '.join(found[:4])}): give one file for each")
    samples = Samples(path, "quantwise", "score", {}, {})
    seen: dict[tuple[str, str], int] = {}
    for number, row in certified:
        item = _key(path, number, row, "item")
        repeat = (item, str(row.get("repeat", 0)))
        if repeat in seen:
            raise InputError(
                f"{path}: line {number} repeats item {item!r}, repeat {repeat[1]}, of line {seen[repeat]}: "
                "each must occur once"
            )
        seen[repeat] = number
        unit = str(row.get("cluster") or item)
        samples.lines.setdefault(unit, number)
        failed = row.get("finish", "stop") not in ANSWERED
        samples.scores.setdefault(unit, []).append(None if failed else _score(path, number, row, "score"))
    return samples


def _harness(path: Path, rows: list[Row], metric: str | None) -> Samples:
    """lm-evaluation-harness rows: one metric of one filter."""
    options = sorted({(name, str(row.get("filter", "none"))) for _, row in rows for name in _metric_names(row)})
    wanted, _, wanted_filter = (metric or "").partition(",")
    chosen = [o for o in options if wanted in ("", o[0]) and wanted_filter in ("", o[1])]
    several_filters = len({o[1] for o in options}) > 1
    names = [f"{name},{flt}" if several_filters else name for name, flt in options]
    if not chosen:
        asked = f"has no metric {metric!r}" if metric else "has no metric between 0 and 1"
        raise InputError(f"{path}: {asked}: it offers {', '.join(names) or 'none that could be compared per item'}")
    if len(chosen) > 1:
        raise InputError(f"{path}: holds several metrics: choose one with --metric, of {', '.join(names)}")
    name, flt = chosen[0]
    kept = [(n, _key(path, n, row, "doc_id"), row) for n, row in rows if str(row.get("filter", "none")) == flt]
    return _collect(path, "lm-eval", f"{name},{flt}" if several_filters else name, kept, name)


def _metric_names(row: dict[str, Any]) -> list[str]:
    """Metrics of a harness row that are one number; lists (perplexity sums) cannot be paired."""
    declared = row.get("metrics")
    names = declared if isinstance(declared, list) else [k for k in row if k not in _NOT_METRICS]
    return [k for k in names if isinstance(k, str) and isinstance(row.get(k), int | float)]
