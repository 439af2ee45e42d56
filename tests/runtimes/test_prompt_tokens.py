"""Real runtimes tell what they read, and read the same, also where a tokenizer adds a beginning token by itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lossy_proxy import lossy_proxy
from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact
from quantwise.core.runtime import Ask, RuntimeOptions
from quantwise.formats.gguf.beginning_token import adds_beginning, beginning_twice
from quantwise.planning import PlanRequest, plan
from quantwise.prompts.difference import compare, disagreement, doubled_beginning
from quantwise.prompts.probes import PLAIN, USER, WITH_SYSTEM, asks, probe
from quantwise.runtimes.llamacpp import LlamaCpp
from quantwise.runtimes.openai import OpenAI, server_artifact
from quantwise.runtimes.process import ServerProcess, free_port
from quantwise.runtimes.transformers import Transformers


@pytest.fixture(scope="module")
def adding(folder: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The model of the fixtures with a tokenizer that adds the beginning token that its template writes too."""
    path = tmp_path_factory.mktemp("adding")
    for file in Path(folder.location).iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    text, begin = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|bos|>", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing", "single": [begin, text], "pair": [begin, text, text],
        "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [0], "tokens": ["<|bos|>"]}},
    }  # fmt: skip
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return Artifact(str(path), "safetensors", "adding", None)


