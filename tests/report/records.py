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


def priced() -> dict[str, Any]:
    """With what a solved item costs, and for one candidate nothing known of it."""
    record = specimen()
    arm = {
        "failing": 0.3, "unsolved": 0.02, "answers": 1.3, "reviews": 0.1, "seconds": 1.4,
        "seconds_interval": [1.2, 1.6], "joules": None, "money": 0.00131, "money_interval": [0.0012, 0.0014],
    }  # fmt: skip
    items = [
        {"candidate": name, "baseline": "bf16@llamacpp", "items": 512, "ours": arm, "theirs": arm | {"money": 0.001},
         "ratio": 1.31, "interval": [1.22, 1.41], "saved_per_month": None, "break_even_months": None,
         "notes": ["energy is unknown"]}
        for name in ("q8_0@llamacpp", "q4_0@llamacpp")
    ]  # fmt: skip
    items[1] |= {"ratio": None, "interval": None, "ours": blank(arm)}
    record["solved"] = {
        "prices": {"currency": "EUR", "machine_hour": 3.6}, "reruns": 2, "requests_per_month": None, "run_cost": None,
        "review": {"probability": 0.25, "price": 0.6, "solves": 1.0}, "items": items,
    }  # fmt: skip
    return record
