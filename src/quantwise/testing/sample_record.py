"""A SPECIMEN for tests: a decision record made by hand. No model was run; not one number in it is a result."""

from __future__ import annotations

from typing import Any

from quantwise.testing.sample_rows import (
    ACCURACY,
    CANDIDATES,
    FLIPS,
    ITEMS,
    LLAMACPP_BASELINE,
    SPECIMEN,
    TASKS,
    TRANSFORMERS_BASELINE,
    VERDICTS,
)


def specimen() -> dict[str, Any]:
    """A complete record: eight tasks, eight candidates in two runtimes, PASS, FAIL, UNKNOWN, and unknown values."""
    verdicts = [
        _verdict(name, task, margin_row)
        for name, rows in VERDICTS.items()
        for task, margin_row in zip(TASKS, rows, strict=True)
    ]
    return {
        "schema": 1,
        "quantwise": "0.1.0",
        "question_hash": "5bec1e9000000000000000000000c0de",
        "created": "2026-01-02T03:04:05+00:00",
        "question": _question(),
        "machine": {"cpu": SPECIMEN, "cores": 2, "memory_bytes": 8 * 1024**3, "os": "Linux"},
        "versions": {"python": "3.11.2", "torch": "2.9.0", "transformers": "5.1.0", "xllamacpp": "2026.1"},
        "decision": _decision(),
        "candidates": [_candidate(row) for row in CANDIDATES],
        "verdicts": verdicts,
        "noise": [
            {"runtime": runtime, "task": task, "n": 64, "flips": 1 if (runtime, task) == ("llamacpp", "recall") else 0}
            for runtime in ("transformers", "llamacpp")
            for task in TASKS
        ],
        "screen": _screen(),
        "costs": [_cost(row) for row in CANDIDATES],
        "energy_meters": [],
        "timing": {"plan": 0.4, "build": 21.7, "screen": 48.2, "certify": 402.9, "decide": 0.1},
        "generations": 21_440,
        "generations_per_s": 47.5,
    }


def specimen_flips() -> list[dict[str, Any]]:
    """A dozen flips with outputs side by side: several scripts, markup, an empty answer."""
    keys = ("task", "candidate", "prompt", "target", "baseline_output", "candidate_output", "baseline_score",
            "candidate_score")  # fmt: skip
    return [
        {
            **dict(zip(keys, row, strict=True)),
            "item": f"{row[0]}-{number:05d}",
            "baseline": LLAMACPP_BASELINE if "llamacpp" in row[1] else TRANSFORMERS_BASELINE,
        }
        for number, row in enumerate(FLIPS)
    ]


def _question() -> dict[str, Any]:
    return {
        "model": {"name": f"specimen-4M ({SPECIMEN})", "hash": "feed" * 8},
        "scenario": {
            "name": "demo",
            "objective": "bytes, then time",
            "note": "Margins of 5 pp are wider than the defaults; they were declared before any candidate was run.",
        },
        "tasks": [
            {"name": name, "margin": 0.05, "role": "gate", "floor": 0.7 if name == "code" else None, "items": ITEMS,
             "summary": summary}
            for name, summary in TASKS.items()
        ],
        "alpha": 0.05,
        "multiplicity": {"m": 2, "rule": "bonferroni"},
        "mode": "sequential",
        "seed": 0,
    }  # fmt: skip


