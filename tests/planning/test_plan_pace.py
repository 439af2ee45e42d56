"""A plan answers in under half a second of processor time, whatever the size of the model: a whole process, as a user
starts it. The best of several counts, because others share this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quantwise.models.presets import PRESETS
from quantwise.plan.serving_settings import RUNTIMES

LIMIT_S = 0.5
TRIES = 5
PAUSE_S = 6.0
"""Between tries: what slows a shared machine down does so for some seconds, and would slow all tries alike."""
SITES = ("rtx-4090", "laptop", "h100", "m4-max", "rtx-3090", "mi300x", "x86-vnni")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With a place for bytecode, which an installed package has; one thread for whatever counts with several."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kept |= {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode")), "OMP_NUM_THREADS": "1"}
    kept |= {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "XDG_CONFIG_HOME": kept["PYTHONPYCACHEPREFIX"]}
    return kept


def seconds(words: list[str], environment: dict[str, str]) -> tuple[int, float]:
    """The exit code of a plan, and the processor time of its process, user's and system's."""
    process = subprocess.Popen(
        [sys.executable, "-m", "quantwise", "plan", *words, "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime


def best(words: list[str], environment: dict[str, str]) -> float:
    """Of several tries, until one is within the limit. A model that a runtime does not take is refused as fast."""
    found = []
    for _ in range(TRIES):
        code, took = seconds(words, environment)
        assert code in (0, 2), words
        found.append(took)
        if took < LIMIT_S:
            break
        time.sleep(PAUSE_S)
    return min(found)


@pytest.mark.parametrize(
    "words",
    [
        ["deepseek-v3", "--site", "rtx-4090"],
        ["deepseek-v3", "--site", "rtx-4090", "--runtime", "vllm", "--context", "32768", "--concurrency", "8"],
        ["kimi-k2", "--site", "h100"],
        ["qwen3-4b", "qwen3-8b", "qwen3-14b", "--memory", "12GB"],
        ["kimi-k2", "--site", "h100", "--context", "32768", "--concurrency", "16"],
        ["kimi-k2", "--site", "rtx-4090", "--context", "32768", "--concurrency", "16", "--host", "lab-server"],
        ["deepseek-r1", "--site", "rtx-4090", "--scheme", "16bit", "--host", "20GB"],
        ["qwen3-next-80b-a3b", "--site", "laptop"],
    ],
)
def test_the_largest_models_answer_at_once(words: list[str], environment: dict[str, str]) -> None:
    assert best(words, environment) < LIMIT_S


@pytest.mark.long
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_preset_answers_at_once(runtime: str, environment: dict[str, str]) -> None:
    first = RUNTIMES.index(runtime)
    slow = {}
    for number, name in enumerate(PRESETS):
        site = SITES[(number + first) % len(SITES)]
        took = best([name, "--site", site, "--runtime", runtime], environment)
        if took >= LIMIT_S:
            slow[name, site] = round(took, 2)
    assert slow == {}


def test_a_plan_loads_neither_numbers_nor_what_it_does_not_need(tmp_path: Path) -> None:
    told = (
        "import sys; from quantwise.cli.main import main; main(['plan', 'qwen3-8b', '--site', 'rtx-4090', '--json']);"
    )
    told += "print([m for m in sys.argv[1:] if m in sys.modules], file=sys.stderr)"
    heavy = ["torch", "numpy", "psutil", "gguf", "huggingface_hub", "quantwise.plan.training", "subprocess"]
    done = subprocess.run([sys.executable, "-c", told, *heavy], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
