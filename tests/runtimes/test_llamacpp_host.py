"""The wheel's server takes further flags by llama-server's names, and they reach llama.cpp."""

from __future__ import annotations

from operator import attrgetter

import pytest

from quantwise.core.runtime import RuntimeOptions
from quantwise.runtimes.llamacpp import LlamaCpp
from quantwise.runtimes.llamacpp_host import _flags, _params


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("-ngl 7", {"n_gpu_layers": 7}),
        ("--n-gpu-layers 0", {"n_gpu_layers": 0}),
        ("--gpu-layers=99", {"n_gpu_layers": 99}),
        ("-b 96 -ub 48", {"n_batch": 96, "n_ubatch": 48}),
        ("--batch-size 80", {"n_batch": 80}),
        ("-t 5", {"cpuparams.n_threads": 5, "cpuparams_batch.n_threads": 5}),
        ("-tb 3 -t 6", {"cpuparams.n_threads": 6, "cpuparams_batch.n_threads": 3}),
        ("--threads-batch 4", {"cpuparams_batch.n_threads": 4}),
    ],
)
def test_a_further_flag_reaches_llama_cpp(line: str, settings: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTWISE_LLAMA_SERVER", raising=False)

    def told(flags: str) -> dict[str, int]:
        command = LlamaCpp(flags=flags)._command("model.gguf", 8080, RuntimeOptions())
        params = _params(_flags().parse_args(command[command.index("--model") :]))
        return {name: attrgetter(name)(params) for name in settings}

    assert told(line) == settings
    assert all(told("")[name] != value for name, value in settings.items())
