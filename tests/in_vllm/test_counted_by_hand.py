"""Prefix hits, blocks and preemptions of a real vLLM server, beside what a person counts; what it can do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain_model import write_chain_model

from quantwise.core.artifact import Artifact
from quantwise.core.item import Message
from quantwise.core.runtime import Ask, CacheUse, RuntimeOptions
from quantwise.models import reference
from quantwise.runtimes.openai import OpenAI, server_artifact
from quantwise.runtimes.vllm import Vllm, VllmSession

PYTHON = os.environ.get("QUANTWISE_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not PYTHON, reason="QUANTWISE_VLLM_PYTHON names no Python with vLLM; run `make test-vllm`"),
]
BLOCK, BLOCKS = 32, 20


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VllmSession]:
    """With a cache of prefixes and few small blocks, of which vLLM keeps one to itself."""
    flags = f"--enable-prefix-caching --block-size {BLOCK} --num-gpu-blocks-override {BLOCKS}"
    monkeypatch.setenv("QUANTWISE_VLLM_FLAGS", flags)
    folder = write_chain_model(tmp_path / "model")
    options = RuntimeOptions(context=500, parallel=4, timeout_s=120.0)
    with Vllm().open(Artifact(str(folder), "safetensors", "", None), options) as opened:
        yield opened


def test_hits_blocks_and_preemptions(session: VllmSession) -> None:
    """Before anything was asked no share of hits is known. A prompt of 200 tokens fills six blocks of 32, which the
    second time are found: 192 of 400 tokens in all. Then four requests want 13 blocks each of the 19.
    """
    assert session.cache_use() == CacheUse(BLOCKS - 1, BLOCK, None, True, None, 0)
    prompt = "hm " * 199 + "short"
    for _ in range(2):
        (reply,) = session.ask([Ask(text=prompt)])
        assert (reply.prompt_tokens, reply.text) == (200, "<think>so be it</think>42")
    used = session.cache_use()
    assert (used.prefix_cache_hit_rate, used.preemptions) == (pytest.approx(192 / 400), 0)
    words = ("so ", "be it", "</think>", "42")
    replies = session.ask([Ask(text=word * 20 + "endless", max_tokens=380) for word in words])
    assert [reply.text for reply in replies] == ["<reasoning>" + "hm " * 379] * 4
    assert [reply.output_tokens for reply in replies] == [380] * 4
    used = session.cache_use()
    assert used.preemptions is not None
    assert used.preemptions >= 1
    # Together they fill all there is, and were looked at every second; what one alone fills is there in any case.
    assert used.most_blocks_seen is not None
    assert 13 <= used.most_blocks_seen <= BLOCKS - 1


def test_what_a_vllm_server_can_do_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its address, as somebody's server: JSON Schema, seeds, scores, tools."""
    options = RuntimeOptions(context=512, parallel=4, timeout_s=120.0)
    artifact = Artifact(str(reference.path()), "safetensors", "", None)
    with Vllm().open(artifact, options) as served:
        monkeypatch.setenv("QUANTWISE_API_KEY", served._http.headers["Authorization"].removeprefix("Bearer "))
        url = str(served._http.base_url)
        with OpenAI().open(server_artifact(url), options) as asked:
            found = asked.capabilities()
            print(f"\n{found}")
            able = ("chat", "completions", "usage", "log_probabilities", "scores_given_text", "json_schema", "seeds")
            assert [name for name in (*able, "streaming", "metrics") if found[name] is not True] == []
            # Calls are read by a parser that a server is started with or not.
            assert found["tools"] is False
            assert found["distributions"] is False
            assert found["told"]["max_model_len"] == 512
            turn = (Message("user", "What is 12 + 30?"),)
            (reply,) = asked.ask([Ask(messages=turn)])
            assert (reply.error, reply.finish) == (None, "stop")
            tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
            (told,) = asked.ask([Ask(messages=turn, tools=(tool,))])
            assert told.finish == "refused"
            assert "--enable-auto-tool-choice" in (told.error or "")
