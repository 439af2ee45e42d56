"""A user's own flags for a server of ours, in one line of an environment variable."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from quantwise.core.errors import InputError


def further_flags(variable: str, decided: Mapping[str, str], line: str | None = None) -> tuple[str, ...]:
    """The flags in ``variable`` (or in ``line``) as a shell reads them. ``decided`` says of a flag who decides it.

    llama.cpp and vLLM both read ``--ctx_size`` as ``--ctx-size``, so it is one flag here. Raises InputError for a flag
    that is decided elsewhere.
    """
    try:
        flags = tuple(shlex.split(os.environ.get(variable, "") if line is None else line))
    except ValueError as error:
        raise InputError(f"{variable} cannot be read ({error}); write it as for a shell") from error
    for flag in flags:
        if (said := decided.get(flag.split("=")[0].replace("_", "-"))) is not None:
            raise InputError(f"{variable}: {flag} is decided by {said}; leave it out")
    return flags
