"""llama.cpp's server from the ``xllamacpp`` wheel, in this process: ``python -m quantwise.runtimes.llamacpp_host``.

It takes the flags of ``llama-server`` that we use, by the same names, so that a native binary can take its place. The
API key comes in the environment (LLAMA_API_KEY), as for the binary, because a command line is for all to read.
"""

from __future__ import annotations

import argparse
import os
import threading
from typing import Any


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamacpp_host", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ctx-size", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    parser.add_argument("--threads", "-t", type=int)
    parser.add_argument("--threads-batch", "-tb", type=int)
    parser.add_argument("--batch-size", "-b", type=int)
    parser.add_argument("--ubatch-size", "-ub", type=int)
    parser.add_argument("--n-gpu-layers", "--gpu-layers", "-ngl", type=int)
    parser.add_argument("--chat-template")
    parser.add_argument("--cache-type-k", default="f16")
    parser.add_argument("--cache-type-v", default="f16")
    parser.add_argument("--flash-attn", "-fa", choices=["on", "off", "auto"], default="auto")
    parser.add_argument("--fit", choices=["on", "off"], default="on")
    parser.add_argument("--cache-ram", type=int, default=8192)
    parser.add_argument("--log-verbosity", type=int, default=3)
    parser.add_argument("--no-webui", action="store_true")
    return parser


def _params(flags: argparse.Namespace) -> Any:
    import xllamacpp as x

    params = x.CommonParams()
    params.model.path = flags.model
    params.hostnames = [flags.host]
    params.port = flags.port
    params.n_ctx = flags.ctx_size
    params.n_parallel = flags.parallel
    params.cache_type_k = getattr(x.ggml_type, f"GGML_TYPE_{flags.cache_type_k.upper()}")
    params.cache_type_v = getattr(x.ggml_type, f"GGML_TYPE_{flags.cache_type_v.upper()}")
    attention = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[flags.flash_attn]
    params.flash_attn_type = getattr(x.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{attention}")
    params.fit_params = flags.fit == "on"
    params.cache_ram_mib = flags.cache_ram
    params.verbosity = flags.log_verbosity
    params.ui = not flags.no_webui
    if flags.threads is not None:
        params.cpuparams.n_threads = flags.threads
        params.cpuparams_batch.n_threads = flags.threads
    if flags.threads_batch is not None:
        params.cpuparams_batch.n_threads = flags.threads_batch
    for name, value in _same_names(flags):
        setattr(params, name, value)
    if key := os.environ.get("LLAMA_API_KEY"):
        params.api_keys = [key]
    return params


def _same_names(flags: argparse.Namespace) -> list[tuple[str, Any]]:
    """Settings that are passed on as they are, of those that were given."""
    given = {
        "n_batch": flags.batch_size,
        "n_ubatch": flags.ubatch_size,
        "n_gpu_layers": flags.n_gpu_layers,
        "chat_template": flags.chat_template,
    }
    return [(name, value) for name, value in given.items() if value is not None]


def main() -> None:
    """Serve until killed."""
    import xllamacpp

    server = xllamacpp.Server(_params(_flags().parse_args()))
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main()
