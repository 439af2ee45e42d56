"""The house: imports go down only, rooms of one floor do not know each other, and the light verbs stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "quantwise"

# From the top down. Rooms in one line are neighbours and may not import each other.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"report", "plan_server"},
    {"workbench", "planning", "evidence_exchange"},
    {"record", "prepare", "forecast", "fetch", "stand_in", "evidence_rows"},
    {"certify", "screen", "question", "endpoints", "calibration_study", "cache_study", "load"},
    {"settle", "prompts"},
    {"cost", "build", "measure", "losses", "store", "advise", "evidence_file", "export"},
    {"plan", "quantize", "transform", "runtimes", "tasks", "stats", "decision", "machine"},
    {"chat", "formats", "grids", "kv_cache", "models", "scenarios"},
    {"core"},
]
ROOM_OF_FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = {"torch", "transformers", "gguf", "xllamacpp", "compressed_tensors", "tokenizers", "safetensors", "accelerate"}
MAY_BE_HEAVY = {"quantize", "transform", "kv_cache", "grids", "build", "formats", "runtimes", "testing"}


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return parts[0] if parts[0] != "__init__" else "quantwise"


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every imported module, and whether the import stands at the top level of its file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [
                f"{node.module}.{a.name}" if node.module in ("quantwise", "quantwise.cli") else node.module
                for a in node.names
            ]
            found += [(name, id(node) in top) for name in names]
        elif isinstance(node, ast.Import):
            found += [(a.name, id(node) in top) for a in node.names]
    return found


def breaches(path: Path) -> list[str]:
    mine = room(path)
    if mine in ("quantwise", "testing"):
        return []
    bad = []
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] != "quantwise" or len(parts) == 1 or parts[1] == "__version__":
            continue
        other = parts[1]
        if other == "testing":
            bad.append(f"{path.relative_to(SRC)} imports the testing room")
        elif other != mine and ROOM_OF_FLOOR[other] <= ROOM_OF_FLOOR[mine]:
            bad.append(f"{path.relative_to(SRC)} ({mine}) imports {name}, which is not below it")
    return bad


def test_every_room_stands_on_a_floor() -> None:
    assert {room(p) for p in modules()} - {"quantwise", "testing"} <= set(ROOM_OF_FLOOR)


def test_imports_go_down_only() -> None:
    assert [b for path in modules() for b in breaches(path)] == []


def test_a_planted_upward_import_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SRC", tmp_path)
    planted = tmp_path / "stats" / "bad.py"
    planted.parent.mkdir()
    planted.write_text("from quantwise.workbench import decide\n")
    assert len(breaches(planted)) == 1


def test_heavy_libraries_stay_in_their_rooms() -> None:
    bad = [
        f"{path.relative_to(SRC)} imports {name}"
        for path in modules()
        for name, _ in imports(path)
        if name.split(".")[0] in HEAVY and room(path) not in MAY_BE_HEAVY
    ]
    assert bad == []


COUNTS = ["--regressions", "1", "--improvements", "1", "--items", "99"]


@pytest.mark.parametrize("arguments", [["--help"], ["verdict", *COUNTS, "--margin", "1%"], ["plan"], ["advise"]])
def test_light_verbs_load_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom quantwise.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_forbidden_file_names() -> None:
    names = {"utils", "util", "helpers", "helper", "manager", "factory", "common", "misc"}
    assert [p for p in modules() if p.stem in names] == []
