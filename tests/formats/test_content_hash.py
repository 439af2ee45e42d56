"""The content hash: what changes it, and what does not."""

from pathlib import Path

import pytest

from quantwise.core.errors import InputError
from quantwise.formats.content_hash import content_hash


def fill(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "a.json").write_text("1")
    (folder / "sub" / "b").write_bytes(b"\0" * 3_000_000)
    return folder


def test_equal_folders_are_equal_wherever_they_lie(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one"), fill(tmp_path / "two")
    (two / "quantwise.json").write_text("notes")
    (two / ".cache").mkdir()
    (two / ".cache" / "x").write_text("y")
    (two / "__init__.py").touch()
    (two / "__pycache__").mkdir()
    (two / "__pycache__" / "z.pyc").touch()
    assert content_hash(one) == content_hash(two)
    assert len(content_hash(one)) == 32


@pytest.mark.parametrize("change", ["byte", "name", "moved", "extra", "split"])
def test_any_change_shows(tmp_path: Path, change: str) -> None:
    folder = fill(tmp_path / "m")
    before = content_hash(folder)
    match change:
        case "byte":
            (folder / "a.json").write_text("2")
        case "name":
            (folder / "a.json").rename(folder / "c.json")
        case "moved":
            (folder / "a.json").rename(folder / "sub" / "a.json")
        case "extra":
            (folder / "empty").touch()
        case "split":
            (folder / "a.json").write_text("")
            (folder / "a.json1").write_text("1")
    assert content_hash(folder) != before


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        content_hash(tmp_path / "nowhere")
