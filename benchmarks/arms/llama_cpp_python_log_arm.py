"""One model opened by llama-cpp-python, which reserves logits for a whole batch: the log goes to stderr.

``python llama_cpp_python_log_arm.py '{"model": ..., "context": ..., ...}'``, with a Python that has llama-cpp-python.
"""

from __future__ import annotations

import json
import os
import sys

from llama_cpp import Llama

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}


def main() -> None:
    """Open it and end."""
    options = json.loads(sys.argv[1])
    opened = Llama(
        options["model"],
        n_ctx=options["context"],
        n_ubatch=options["ubatch"],
        n_batch=2048,
        flash_attn=options["flash_attention"],
        swa_full=options["whole_window"],
        type_k=TYPES[options["keys"]],
        type_v=TYPES[options["values"]],
        n_threads=1,
        verbose=True,
    )
    sys.stderr.flush()
    os._exit(0 if opened else 1)


if __name__ == "__main__":
    main()
