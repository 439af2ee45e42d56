"""One llama.cpp server of the xllamacpp wheel, started as asked: its start-up log on stderr, its memory on stdout.

``python llamacpp_log_arm.py '{"model": ..., "context": ..., ...}'``; with ``prompt`` above 0 it computes a prompt of so
many tokens before memory is read. The log is kept beside the model meanwhile. It ends without stopping the server,
because a benchmark starts hundreds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request
from pathlib import Path
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


def complete(log: Path) -> bytes:
    """The log once it tells that the server listens: another thread writes it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        text = log.read_bytes()
        if b"listening on http" in text:
            return text
        time.sleep(0.02)
    raise RuntimeError("the log does not say that the server listens")


def serve(options: dict[str, Any]) -> None:
    """Start the server, ask it, print what it takes."""
    import xllamacpp as x

    told, log = os.fdopen(os.dup(2), "wb"), Path(options["model"]).with_suffix(".log")
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), 2)
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
    try:
        server = x.Server(params)  # kept: it ends where nothing refers to it
    except RuntimeError:
        told.write(log.read_bytes())
        told.flush()
        raise
    if options["prompt"]:
        ask(port, options["prompt"])
    found = resident() | {"before": before["resident"]}
    told.write(complete(log))
    told.flush()
    print(json.dumps(found), flush=True)
    if server is not None:
        os._exit(0)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
