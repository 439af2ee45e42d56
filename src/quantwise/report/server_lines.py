"""What servers cannot do and what follows from it, and by what the prompts of the arms were compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def server_lines(record: Mapping[str, Any]) -> list[tuple[list[str], str]]:
    """(candidates, what is to be said of them); candidates of which the same is to be said stand together."""
    said: dict[str, list[str]] = {}
    for row in record.get("servers") or ():
        if row.get("missing"):
            said.setdefault("this server gives " + "; ".join(row["missing"]), []).append(str(row["candidate"]))
    for row in record.get("prompts") or ():
        for sentence in (row.get("says"), *row.get("notes", ())):
            if sentence and not row.get("differs"):
                said.setdefault(str(sentence), []).append(str(row["candidate"]))
    return [(names, sentence) for sentence, names in said.items()]


def compared_by_ids(record: Mapping[str, Any]) -> list[str]:
    """Candidates that read the same token ids as what they are compared with, on every probe."""
    rows = record.get("prompts") or ()
    return [str(row["candidate"]) for row in rows if row.get("compared") == "token ids" and not row.get("differs")]