def _verdict(name: str, task: str, row: tuple[int, int, int, str, str]) -> dict[str, Any]:
    n, regressions, improvements, verdict, reason = row
    delta = (improvements - regressions) / n
    half = 3.0 * (regressions + improvements + 2) ** 0.5 / n
    unknown = verdict == "UNKNOWN"
    forecast = [600, 900, 1500] if reason in ("need_n", "budget") else None
    sentence = {
        "PASS": "Not worse by 5 pp or more on these items at alpha 0.05.",
        "FAIL": f"Worse by 5 pp or more on these items: {regressions} regressions against {improvements} improvements.",
        "UNKNOWN": f"The drop is at most {100 * (half - delta):.1f} pp (95 %); that does not settle a margin of 5 pp.",
    }
    return {
        "candidate": name,
        "baseline": LLAMACPP_BASELINE if name.endswith("llamacpp") else TRANSFORMERS_BASELINE,
        "task": task,
        "verdict": verdict,
        "reason": reason,
        "n": n,
        "delta": delta,
        "interval": [max(delta - half, -1.0), min(delta + half, 1.0)],
        "flips": regressions + improvements,
        "regressions": regressions,
        "improvements": improvements,
        "margin": 0.05,
        "z": 1.0 - 20.0 * max(-delta, 0.0),
        "e_pass": {"PASS": 52.0, "FAIL": 0.0004, "UNKNOWN": 3.1}[verdict],
        "e_fail": {"PASS": 0.002, "FAIL": 4.2e6, "UNKNOWN": 0.6}[verdict],
        "n_more": forecast,
        "minutes_more": 4.5 if forecast else None,
        "smallest_margin": 0.062 if unknown else None,
        "max_drop": half - delta,
        "explanation": sentence[verdict],
        "stopped_at_n": n if verdict == "PASS" else None,
    }


def _candidate(row: tuple[str, str, str, int, float | None, float | None]) -> dict[str, Any]:
    source, runtime, role, size, bits, _seconds = row
    name = f"{source}@{runtime}"
    ours = role == "" or runtime == "llamacpp"
    damped = [{"where": "layers.3.mlp.down_proj", "what": "Cholesky failed; damping raised from 1 % to 10 %"}]
    tied = [{"where": "embed_tokens", "what": "kept in 16 bit because it is tied to the output head"}]
    overall = {
        "rtn:int8-channel@transformers": (-0.001, [-0.010, 0.008], "PASS", "Passes every gate."),
        "rtn:int4-g64@transformers": (-0.043, [-0.061, -0.025], "FAIL", "Fails arithmetic and multilingual."),
        "gptq:int4-g64@transformers": (-0.019, [-0.035, -0.003], "UNKNOWN", "Two of eight gates are open."),
        "rtn:int4-tensor@transformers": (-0.678, [-0.760, -0.590], "FAIL", "The negative control fails, as it should."),
        "q8_0@llamacpp": (0.0, [-0.009, 0.009], "PASS", "Passes every gate."),
        "q4_0@llamacpp": (-0.033, [-0.051, -0.015], "FAIL", "Fails arithmetic."),
    }.get(name)
    keys = ("delta", "interval", "verdict", "explanation")
    return {
        "name": name,
        "source": source,
        "runtime": runtime,
        "cache": "f16",
        "baseline": role == "baseline",
        "control": role == "control",
        "shippable": role == "",
        "note": "Stored small, dequantized to be computed: a quality verdict only."
        if role in ("quality", "control")
        else None,
        "artifact": {
            "location": f"artifacts/{source.replace(':', '-')}",
            "format": "gguf" if runtime == "llamacpp" else "compressed-tensors",
            "hash": f"{len(source):02d}" * 16,
            "bytes": size,
            "recipe": source,
            "bits_per_weight": bits,
            "build_seconds": None if role == "baseline" else 2.9,
            "degradations": (damped if source.startswith("gptq") else []) + (tied if "int4" in source else []),
        },
        "fit": None
        if role == "control"
        else {
            "candidate": name,
            "weights_bytes": size,
            "cache_bytes": 3_145_728,
            "overhead_bytes": 67_108_864 if ours else None,
            "limit_bytes": 8 * 1024**3,
            "fits": "yes" if ours else "unknown",
            "fix": None,
        },
        "footprint": _footprint(role, runtime, size),
        "accuracy": {task: {"n": 256, "mean": mean} for task, mean in zip(TASKS, ACCURACY, strict=True)},
        "overall": None if overall is None else dict(zip(keys, overall, strict=True)),
    }


