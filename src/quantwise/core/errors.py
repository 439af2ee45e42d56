"""The error tree.

    QuantwiseError                 something stopped the work; exit code 1
    |-- InputError                 what the user gave is wrong; exit code 2
    `-- EnvironmentFailure         the machine or a tool failed; exit code 1
        `-- RuntimeFailure         a runtime crashed, hung or refused; exit code 1

A message is one line: what was wrong, what is allowed, what to do next. Errors of other libraries are translated where
we call them, and nowhere else.
"""


class QuantwiseError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class InputError(QuantwiseError):
    """The user's model, file, option or item is wrong; the message names it and says what is allowed."""

    exit_code = 2


class EnvironmentFailure(QuantwiseError):
    """The machine or an installed tool failed (disk full, missing extra, not enough memory)."""


class RuntimeFailure(EnvironmentFailure):
    """A runtime could not be started, crashed, or stopped answering."""
