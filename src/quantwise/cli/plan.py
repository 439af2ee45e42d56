"""``quantwise plan MODEL``: what each precision needs at a site, what fits, what would make the rest fit, how fast."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantwise.cli.arguments import byte_count, positive
from quantwise.cli.plan_options import refuse_idle

if TYPE_CHECKING:
    from quantwise.plan.training_job import TrainingJob
    from quantwise.planning import PlanRequest

_SEQUENCE = 2048

_EXAMPLES = """examples:
  quantwise plan llama-3.1-8b --site rtx-4090 --context 16384 --concurrency 8
  quantwise plan model-Q4_K_M.gguf --site rtx-3090 --gpu-layers 20
  quantwise plan owner/name --runtime vllm --site h100 --scheme int4-g128
  quantwise plan llama-3.1-70b --runtime vllm --site h100 --tensor-parallel 4
  quantwise plan qwen3-4b qwen3-8b qwen3-14b --memory 12GB
  quantwise plan llama-3.1-8b --train qlora --rank 16 --site rtx-4090
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser(
        "plan",
        help="memory and speed, from headers alone",
        description="Memory and speed of a model at a site, from headers; of several, what fits.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "models", nargs="*", metavar="MODEL",
        help="folder, config.json, .gguf file, hub id or preset name (default: the reference model); several sizes "
        "of a family give the frontier at one memory",
    )  # fmt: skip
    p.add_argument("--scenario", metavar="S", help="laptop, nas, lab-server, demo, or a .toml or .yaml file")
    p.add_argument("--site", metavar="S", help="hardware by name (rtx-4090, h100, m4-max, ...) or a file; "
                   "default: the scenario's")  # fmt: skip
    p.add_argument(
        "--memory", type=byte_count, metavar="SIZE", help="memory that the model may take: 12GiB, or 12GB (10^9)"
    )
    p.add_argument("--context", type=positive, metavar="N", help="tokens per request")
    p.add_argument("--concurrency", type=positive, metavar="N", help="requests at a time")
    p.add_argument("--runtime", metavar="R", help="llamacpp (default), transformers or vllm")
    p.add_argument("--scheme", action="append", default=[], metavar="S",
                   help="such as q4_k_m or int4-g128; may be repeated (default: the usual ones)")  # fmt: skip
    p.add_argument("--cache", metavar="C", help="cache type of the runtime, such as q8_0 (default f16)")
    p.add_argument("--ubatch", type=positive, metavar="N", help="tokens llama.cpp computes at once (512)")
    p.add_argument("--gpu-layers", "-ngl", type=int, metavar="N", help="layers on the GPU (llama.cpp; default: all)")
    p.add_argument("--experts-on-cpu", type=int, metavar="N",
                   help="layers whose experts stay in main memory (llama.cpp's --n-cpu-moe)")  # fmt: skip
    p.add_argument("--host", metavar="S", help="the machine around the GPU, which computes what is not on it: a name, "
                   "a file, or its memory, such as 64GB (default: this one, if it was measured)")  # fmt: skip
    p.add_argument("--trace", metavar="FILE", help="serve these requests (CSV: arrival_s, prompt, output[, group, "
                   "prefix]), or 'drawn' ones, by each layout of the cache")  # fmt: skip
    _add_devices(p)
    _add_training(p)
    p.add_argument("--measure-machine", action="store_true",
                   help="measure this machine in a few seconds, keep that, and plan by it")  # fmt: skip
    p.add_argument("--refit", type=Path, metavar="LOG", help="refit a runtime's figures from its own start-up log")
    p.add_argument("--open", action="store_true", help="serve an interactive page on this machine and open it")
    p.add_argument("--json", action="store_true", help="print the plan as JSON")
    p.set_defaults(verb=run)


def _add_devices(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("several GPUs, each as the site says")
    group.add_argument("--tensor-parallel", "-tp", type=positive, default=1, metavar="N",
                       help="GPUs that share every layer (vllm, transformers)")  # fmt: skip
    group.add_argument("--pipeline-parallel", "-pp", type=positive, default=1, metavar="N",
                       help="runs of layers, one after another (llama.cpp's split by layers too)")  # fmt: skip


def _add_training(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("training")
    group.add_argument("--train", metavar="METHOD", help="full, lora, qlora, dora, ia3, prefix, prompt or adapter")
    group.add_argument("--sequence", type=positive, metavar="N", help="tokens of a text (2048)")
    group.add_argument("--batch", type=positive, metavar="N", help="texts at once (1)")
    group.add_argument("--rank", type=positive, metavar="N", help="rank of low-rank adapters, width of others (16)")
    group.add_argument("--targets", metavar="NAMES", help="matrices with a low-rank adapter, with commas between, or "
                       "all (default q_proj,v_proj)")  # fmt: skip
    group.add_argument("--precision", metavar="P", help="fp32, mixed or bf16 (default)")
    group.add_argument("--optimizer", metavar="O", help="adamw (default), adamw-8bit, paged-adamw-8bit, ...")
    group.add_argument("--checkpointing", action="store_true", help="keep the inputs of blocks only")


def run(arguments: argparse.Namespace) -> int:
    """Plan and print; the page instead with ``--open``."""
    from quantwise import planning

    refuse_idle(arguments)
    request = _request(arguments)
    if arguments.measure_machine:
        planning.measure(lambda line: print(f"quantwise: {line}", file=sys.stderr))
    if arguments.refit:
        record = planning.refit_from(arguments.refit, request)
    elif arguments.train:
        record = planning.train(request, _job(arguments))
    else:
        record = planning.plan(request)
    if arguments.json:
        print(json.dumps(record, indent=1))
    else:
        from quantwise.report.plan_screen import print_plan

        print_plan(record, sys.stdout)
    return _serve(request) if arguments.open else 0


def _serve(request: PlanRequest) -> int:
    """Show the page until the user stops it."""
    import webbrowser

    from quantwise.plan_server import plan_server

    with plan_server(request) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        print(f"the plan is at {address} (this machine only); stop with Ctrl-C", file=sys.stderr)
        webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def _request(arguments: argparse.Namespace) -> PlanRequest:
    from quantwise.planning import PlanRequest

    given = {
        name: getattr(arguments, name)
        for name in ("scenario", "site", "context", "concurrency", "runtime", "cache", "ubatch", "gpu_layers",
                     "experts_on_cpu", "tensor_parallel", "pipeline_parallel", "host", "trace")
    }  # fmt: skip
    return PlanRequest(
        models=tuple(arguments.models),
        schemes=tuple(arguments.scheme),
        memory_bytes=arguments.memory,
        **{name: value for name, value in given.items() if value is not None},
    )


def _job(arguments: argparse.Namespace) -> TrainingJob:
    from quantwise.plan.training_job import TrainingJob

    names = ("batch", "precision", "optimizer", "rank")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.targets is not None:
        given["targets"] = tuple(name.strip() for name in arguments.targets.split(","))
    return TrainingJob(
        method=arguments.train,
        sequence=arguments.sequence or _SEQUENCE,
        checkpointing=arguments.checkpointing,
        **given,
    )
