"""Every runtime keeps the contract, the fake one too; and the contract notices who does not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError
from quantwise.core.runtime import Ask, Footprint, Reply, Runtime, RuntimeOptions
from quantwise.runtimes import runtime_named, runtimes
from quantwise.runtimes.llamacpp import LlamaCpp
from quantwise.runtimes.openai import OpenAI, server_artifact
from quantwise.runtimes.process import ServerProcess
from quantwise.runtimes.transformers import Transformers
from quantwise.testing import runtime_contract as contract
from quantwise.testing.fake_runtime import FakeRuntime

NOTHING = Artifact("nothing", "server", "", None)


def right(ask: Ask) -> str:
    return min(ask.choices) if ask.choices else f"answer to {len(ask.text or '')} letters"


def test_the_list_names_every_runtime() -> None:
    assert [runtime_named(name).name for name in runtimes()] == list(runtimes())
    with pytest.raises(InputError, match="transformers, llamacpp, vllm, openai"):
        runtime_named("tensorrt")


def test_fake(options: RuntimeOptions, prompts: list[str]) -> None:
    fake = FakeRuntime(right, delay_s=0.001)
    artifact = Artifact("here", "gguf", "", None)
    with fake.open(artifact, options) as session:
        contract.check_session(session, prompts)
    contract.check_timeouts(fake, artifact, options, prompts)
    contract.check_refusals(fake, replace(artifact, location="refused"))


def test_transformers(folder: Artifact, options: RuntimeOptions, prompts: list[str]) -> None:
    runtime = Transformers()
    with runtime.open(folder, options) as session:
        contract.check_session(session, prompts)
    contract.check_timeouts(runtime, folder, options, prompts)
    contract.check_refusals(runtime, NOTHING)


def test_transformers_in_a_process_of_its_own(folder: Artifact, options: RuntimeOptions, prompts: list[str]) -> None:
    with Transformers().open(folder, options) as here, Transformers(own_process=True).open(folder, options) as there:
        contract.check_session(there, prompts)
        asks = [Ask(text=p, max_tokens=6) for p in prompts]
        assert [r.text for r in there.ask(asks)] == [r.text for r in here.ask(asks)]
        peak = there.footprint().peak_process_bytes
        assert peak is not None
        assert 50e6 < peak < 3e9
        with pytest.raises(InputError, match="tokens, the context"):
            there.next_token_logprobs("word " * 1000, 3)  # type: ignore[attr-defined]


def test_llamacpp(gguf_file: Artifact, options: RuntimeOptions, prompts: list[str]) -> None:
    runtime = LlamaCpp()
    with runtime.open(gguf_file, options) as session:
        contract.check_session(session, prompts)
    contract.check_timeouts(runtime, gguf_file, options, prompts)
    contract.check_refusals(runtime, NOTHING)


def test_a_server_by_url(server: ServerProcess, options: RuntimeOptions, prompts: list[str], folder: Artifact) -> None:
    artifact = server_artifact(server.url)
    with OpenAI().open(artifact, options) as session:
        contract.check_session(session, prompts)
    contract.check_refusals(OpenAI(), folder)


class _Broken:
    """A session that answers in the order that suits it."""

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        return [Reply(text=str(len(a.text or "")), output_tokens=1) for a in sorted(asks, key=lambda a: a.text or "")]

    def footprint(self) -> Footprint:
        return Footprint()


class _NeverLate:
    """A runtime without a sense of time."""

    name = "never-late"

    def version(self) -> str:
        return "1"

    def refuses(self, artifact: Artifact) -> str | None:
        return None

    @contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions):  # type: ignore[no-untyped-def]
        yield _Broken()


def test_the_contract_notices_a_broken_runtime(options: RuntimeOptions, prompts: list[str]) -> None:
    with pytest.raises(AssertionError, match="order is not kept"):
        contract.check_session(_Broken(), prompts[::-1])
    runtime: Runtime = _NeverLate()
    with pytest.raises(AssertionError):
        contract.check_timeouts(runtime, NOTHING, options, prompts)
    with pytest.raises(AssertionError, match="refused with a reason"):
        contract.check_refusals(runtime, NOTHING)


def test_the_fake_makes_the_errors_it_is_told_to() -> None:
    fake = FakeRuntime(lambda ask: "yes", errors={"worse": 0.2}, timeouts={"worse": 0.1}, shared_errors=0.3, seed=3)
    asks = [Ask(text=f"question {i}") for i in range(2000)]
    replies = {}
    for place in ("base", "worse"):
        with fake.open(Artifact(place, "gguf", "", None), RuntimeOptions()) as session:
            replies[place] = session.ask(asks)
    wrong = {place: sum(r.text != "yes" for r in rs if r.finish == "stop") for place, rs in replies.items()}
    late = sum(r.finish == "timeout" for r in replies["worse"])
    assert 550 < wrong["base"] < 650
    assert 150 < late < 250
    assert wrong["worse"] / (2000 - late) == pytest.approx(1 - 0.7 * 0.8, abs=0.04)
