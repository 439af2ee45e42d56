"""One llama.cpp server of the xllamacpp wheel, started as asked: its start-up log on stderr, its memory on stdout.

``python llamacpp_log_arm.py '{"model": ..., "context": ..., ...}'``; with ``prompt`` above 0 it computes a prompt of so
many tokens before memory is read. Ends without stopping the server properly, because a benchmark starts hundreds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request
from typing import Any


def resident() -> dict[str, int]:
    """Bytes of this process, now and at most."""
    with open("/proc/self/status", encoding="ascii") as status:
        found = dict(line.split(":", 1) for line in status)
    kilobytes = {name: int(found[key].split()[0]) for name, key in FIELDS.items()}
    return {name: 1024 * value for name, value in kilobytes.items()}


FIELDS = {"resident": "VmRSS", "most": "VmHWM", "anonymous": "RssAnon", "file": "RssFile"}


def ask(port: int, tokens: int) -> None:
    """One prompt and one token of answer."""
    body = json.dumps({"prompt": [7 + i % 50 for i in range(tokens)], "n_predict": 1, "cache_prompt": False})
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/completion", body.encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=300).read()


def serve(options: dict[str, Any]) -> None:
    """Start the server, ask it, print what it takes."""
    import xllamacpp as x

    before = resident()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    params = x.CommonParams()
    params.model.path = options["model"]
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_ctx, params.n_parallel = options["context"] * options["slots"], options["slots"]
    params.kv_unified, params.swa_full = options["unified"], options["whole_window"]
    params.n_ubatch = options["ubatch"]
    params.cache_type_k = getattr(x.ggml_type, f"GGML_TYPE_{options['keys'].upper()}")
    params.cache_type_v = getattr(x.ggml_type, f"GGML_TYPE_{options['values'].upper()}")
    flash = "ENABLED" if options["flash_attention"] else "DISABLED"
    params.flash_attn_type = getattr(x.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{flash}")
    params.fit_params, params.cache_ram_mib, params.ui = False, 0, False
    params.n_ctx_checkpoints = 0
    params.warmup, params.verbosity = False, 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = x.Server(params)  # kept: it ends where nothing refers to it
    if options["prompt"]:
        ask(port, options["prompt"])
    print(json.dumps(resident() | {"before": before["resident"]}))
    sys.stdout.flush()
    sys.stderr.flush()
    if server is not None:
        os._exit(0)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
