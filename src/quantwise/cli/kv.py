"""``quantwise kv MODEL.gguf``: the options for the KV cache at your context length, measured in llama.cpp."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from quantwise.cli.arguments import duration, positive, share
from quantwise.core.errors import InputError

_EPILOG = """examples:
  quantwise kv model.gguf             at the model's own longest context
  quantwise kv model.gguf --context 32768 --text book.txt --types f16,q8_0
  quantwise kv model.gguf --flash-attention both --budget 30m

Every text fills the context. Recall is asked for at even depths, divergence is
that of the last 64 places and a lower bound, reading and writing are timed at
that depth, caches in turn. The others are compared with the first type.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser(
        "kv",
        help="what each KV cache type costs at your context length",
        description="KV cache types at a full context: recall, divergence, memory, speed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "model", nargs="?", type=Path, metavar="MODEL",
        help="a .gguf file, or a folder of safetensors (measured as f16); default the reference model",
    )  # fmt: skip
    p.add_argument("--context", type=positive, metavar="N", help="tokens (default the model's longest)")
    p.add_argument("--types", default=None, metavar="LIST", help="default f16,q8_0,q8_0/q4_0,q4_0; K/V apart with /")
    p.add_argument(
        "--flash-attention", choices=("on", "off", "both"), default="on",
        help="both: types whose values are not quantized come with and without it (default on)",
    )  # fmt: skip
    p.add_argument("--documents", type=positive, default=24, metavar="N", help="texts (default 24); more go on")
    p.add_argument("--questions", type=positive, default=8, metavar="N", help="facts in each text (default 8)")
    p.add_argument("--text", type=Path, metavar="FILE", help="what fills the context (default prose of ours)")
    p.add_argument("--margin", type=share, default=0.05, metavar="SHARE", help="acceptable drop of recall (5%%)")
    p.add_argument("--alpha", type=share, default=0.05, help="error rate of a PASS, all types together (default 0.05)")
    p.add_argument("--timed", type=positive, metavar="N", help="let times count of the first N texts only")
    p.add_argument("--threads", type=positive, metavar="N", help="default: all cores")
    p.add_argument("--budget", type=duration, metavar="TIME", help="stop after 30m (or 90s, 2h)")
    p.add_argument("--seed", type=int, default=0, help="of the texts (default 0)")
    p.add_argument("--run", type=Path, metavar="DIR", help="run folder; the same command goes on where it was")
    p.add_argument("--json", action="store_true", help="print the record as JSON")
    p.add_argument("--quiet", action="store_true", help="no progress")
    p.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print."""
    from quantwise.cache_study.request import TYPES, Request, parse_options
    from quantwise.cache_study.study import study
    from quantwise.report.cache_table import print_options
    from quantwise.report.progress import progress_on

    if not 0 < arguments.margin < 1 or not 0 < arguments.alpha < 0.5:
        raise InputError("--margin must lie between 0 and 1 and --alpha between 0 and 0.5; give 5% and 0.05")
    request = Request(
        model=arguments.model,
        options=parse_options(TYPES if arguments.types is None else arguments.types, arguments.flash_attention),
        context=arguments.context,
        documents=arguments.documents,
        questions=arguments.questions,
        timed=arguments.timed,
        text=arguments.text,
        margin=arguments.margin,
        alpha=arguments.alpha,
        seed=arguments.seed,
        threads=arguments.threads,
        budget_seconds=arguments.budget,
        run=arguments.run,
    )

    def tell(line: str) -> None:
        if not arguments.quiet:
            print(line, file=sys.stderr)

    with progress_on(sys.stderr, "silent" if arguments.quiet else "auto") as bar:
        record = study(request, bar, tell)
    if arguments.json:
        print(json.dumps(record, ensure_ascii=False, indent=1))
    else:
        print_options(record, sys.stdout)
    return 0
