"""What the screen of ``quantwise plan --train`` says; lines as (label, text)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantwise.report import notation

_TERMS = ("weights", "adapters", "copies", "gradients", "optimizer", "activations", "recomputed", "logits", "update")


def training_head(record: Mapping[str, Any]) -> str:
    """Model, method, site and what memory depends on, in a line."""
    job = record["training"]
    return (
        f"{notation.shorten(record['model'], 40)} · {job['method']} at {record['site']} · batch {job['batch']} of "
        f"{notation.count(job['sequence'])} tokens · {job['precision']}, {job['optimizer']}"
        + (", checkpointing" if job["checkpointing"] else "")
    )


def training(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is trained, every term, the moments of a step, what may leave the GPU, what makes it fit, and notes."""
    share = notation.share(record["trainable_share"], 2)
    numbers = notation.count(record["trainable_parameters"])
    yield "trains", f"{numbers} numbers, {share} of the model's{_beside(record)}"
    terms, paged = record["terms"], record["paged_to_host_bytes"]
    yield "terms", "; ".join(f"{name} {notation.size(terms[name])}" for name in _TERMS if terms.get(name))
    moments = "; ".join(f"{name} {notation.size(amount)}" for name, amount in record["moments"].items())
    yield "peak", moments + (f"; of each, {notation.size(paged)} of states may lie with the host" if paged else "")
    if paged:
        host = record["host"]
        yield (
            "host",
            f"up to {notation.size(paged)} of optimizer states may be paged to "
            + (
                "the machine around the GPU, whose memory is unknown (--host names it)"
                if host["limit_bytes"] is None
                else f"{host['name']}, which has {notation.size(host['limit_bytes'])}"
            ),
        )
    for number, fix in enumerate(record["fixes"]):
        yield "" if number else "to fit", fix["what"]
    for note in record.get("notes", ()):
        yield "note", note


def _beside(record: Mapping[str, Any]) -> str:
    job = record["training"]
    if record["targets"]:
        return f": rank {job['rank']} beside {', '.join(record['targets'])} (--rank, --targets)"
    if job["method"] == "adapter":
        return f": bottlenecks of {job['rank']} (--rank)"
    return f": {job['virtual']} virtual tokens" if job["method"] in ("prefix", "prompt") else ""
