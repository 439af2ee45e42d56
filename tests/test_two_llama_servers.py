"""Two real llama-servers of the reference model by URL: identical ones never FAIL, another template is caught."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lossy_proxy import lossy_proxy
from quantwise import workbench
from quantwise.build.walk import build
from quantwise.core.progress import Silent
from quantwise.core.recipe import parse_recipe
from quantwise.models import reference
from quantwise.question.pose import Request
from quantwise.runtimes.process import ServerProcess, free_port

NATIVE = os.environ.get("QUANTWISE_LLAMA_SERVER")
SERVER = [NATIVE] if NATIVE else [sys.executable, "-P", "-m", "quantwise.runtimes.llamacpp_host"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (made,) = build(reference.path(), [parse_recipe("f16")], [], tmp_path_factory.mktemp("gguf"))
    return Path(made.location)


@contextmanager
def served(gguf_file: Path, *more: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    flags = ["--model", str(gguf_file), "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "2048"]
    flags += ["--parallel", "2", "--threads", "1", "--no-webui", "--fit", "off", "--cache-ram", "0", *more]
    with ServerProcess([*SERVER, *flags], url):
        yield url


def decided(run: Path, base: str, ours: str, *, seed: int = 0, tasks: Sequence[str] = ("classification",)) -> Any:
    request = Request(
        scenario="laptop", tasks=tuple(tasks), candidates=(ours,), baseline=base, parallel=2, run=run, seed=seed,
        items=64, margins=dict.fromkeys(tasks, 0.1),
    )  # fmt: skip
    return workbench.decide(request, Silent())


def test_identical_servers_do_not_fail_over_20_seeds(gguf_file: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        base, ours = (stack.enter_context(served(gguf_file)) for _ in range(2))
        for seed in range(20):
            record = decided(tmp_path / f"{seed}", base, ours, seed=seed)
            assert [v["verdict"] for v in record["verdicts"]] != ["FAIL"]
            assert record["prompts"][1]["compared"] == "token ids"
            assert record["prompts"][1]["differs"] is None


def test_another_familys_template_is_caught_by_token_ids_and_by_its_answers_where_they_are_hidden(
    gguf_file: Path, tmp_path: Path
) -> None:
    with served(gguf_file) as base, served(gguf_file, "--chat-template", "chatml") as ours:
        record = decided(tmp_path / "told", base, ours)
        (out,) = record["decision"]["ruled_out"]
        assert "does not read what" in out["why"]
        assert "likely" in out["why"]
        assert record["verdicts"][0]["n"] == 0
        with (
            lossy_proxy(base, loses=False, only_v1=True, usage=False) as hidden_base,
            lossy_proxy(ours, loses=False, only_v1=True, usage=False) as hidden,
        ):
            record = decided(tmp_path / "hidden", hidden_base, hidden)
        assert record["prompts"][1]["compared"] == "nothing"
        (out,) = record["decision"]["ruled_out"]
        assert "far below the baseline on every screening task" in out["why"]
