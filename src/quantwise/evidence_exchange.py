"""Evidence that travels: rows of one candidate leave a run folder, and enter that of the same question elsewhere.

A baseline that has no room here is measured once where it has, and its rows are brought along. They are taken only
where everything that shapes an answer is the same: items, template, scorers, seed, context, requests at a time, cache
scheme, the artifact's content and the runtime's build. Scores are computed again from the outputs.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantwise import __version__
from quantwise.core.artifact import Candidate
from quantwise.core.errors import InputError
from quantwise.core.evidence import Measurement, Stage
from quantwise.core.imported import Imported
from quantwise.core.item import Item
from quantwise.core.question import Question, TaskQuestion
from quantwise.evidence_file import EvidenceFile, artifact_of, read, row_of, written
from quantwise.evidence_rows import STAGES, frozen_tasks, whole_rows
from quantwise.prepare import recipe_of
from quantwise.store import Store, write_atomically

# What a question says beside how an item is asked; all else of it must be the same on both machines.
_NOT_ASKED = {
    "model", "model_hash", "scenario", "tasks", "candidates", "calibration", "runtimes", "brought", "alpha", "mode",
    "multiplicity", "block", "parallel",
}  # fmt: skip
_NOT_ASKED_OF_TASK = {"source", "margin", "floor", "role", "items", "screen_items", "available"}


def export(folder: Path, out: Path, candidate: str | None = None) -> dict[str, Any]:
    """Write the rows of a candidate (the baseline where none is named) to ``out``; returns what was written.

    Raises InputError where the run has no such candidate, never measured it or had it from elsewhere, or where its
    task files have changed since.
    """
    if (out.exists() and not out.is_file()) or not out.name or not out.parent.is_dir():
        what = "its folder is not there" if not out.parent.is_dir() else "that is no place for a file"
        raise InputError(f"--out {out}: {what}; name a file in a folder that is there")
    with Store(folder) as store:
        question = store.question()
        chosen = _chosen(question, candidate)
        if chosen.name in store.imported():
            raise InputError(f"{chosen.name} was imported into {folder}; export it where it was measured")
        artifact = store.get("artifact", chosen.name)
        if artifact is None or artifact["format"] == "server":
            why = "it was never built" if artifact is None else "a server's weights have no hash to know them by"
            raise InputError(f"{chosen.name} cannot be exported: {why}; export a file or a folder that was measured")
        measured = {stage: store.rows(stage, chosen.name) for stage in STAGES}
        facts = store.get("facts", "machine") or {"machine": {}}
    if not any(measured.values()):
        raise InputError(f"{chosen.name} has no rows in {folder}; `quantwise decide --run {folder}` measures it")
    asked = _asked_items(question, measured)
    rows = [row_of(row, asked[row.task][row.item]) for stage in STAGES for row in measured[stage]]
    header = {
        "quantwise": __version__,
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "question_hash": question.hash,
        "candidate": {"source": chosen.source, "runtime": chosen.runtime, "cache": chosen.cache},
        "artifact": artifact_of(artifact),
        "model_hash": question.model_hash,
        "runtime_build": question.runtimes[chosen.runtime],
        "machine": str(facts["machine"].get("cpu") or "unknown processor"),
        "asked": _shape(question, chosen),
        "tasks": {task.name: _task_shape(task) for task in question.tasks},
    }
    write_atomically(out, written(header, rows))
    items = {t.name: len({r.item for r in measured["certify"] if r.task == t.name}) for t in question.tasks}
    return {"candidate": chosen.name, "file": str(out), "rows": len(rows), "items": items}


def take_in(folder: Path, file: Path, *, accept_build: bool = False) -> dict[str, Any]:
    """Bring the rows of ``file`` into a run folder, all or none; returns what was taken.

    A task's rows are taken in whole blocks from its first item on, so that nobody can choose among them; more can be
    brought later. Raises InputError, in one line, for what does not match this run.
    """
    found = read(file)
    with Store(folder) as store:
        question = store.question()
        chosen = _match(store, question, found, file)
        _check_asked(question, chosen, found, file)
        build = question.runtimes[chosen.runtime]
        if found.header["runtime_build"] != build and not accept_build:
            raise InputError(
                f"{file} was measured by {found.header['runtime_build']}, this run uses {build}, so it has expired; "
                "measure again with that build, or give --accept-build, and the record will say so"
            )
        _check_earlier(store, chosen, found, folder)
        items, rows, left_out = whole_rows(question, chosen, found, file)
        new = [r for r in rows if not store.has_block(r.candidate, r.stage, r.task, r.block)]
        if not rows:
            raise InputError(f"{file} holds no whole block of a task that this run asks; measure more items there")
        body = Imported(
            candidate=chosen.name,
            build=str(found.header["runtime_build"]),
            machine=str(found.header["machine"]),
            created=str(found.header["created"]),
            question_hash=str(found.header["question_hash"]),
            digest=found.digest,
            artifact=found.header["artifact"],
            items=_counts(store, question, chosen, rows),
            left_out=left_out,
        )
        store.add_block(items, new, ("imported", chosen.name, body.to_json()))
    return body.to_json() | {"rows": len(new), "degradation": body.differs(build)}


def _chosen(question: Question, name: str | None) -> Candidate:
    if name is None:
        baselines = [c for c in question.candidates if c.baseline]
        if len(baselines) > 1:
            named = " or ".join(c.name for c in baselines)
            raise InputError(f"this run has {len(baselines)} baselines; name one with --candidate: {named}")
        return baselines[0]
    found = next((c for c in question.candidates if c.name == name), None)
    if found is None:
        raise InputError(f"no candidate {name!r} in this run; it has {', '.join(c.name for c in question.candidates)}")
    return found


def _shape(question: Question, candidate: Candidate) -> dict[str, Any]:
    """Everything beside the items themselves that shapes the answers of a candidate."""
    plain = {name: value for name, value in question.to_json().items() if name not in _NOT_ASKED}
    return plain | {"requests at a time": question.requests(candidate.runtime)}


def _task_shape(task: TaskQuestion) -> dict[str, Any]:
    return {name: value for name, value in asdict(task).items() if name not in _NOT_ASKED_OF_TASK}


def _asked_items(question: Question, measured: Mapping[Stage, Sequence[Measurement]]) -> dict[str, dict[str, Item]]:
    """Task to id to item, of everything that was measured. Raises InputError where an item is not there any more."""
    tasks, found = frozen_tasks(question), defaultdict[str, dict[str, Item]](dict)
    for stage, rows in measured.items():
        for name in {row.task for row in rows}:
            ids = {row.item for row in rows if row.task == name}
            # The last block is asked whole, so that as many items as there are rows reach all of them.
            supplied = tasks[name].supply("certify" if stage == "certify" else "screen", len(ids), question.seed)
            found[name] |= {item.id: item for item in supplied}
            if lost := ids - set(found[name]):
                raise InputError(
                    f"item {sorted(lost)[0]} of {name} is not among its items any more; it cannot be checked"
                )
    return found


def _match(store: Store, question: Question, found: EvidenceFile, file: Path) -> Candidate:
    """The candidate of this run whose rows these are. Raises InputError where there is none."""
    theirs, artifact = found.header["candidate"], found.header["artifact"]
    for candidate in question.candidates:
        if (candidate.runtime, candidate.cache) != (theirs["runtime"], theirs["cache"]):
            continue
        built = store.get("artifact", candidate.name)
        here = question.brought.get(candidate.name) or (built["hash"] if built else None)
        if here == artifact["hash"] or (here is None and _same_conversion(question, candidate, found)):
            return candidate
    named = f"{theirs['source']}@{theirs['runtime']}" + ("" if theirs["cache"] == "f16" else f",kv={theirs['cache']}")
    raise InputError(
        f"{file} holds rows of {named} with content {artifact['hash'][:12]}, which no candidate of this run is "
        f"({', '.join(c.name for c in question.candidates)}); bring the very file or model that was measured there"
    )


def _same_conversion(question: Question, candidate: Candidate, found: EvidenceFile) -> bool:
    """Whether an artifact that is not built here is the same all the same: 16-bit weights of one model, converted."""
    if not question.model_hash or found.header["model_hash"] != question.model_hash:
        return False
    try:
        recipe = recipe_of(candidate)
    except InputError:
        return False
    return recipe.scheme.kind == "float" and recipe.name == found.header["artifact"]["recipe"]


def _check_asked(question: Question, chosen: Candidate, found: EvidenceFile, file: Path) -> None:
    ours, theirs = _shape(question, chosen), found.header["asked"]
    for name in sorted(set(ours) | set(theirs)):
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"{file} was measured with another {name.replace('_', ' ')} ({theirs.get(name)}, here "
                f"{ours.get(name)}); measure again there as this run asks"
            )
    for task in question.tasks:
        measured = found.header["tasks"].get(task.name)
        if measured is not None and measured != _task_shape(task):
            raise InputError(
                f"{file}: its items of {task.name} are not those of this run; give both the same {task.source}"
            )


def _check_earlier(store: Store, chosen: Candidate, found: EvidenceFile, folder: Path) -> None:
    """Rows of one candidate come from one machine and one build."""
    earlier = store.imported().get(chosen.name)
    if earlier is None and any(store.rows(stage, chosen.name) for stage in STAGES):
        raise InputError(f"{folder} has measured {chosen.name} itself; import into a run that has not")
    if earlier is not None and (earlier.build, earlier.artifact["hash"]) != (
        found.header["runtime_build"], found.header["artifact"]["hash"],
    ):  # fmt: skip
        raise InputError(
            f"{folder} holds rows of {chosen.name} by {earlier.build} already; import both into a new --run apart"
        )


def _counts(store: Store, question: Question, chosen: Candidate, rows: Sequence[Measurement]) -> dict[str, int]:
    """Certification items of each task, with those that an earlier import brought."""
    held = [*store.rows("certify", chosen.name), *(r for r in rows if r.stage == "certify")]
    return {t.name: len({r.item for r in held if r.task == t.name}) for t in question.tasks}