def _footprint(role: str, runtime: str, size: int) -> dict[str, int | None] | None:
    if role in ("quality", "control"):
        return None
    ours = runtime == "llamacpp"
    return {
        "weights_bytes": size,
        "cache_bytes": 3_145_728 if ours else None,
        "compute_bytes": 12_582_912 if ours else None,
        "peak_process_bytes": 96_468_992 if ours else 712_400_896,
    }


def _cost(row: tuple[str, str, str, int, float | None, float | None]) -> dict[str, Any]:
    source, runtime, role, size, _bits, seconds = row
    footprint = _footprint(role, runtime, size) or {}
    return {
        "candidate": f"{source}@{runtime}",
        "artifact_bytes": size,
        "memory_bytes": footprint.get("peak_process_bytes"),
        "seconds_per_item": seconds,
        "p99_over_p50": 1.8 if runtime == "llamacpp" else None,
        "tokens_per_s": 14.0 / seconds if seconds else None,
        "joules_per_item": None,
        **_percentiles(seconds if runtime == "llamacpp" else None),
    }


def _percentiles(mean: float | None) -> dict[str, float | bool | None]:
    """Of what a mean request takes; to the first token a fifth of that."""
    factors = {"p50": 0.9, "p95": 1.4, "p99": 1.62}
    found = {f"{name}_seconds": mean * factor if mean else None for name, factor in factors.items()}
    found |= {f"{name}_first_token_seconds": mean * factors[name] / 5 if mean else None for name in ("p50", "p95")}
    return found | {f"{name}_infinite": False for name in (*found, "p99_over_p50")}


def _screen() -> list[dict[str, Any]]:
    rows: tuple[tuple[str, float, float | None, float | None, float | None, float | None], ...] = (
        ("rtn:int8-channel@transformers", 0.90, 0.0004, 0.004, 0.994, 9.81),
        ("rtn:int4-g64@transformers", 0.85, 0.031, 0.36, 0.921, 10.44),
        ("gptq:int4-g64@transformers", 0.88, 0.014, 0.15, 0.951, 10.02),
        ("rtn:int4-tensor@transformers", 0.22, 1.92, 9.7, 0.401, 71.3),
        ("q8_0@llamacpp", 0.90, None, None, None, None),
        ("q4_0@llamacpp", 0.87, None, None, None, None),
    )
    keys = ("candidate", "accuracy", "kl_mean", "kl_p99", "same_top", "perplexity")
    return [{**dict(zip(keys, row, strict=True)), "n": 96} for row in rows]


_NO_GAIN = "Stored small and dequantized to be computed: not faster, not smaller."


def _decision() -> dict[str, Any]:
    return {
        "ship": "q8_0@llamacpp",
        "status": "ship",
        "headline": "Ship q8_0@llamacpp: it passes all 8 gates at a margin of 5 pp and is 54 % of the bytes of bf16.",
        "fallback": LLAMACPP_BASELINE,
        "rollback": TRANSFORMERS_BASELINE,
        "because": [
            "Non-inferior to bf16@llamacpp on each of 8 tasks at a margin of 5 pp, alpha 0.05, two candidates counted.",
            "It is the smallest candidate that passes every gate: 4.69 MiB against 8.60 MiB.",
            "The negative control failed on 8 of 8 tasks, so the tasks can see damage.",
        ],
        "ruled_out": [
            {"candidate": "q4_0@llamacpp", "why": "Fails arithmetic: 46 regressions, 9 improvements, 288 items."},
            {"candidate": "rtn:int8-channel@transformers", "why": _NO_GAIN},
            {"candidate": "gptq:int4-g64@transformers", "why": _NO_GAIN},
            {"candidate": "rtn:int4-g64@transformers", "why": "Fails arithmetic and multilingual."},
            {"candidate": "rtn:int4-tensor@transformers", "why": "Negative control: measured, and never shipped."},
        ],
        "unmeasured": ["energy per item", "latency under concurrent load", "contexts longer than 1,024 tokens"],
        "best_supported": "q8_0@llamacpp",
    }  # fmt: skip
