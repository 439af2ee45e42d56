"""A TOML or YAML file as a record."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

from quantwise.core.errors import EnvironmentFailure, InputError

SUFFIXES = (".toml", ".yaml", ".yml")
# A YAML file of this size is no scenario, and its aliases may unfold into far more.
_MOST_BYTES = 1 << 20


def read_record(path: Path) -> dict[str, Any]:
    """The table that a ``.toml``, ``.yaml`` or ``.yml`` file holds.

    Raises InputError where it cannot be read or holds something else, EnvironmentFailure where YAML has no reader here.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes are too many for a scenario or site; check the file")
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else _yaml(text, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; give a .toml or .yaml file that is there"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "YAML"
        raise InputError(f"{path}: not {kind} ({_line(error)})") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InputError(f"{path}: must hold a table of names and values")
    return found


def _yaml(text: str, path: Path) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError as error:
        raise EnvironmentFailure(
            f"{path}: YAML needs the pyyaml package, which is not installed here; install it, or write TOML"
        ) from error
    if "&" in text and any(isinstance(event, yaml.AliasEvent) for event in _events(yaml, text, path)):
        raise InputError(f"{path}: YAML with aliases is not read; write the values out")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not YAML ({_line(error)})") from error


def _events(yaml: Any, text: str, path: Path) -> Any:
    try:
        yield from yaml.parse(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({_line(error)})") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
