"""The reference model that ships with the package: weights, tokenizer, config and card in the Hugging Face layout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def path() -> Path:
    """The folder with ``config.json``, ``model.safetensors`` and the tokenizer."""
    return Path(str(files(__name__)))
