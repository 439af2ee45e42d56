"""General prose: documents of other people's texts, which stand for what a model reads that no suite is like."""

from __future__ import annotations

import os
from pathlib import Path

_SHORTEST, _LONGEST = 200, 1500


def general_prose(notes: list[str]) -> list[str]:
    """Documents of ``QUANTWISE_DATA/text/*.txt``; without them a note, and no texts."""
    home = os.environ.get("QUANTWISE_DATA")
    files = sorted((Path(home) / "text").glob("*.txt")) if home else []
    if not files:
        why = "holds no text/*.txt" if home else "is not set"
        notes.append(f"general prose was left out: QUANTWISE_DATA {why} (a folder with text/*.txt)")
    documents = []
    for file in files:
        for story in file.read_text(encoding="utf-8", errors="replace").split("<|endoftext|>"):
            whole = len(story) <= 4 * _LONGEST
            parts = [story] if whole else story.replace("\r", "").split("\n\n")
            documents += [part.strip()[:_LONGEST] for part in parts if len(part.strip()) >= _SHORTEST]
    return list(dict.fromkeys(documents))
