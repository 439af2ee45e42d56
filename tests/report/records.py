"""Variants of the specimen that reports have to survive."""

from __future__ import annotations

from typing import Any

from quantwise.testing.sample_record import specimen


def blank(value: Any) -> Any:
    """The same structure with every number unknown; names, verdicts and flags stay."""
    if isinstance(value, dict):
        return {key: blank(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return None if value and all(isinstance(v, int | float) for v in value) else [blank(inner) for inner in value]
    return value if isinstance(value, str | bool) else None


def undecided() -> dict[str, Any]:
    """Everything UNKNOWN, nothing shipped, and nobody best supported."""
    record = specimen()
    for row in record["verdicts"]:
        row.update(verdict="UNKNOWN", reason="need_n", n_more=[600, 900, 1500], minutes_more=4.5)
    record["decision"].update(
        ship=None, status="unknown", best_supported=None, fallback=None, headline="Unknown: more items would settle it."
    )
    return record


def brought() -> dict[str, Any]:
    """Two brought candidates, a file and a server by URL; nothing built, screened, planned or timed."""
    url = "http://127.0.0.1:8080/v1"
    candidates = [
        {
            "name": f"{source}@{runtime}",
            "source": source,
            "runtime": runtime,
            "cache": "f16",
            "baseline": number == 0,
            "control": False,
            "shippable": number == 1,
            "note": None,
            "artifact": {
                "location": source,
                "format": kind,
                "hash": "ab" * 16,
                "bytes": size,
                "recipe": None,
                "bits_per_weight": None,
                "build_seconds": None,
                "degradations": [],
            },
            "fit": None,
            "footprint": None,
            "accuracy": {},
            "overall": None,
        }
        for number, (source, runtime, kind, size) in enumerate(
            [("/srv/models/a-rather-long-name-f16.gguf", "llamacpp", "gguf", 1 << 30), (url, "openai", "server", None)]
        )
    ]  # fmt: skip
    names = [row["name"] for row in candidates]
    verdict = dict(specimen()["verdicts"][0], candidate=names[1], baseline=names[0], task="mine.jsonl")
    decision = dict(
        specimen()["decision"], ship=None, status="keep", headline="Keep 16 bit.", fallback=None, rollback=names[0],
        because=[], ruled_out=[], unmeasured=[], best_supported=names[1],
    )  # fmt: skip
    record = specimen()
    record.update(
        candidates=candidates, verdicts=[verdict], decision=decision, noise=[], screen=[], costs=[], timing={}
    )
    record["question"] = {"tasks": [], "model": None, "scenario": None}
    return record


def bare() -> dict[str, Any]:
    """The least that a record can be: a decision without evidence."""
    decision = dict(specimen()["decision"], ship=None, status="unknown", headline="Unknown: nothing was measured.")
    return {"schema": 1, "decision": decision, "candidates": [], "verdicts": [], "question": {}}