@pytest.fixture(scope="module")
def adding_gguf(adding: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    from quantwise.formats.gguf.writer import write_gguf
    from quantwise.formats.safetensors_folder import ModelFolder
    from quantwise.grids.ggml_blocks import GgmlBlocks

    path = tmp_path_factory.mktemp("gguf") / "adding.gguf"
    write_gguf(path, ModelFolder(Path(adding.location)), "f16", lambda ggml, values: GgmlBlocks(ggml).encode(values))
    return Artifact(str(path), "gguf", "adding-gguf", path.stat().st_size)


@pytest.fixture(scope="module")
def adding_server(adding_gguf: Artifact) -> Iterator[str]:
    yield from _serve(adding_gguf.location)


def _serve(model: str, *more: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    flags = ["--model", model, "--port", str(port), "--ctx-size", "1024", "--parallel", "4", "--threads", "1"]
    flags += ["--no-webui", "--fit", "off", "--cache-ram", "0", *more]
    with ServerProcess([sys.executable, "-P", "-m", "quantwise.runtimes.llamacpp_host", *flags], url):
        yield url


def told(runtime: Any, artifact: Artifact, options: RuntimeOptions, template: ChatTemplate | None) -> Any:
    with runtime.open(artifact, options) as session:
        return probe(session, asks(template, chats=True, plain=True))


def test_every_runtime_reads_the_same_with_one_beginning(
    adding: Artifact, adding_gguf: Artifact, adding_server: str, options: RuntimeOptions
) -> None:
    template = ChatTemplate.from_folder(adding.location)
    reference = told(Transformers(), adding, options, template)
    assert reference[USER].pieces[:2] == ("<|bos|>", "<|im_start|>")
    assert reference[PLAIN].pieces[0] == "<|bos|>"
    assert reference[PLAIN].pieces[1] != "<|bos|>"
    served = server_artifact(adding_server)
    for runtime, artifact, rendered in (
        (LlamaCpp(), adding_gguf, template),
        (OpenAI(), served, template),
        (OpenAI(), served, None),
    ):
        ours = told(runtime, artifact, options, rendered)
        assert compare(reference, ours).differs is None
        assert compare(reference, ours).compared == "token ids"
        assert doubled_beginning(ours) is None
        assert disagreement(ours) is None
    assert ours[USER].count == len(reference[USER].ids), "its own chat endpoint reads as many"


def test_a_llama_servers_answer_to_messages_is_that_of_its_chat_endpoint(
    adding_server: str, options: RuntimeOptions
) -> None:
    """The beginning token that llama.cpp takes off the template's text has to come back."""
    messages = asks(None, chats=True, plain=False)[WITH_SYSTEM].messages
    with (
        OpenAI().open(server_artifact(adding_server), options) as session,
        lossy_proxy(adding_server, loses=False, only_v1=True) as general,
    ):
        (native,) = session.ask([Ask(messages=messages, max_tokens=8)])
        with OpenAI().open(server_artifact(general), options) as other:
            (chat,) = other.ask([Ask(messages=messages, max_tokens=8)])
    assert (native.text, native.prompt_tokens) == (chat.text, chat.prompt_tokens)


def test_a_proxy_that_loses_the_system_turn_is_caught(adding_server: str, options: RuntimeOptions) -> None:
    reference = told(OpenAI(), server_artifact(adding_server), options, None)
    with lossy_proxy(adding_server) as url:
        ours = told(OpenAI(), server_artifact(url), options, None)
    assert f"the prompt of {WITH_SYSTEM} has" in str(disagreement(ours))
    with lossy_proxy(adding_server, only_v1=True) as url:
        ours = told(OpenAI(), server_artifact(url), options, None)
    found = compare(reference, ours)
    assert str(found.differs).endswith("likely a lost system turn (only counts could be compared)")
    with lossy_proxy(adding_server, only_v1=True, usage=False) as url:
        ours = told(OpenAI(), server_artifact(url), options, None)
    assert compare(reference, ours).compared == "nothing"


def test_another_familys_template_is_caught(adding_gguf: Artifact, adding_server: str, options: RuntimeOptions) -> None:
    reference = told(OpenAI(), server_artifact(adding_server), options, None)
    for url in _serve(adding_gguf.location, "--chat-template", "llama2"):
        ours = told(OpenAI(), server_artifact(url), options, None)
    found = compare(reference, ours)
    assert found.compared == "token ids"
    assert "differs at token 1" in str(found.differs)


HYBRID = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def test_a_llama_servers_own_template_is_told_what_ours_is(
    folder: Artifact, gguf_file: Artifact, options: RuntimeOptions
) -> None:
    """Both modes, since one of them is the server's own default."""
    served: dict[bool, Any] = {}
    reads: dict[bool, int | None] = {}
    for url in _serve(gguf_file.location, "--chat-template", HYBRID):
        with OpenAI().open(server_artifact(url), options) as session:
            for thinks in (True, False):
                turns = asks(None, chats=True, plain=False, arguments={"enable_thinking": thinks})
                served[thinks] = probe(session, turns)
                (reply,) = session.ask([replace(turns[USER], max_tokens=2)])
                reads[thinks] = reply.prompt_tokens
    for thinks, theirs in served.items():
        template = ChatTemplate(HYBRID, arguments={"enable_thinking": thinks})
        ours = told(Transformers(), folder, options, template)
        assert (compare(ours, theirs).compared, compare(ours, theirs).differs) == ("token ids", None)
        assert disagreement(theirs) is None, "its chat endpoint is told the same"
        assert reads[thinks] == len(ours[USER].ids)
    assert compare(served[True], served[False]).differs is not None


def test_a_file_whose_tokenizer_and_template_both_begin_is_told_when_planning(
    adding_gguf: Artifact, gguf_file: Artifact
) -> None:
    said = beginning_twice(Path(adding_gguf.location))
    assert said is not None
    assert "tokenizer.ggml.add_bos_token false" in said
    assert "\n" not in said
    assert said in plan(PlanRequest((adding_gguf.location,)))["notes"]
    assert beginning_twice(Path(gguf_file.location)) is None
    assert not [note for note in plan(PlanRequest((gguf_file.location,)))["notes"] if "add_bos_token" in note]


@pytest.mark.parametrize(
    ("metadata", "adds"),
    [
        ({"tokenizer.ggml.model": "llama"}, True),
        ({"tokenizer.ggml.model": "llama", "tokenizer.ggml.add_bos_token": False}, False),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe"}, True),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2"}, False),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.add_bos_token": True}, True),
        ({}, False),
    ],
)
def test_what_llama_cpp_adds_where_a_file_does_not_say(metadata: dict[str, Any], adds: bool) -> None:
    assert adds_beginning(metadata) is adds
