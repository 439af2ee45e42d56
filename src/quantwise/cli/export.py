"""``quantwise export ARTIFACT --to ollama|tensorrt-llm``: an artifact as another tool wants it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from quantwise.cli.arguments import positive


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser(
        "export",
        help="write an artifact as Ollama or TensorRT-LLM wants it",
        description="A folder for Ollama (GGUF, Modelfile) or TensorRT-LLM (ModelOpt's layout). Neither was run here.",
    )
    p.add_argument("artifact", type=Path, metavar="ARTIFACT", help="a folder that `quantwise build` made, or a .gguf")
    p.add_argument("--to", required=True, choices=("ollama", "tensorrt-llm"), help="the tool")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to be written; must not be there")
    p.add_argument("--context", type=positive, metavar="N", help="Ollama: num_ctx (default 4096, or the model's own)")
    p.add_argument(
        "--model", type=Path, metavar="MODEL", help="Ollama: folder with the generation_config.json to follow"
    )
    p.add_argument("--json", action="store_true", help="print what was written as JSON")
    p.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Export, and say how it is served and that nobody here has done so."""
    from quantwise.core.errors import InputError

    if arguments.to == "ollama":
        from quantwise.export import ollama

        done = ollama.export(arguments.artifact, arguments.out, context=arguments.context, model=arguments.model)
    else:
        from quantwise.export import tensorrt_llm

        if arguments.context is not None or arguments.model is not None:
            raise InputError("--context and --model are for Ollama; leave them out")
        done = tensorrt_llm.export(arguments.artifact, arguments.out)
    if arguments.json:
        json.dump(done.to_json(), sys.stdout, ensure_ascii=False, indent=1)
        print()
        return 0
    print(f"{done.folder}: {done.artifact} for {done.to}, {done.status}\n  {done.command}")
    for note in done.notes:
        print(f"  note: {note}")
    return 0
