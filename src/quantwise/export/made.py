"""What every export leaves: a folder that is whole or not there, and a record that says that nobody has run it here."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantwise import __version__
from quantwise.core.errors import EnvironmentFailure, InputError

NEVER_RUN = "never run here"
MANIFEST = "quantwise-export.json"


@dataclass(frozen=True, slots=True)
class Exported:
    """A folder for another tool: where from, where to, the command that serves it, and what to know first.

    ``artifact_hash`` is the content hash of what was exported; ``status`` says whether anybody here has run it.
    """

    to: str
    folder: str
    artifact: str
    artifact_hash: str
    command: str
    notes: tuple[str, ...]
    status: str = NEVER_RUN

    def to_json(self) -> dict[str, Any]:
        """The record beside the files."""
        return asdict(self) | {"quantwise": __version__}


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A hidden folder that becomes ``out`` when all is written, and is gone where something fails.

    Raises InputError where ``out`` holds something already, EnvironmentFailure where it cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise EnvironmentFailure(f"cannot write into {out.parent}: {error.strerror}; choose another --out") from error
    try:
        yield draft
        draft.chmod(0o755)
        draft.rename(out)
    except OSError as error:
        raise EnvironmentFailure(f"{out}: {error}; free the disk or choose another --out") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_manifest(folder: Path, exported: Exported) -> None:
    """Write the record."""
    (folder / MANIFEST).write_text(json.dumps(exported.to_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
