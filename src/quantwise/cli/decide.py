"""``quantwise decide``: the whole story, ending in one screen and a page."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from quantwise.cli.arguments import (
    add_calibration,
    add_decoding,
    add_retry,
    calibration_set,
    decoding_given,
    duration,
    positive,
    share,
    task_share,
)

_EPILOG = """examples:
  quantwise decide                  the model in the package: a demo of minutes
  quantwise decide path/to/model --candidate q8_0 --candidate gptq:int4-g64 \\
      --tasks my.jsonl
  quantwise decide --baseline model-f16.gguf --candidate model-q4_0.gguf \\
      --tasks my.jsonl --margin my=2%
  quantwise decide --baseline http://nas:8080 --candidate http://nas:8081 \\
      --tasks my.jsonl

A task file holds one {"id", "prompt", "target", "scorer"} a line. Stopped at
any moment, the same command goes on; --run names the folder of a run.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser(
        "decide",
        help="plan, build, measure, compare and decide",
        description="What to ship. Without arguments: the demo, on the model in the package.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "model",
        nargs="*",
        metavar="MODEL",
        help="folder with config.json and safetensors, or a hub id; of several, "
        "[NAME=]MODEL each, candidates are NAME:C or, without a name, of each model",
    )
    p.add_argument("--scenario", default=None, metavar="S", help="laptop, nas, lab-server, demo, or a TOML file")
    p.add_argument(
        "--tasks", nargs="+", action="extend", metavar="T", help="suites by name, or task files (see docs/tasks.md)"
    )
    p.add_argument(
        "--candidate", action="append", metavar="C",
        help="a recipe, .gguf file, folder, hub id (owner/name, owner/name-GGUF:*Q4_K_M*) or server URL, "
        "then @transformers, @llamacpp or @vllm where it is not the usual one, then ,kv=TYPE; repeatable",
    )  # fmt: skip
    p.add_argument(
        "--baseline", metavar="B", help="what candidates are compared with; default 16 bit in the same runtime"
    )
    p.add_argument(
        "--margin", action="append", type=task_share, metavar="TASK=SHARE", help="largest acceptable drop, code=1%%"
    )
    p.add_argument(
        "--floor", action="append", type=task_share, metavar="TASK=SHARE", help="absolute minimum score, code=70%%"
    )
    p.add_argument("--alpha", type=share, help="error rate of a PASS (default from the scenario, 0.05)")
    p.add_argument("--multiplicity", choices=("bonferroni", "ladder"), default="bonferroni", help="default bonferroni")
    p.add_argument("--items", type=positive, metavar="N", help="certification items per task, at most")
    p.add_argument(
        "--fixed-n", type=positive, metavar="N", help="ask exactly N items per task, then one Tango test; no peeking"
    )
    p.add_argument("--budget", type=duration, metavar="TIME", help="stop certifying after 30m (or 90s, 2h) in all")
    add_retry(p)
    add_calibration(p)
    p.add_argument(
        "--parallel", type=positive, metavar="N", help="requests at a time (default: as the scenario has it)"
    )
    p.add_argument("--context", type=positive, metavar="N", help="tokens per request (default from the scenario)")
    add_decoding(p)
    p.add_argument("--seed", type=int, default=0, help="which items and calibration texts are taken (default 0)")
    p.add_argument(
        "--run", type=Path, metavar="DIR", help="run folder (default runs/HASH); the same command goes on where it was"
    )
    p.add_argument("--json", action="store_true", help="print the record as JSON")
    p.add_argument("--strict", action="store_true", help="exit 3 when the best candidate FAILs, 4 when it is UNKNOWN")
    p.add_argument("--quiet", action="store_true", help="no progress")
    p.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Decide, print, and return the exit code."""
    from quantwise import workbench
    from quantwise.question.across import named_models
    from quantwise.question.request import Request
    from quantwise.report.progress import progress_on

    request = Request(
        model=Path(arguments.model[0]) if len(arguments.model) == 1 else None,
        models=named_models(arguments.model) if len(arguments.model) > 1 else {},
        scenario=arguments.scenario,
        tasks=tuple(arguments.tasks or ()),
        candidates=tuple(arguments.candidate or ()),
        baseline=arguments.baseline,
        margins=dict(arguments.margin or ()),
        floors=dict(arguments.floor or ()),
        alpha=arguments.alpha,
        multiplicity=arguments.multiplicity,
        items=arguments.fixed_n or arguments.items,
        fixed=arguments.fixed_n is not None,
        budget_seconds=arguments.budget,
        calibration=calibration_set(arguments),
        parallel=arguments.parallel,
        context=arguments.context,
        seed=arguments.seed,
        decoding=decoding_given(arguments),
        run=arguments.run,
    )

    def tell(line: str) -> None:
        if not arguments.quiet:
            print(line, file=sys.stderr)

    with progress_on(sys.stderr, "silent" if arguments.quiet else "auto") as bar:
        record = workbench.decide(request, bar, tell, arguments.retry)
    return show(record, arguments)


def show(record: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Write the page, print the record as JSON or as one screen; the exit code follows the decision."""
    from quantwise import workbench
    from quantwise.report.page import render
    from quantwise.report.terminal import print_screen
    from quantwise.store import write_atomically

    folder = Path(record["folder"])
    page = folder / "report.html"
    write_atomically(page, render(record, workbench.flips(folder)))
    if arguments.json:
        json.dump(record, sys.stdout, ensure_ascii=False, indent=1)
        print()
    else:
        print_screen(record, sys.stdout, str(page))
    return exit_code(record) if arguments.strict else 0


def exit_code(record: dict[str, Any]) -> int:
    """0 when a candidate is acceptable, 3 when none is because candidates FAIL, 4 while that is unknown."""
    if record["decision"]["acceptable"]:
        return 0
    return {"ship": 0, "keep": 3, "unknown": 4}[record["decision"]["status"]]
