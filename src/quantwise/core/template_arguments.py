"""What a chat template is told beside the messages, such as ``enable_thinking`` of Qwen3."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quantwise.core.errors import InputError

TOKEN_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")
RESERVED = ("messages", "add_generation_prompt", "tools", "documents", *TOKEN_NAMES)
"""Names that every rendering gives a template by itself."""


def template_arguments_of(given: object) -> dict[str, Any]:
    """Texts, numbers, true and false by name. Raises InputError for anything else, and for names that are taken."""
    if not isinstance(given, Mapping):
        raise InputError("template_arguments must be a table, such as { enable_thinking = false }")
    for name, value in given.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"{name!r:.40} is no name of a template argument; write one such as enable_thinking")
        if name in RESERVED:
            raise InputError(f"template argument {name} is given by quantwise itself; leave it out")
        if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"template argument {name} must be true, false, a number or a text, not {value!r:.40}")
    return dict(given)
