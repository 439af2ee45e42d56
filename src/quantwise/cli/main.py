"""``quantwise``: one verb per stage. Results go to standard output, progress and errors to standard error."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from quantwise import __version__
from quantwise.core.errors import QuantwiseError

# Before they are first loaded: libraries keep their own progress bars and notices to themselves.
for _name, _value in (
    ("TQDM_DISABLE", "1"),
    ("TRANSFORMERS_VERBOSITY", "error"),
    ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ("TOKENIZERS_PARALLELISM", "false"),
):
    os.environ.setdefault(_name, _value)

VERBS = ("decide", "verdict", "plan", "build", "measure", "kv", "evidence", "export", "load", "report", "advise")
"""Each is a file of this folder."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"quantwise: {message}; see `{self.prog} --help`\n")


def parser(asked: str | None = None) -> argparse.ArgumentParser:
    """The whole command line, or of a verb that is asked for only that: the others need not be loaded."""
    top = _Parser(
        prog="quantwise",
        description="Which quantization to ship for your model, with evidence you can check.",
        epilog="Exit codes: 0 a decision or verdict was reached, 1 the environment failed, 2 bad input; "
        "with --strict also 3 (nothing passed, candidates FAIL) and 4 (UNKNOWN).",
    )
    top.add_argument("--version", action="version", version=f"quantwise {__version__}")
    verbs = top.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    for verb in (asked,) if asked in VERBS else VERBS:
        importlib.import_module(f"quantwise.cli.{verb}").add_parser(verbs)
    return top


def _advice(error: OSError) -> str:
    what = "free the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "mend that"
    return f"{what} or choose another folder, and run the same command again: it goes on where it was"


def _stop() -> NoReturn:
    """Say so and end the process here, for Python's own exit joins threads that still wait for a server's answer."""
    with suppress(OSError):
        print("\nquantwise: stopped; the same command goes on where it was", file=sys.stderr, flush=True)
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(130)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; every error that we foresee ends in one line and its exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    arguments = parser(given[0] if given else None).parse_args(given)
    try:
        return int(arguments.verb(arguments))
    except QuantwiseError as error:
        print(f"quantwise: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has left (`quantwise report RUN | head`); Python must not flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"quantwise: {error.filename or 'writing'}: {error.strerror or error}; {_advice(error)}", file=sys.stderr)
        return 1
    except MemoryError:
        print("quantwise: out of memory; close other programs, or take fewer --parallel or a smaller --context",
              file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        _stop()


if __name__ == "__main__":
    sys.exit(main())
