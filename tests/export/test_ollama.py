"""Folders for Ollama: a Modelfile that its reference allows, and templates that say what the model's own says."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from published import MODELFILE_INSTRUCTIONS, MODELFILE_PARAMETERS, SAID, TALK

from quantwise.chat import ChatTemplate
from quantwise.cli.main import main
from quantwise.core.errors import InputError
from quantwise.core.item import Message
from quantwise.export import ollama
from quantwise.export.ollama_template import KINDS, SAMPLES, translated

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}"
    "{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
WITH_DEFAULT = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}" + CHATML
WORDS = ["<s>", "</s>", "<|eot_id|>", 'say "x"', "word", "<|begin_of_text|>"]


def file(path: Path, template: str | None = CHATML, **keys: Any) -> Path:
    """A file of one tensor with a tokenizer of six tokens."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(keys.pop("context", 8192))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_eos_token_id(keys.pop("eos", 1))
    writer.add_eot_token_id(2)
    if (begins := keys.pop("begins", False)) is not None:
        writer.add_add_bos_token(begins)
    if "bos" in keys:
        writer.add_bos_token_id(keys.pop("bos"))
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", np.zeros((6, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def modelfile(folder: Path) -> list[tuple[str, str]]:
    """The instructions of a Modelfile by the grammar of its reference; quotes of one and of three hold any text."""
    text = (folder / "Modelfile").read_text()
    found = re.findall(r'^(\w+) ((?:\w+ )?)(?:"""(.*?)"""|"([^"\n]*)"|([^"\n]*))$', text, re.MULTILINE | re.DOTALL)
    said = [(name, f"{key}{three or one or bare}") for name, key, three, one, bare in found]
    rest = re.sub(r'^(\w+) (?:\w+ )?(?:""".*?"""|"[^"\n]*"|[^"\n]*)$', "", text, flags=re.MULTILINE | re.DOTALL)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    return said


def go(template: str, messages: Sequence[Message]) -> str:
    """The few words of Go's templates that are written, and what Ollama does before: equal roles in a row are one."""
    collated: list[Message] = []
    for message in messages:
        if collated and collated[-1].role == message.role:
            collated[-1] = Message(message.role, f"{collated[-1].content}\n\n{message.content}")
        else:
            collated.append(message)
    before, body, after = re.fullmatch(
        r"(.*?)\{\{ range \.Messages }}(.*)\{\{ end }}(.*)", template, re.DOTALL
    ).groups()  # type: ignore[union-attr]
    turns = [body.replace("{{ .Role }}", m.role).replace("{{ .Content }}", m.content) for m in collated]
    said = f"{before}{''.join(turns)}{after}"
    assert "{{" not in before + after + body.replace("{{ .Role }}", "").replace("{{ .Content }}", "")
    return said


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_ollama_renders_is_what_was_compared_with(kind: Any) -> None:
    for talk in (*SAMPLES, TALK):
        assert go(kind.go, talk) == kind.render(talk)
    if kind.name in SAID:
        assert go(kind.go, TALK) == SAID[kind.name]


@pytest.mark.parametrize(
    ("source", "name"), [(CHATML, "chatml"), (PHI3, "phi3"), (ZEPHYR, "zephyr"), (WITH_DEFAULT, None), ("hi", None)]
)
def test_a_template_is_translated_where_it_says_the_same(source: str, name: str | None) -> None:
    kind, note = translated(ChatTemplate(source, {"eos_token": "</s>"}), False)
    assert (None if kind is None else kind.name, note) == (name, None)


def test_a_beginning_is_written_once() -> None:
    template = ChatTemplate(LLAMA3, {"bos_token": "<|begin_of_text|>"})
    kind, note = translated(template, True)
    assert kind is not None
    assert kind.name == "llama3"
    assert "<|begin_of_text|>" not in kind.go
    assert "strips white space" in str(note)
    assert translated(template, False) == (None, None)  # nobody would add it
    assert translated(ChatTemplate(CHATML, {"bos_token": "<s>"}), True) == (None, None)  # it would be one too many


def test_the_folder_holds_the_file_and_a_modelfile_as_its_reference_allows(tmp_path: Path) -> None:
    source = file(tmp_path / "model.gguf")
    generation = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 50, "eos_token_id": [1, 3]}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    done = ollama.export(source, tmp_path / "out")
    said = modelfile(tmp_path / "out")
    assert {name for name, _ in said} <= MODELFILE_INSTRUCTIONS
    parameters = [value.split(" ", 1) for name, value in said if name == "PARAMETER"]
    for key, value in parameters:
        assert MODELFILE_PARAMETERS[key](value) is not None
    assert said[0] == ("FROM", "./model.gguf")
    assert (tmp_path / "out" / "model.gguf").read_bytes() == source.read_bytes()
    assert go(dict(said)["TEMPLATE"], TALK) == ChatTemplate(CHATML).render(TALK)
    assert [value for key, value in parameters if key == "stop"] == ["</s>", "<|eot_id|>", 'say "x"']
    assert {key: value for key, value in parameters if key != "stop"} == {
        "num_ctx": "4096", "temperature": "0.6", "top_p": "0.9", "top_k": "50", "repeat_penalty": "1.0",
    }  # fmt: skip
    assert done.notes == ()
    assert done.status == json.loads((tmp_path / "out" / "quantwise-export.json").read_text())["status"]


@pytest.mark.parametrize(
    ("template", "begins", "note"),
    [
        (WITH_DEFAULT, False, "TEMPLATE is left out"),
        (CHATML, None, "TEMPLATE is left out"),  # whether a beginning is added, the file does not say
        (None, False, "no chat template"),
    ],
)
def test_what_cannot_be_translated_is_left_out_and_said(
    template: str | None, begins: bool | None, note: str, tmp_path: Path
) -> None:
    done = ollama.export(file(tmp_path / "model.gguf", template, begins=begins, context=512), tmp_path / "out")
    said = dict(modelfile(tmp_path / "out"))
    assert "TEMPLATE" not in said
    assert note in done.notes[0]
    assert "no generation_config.json was found" in done.notes[1]
    assert said["PARAMETER"] == "num_ctx 512"


def test_settings_of_the_model_and_greedy_answers(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "generation_config.json").write_text('{"eos_token_id": 4}')
    ollama.export(file(tmp_path / "model.gguf"), tmp_path / "out", context=100, model=tmp_path / "m")
    values = [value for name, value in modelfile(tmp_path / "out") if name == "PARAMETER"]
    greedy = ["temperature 0", "repeat_penalty 1.0"]
    assert values == ["stop </s>", "stop <|eot_id|>", "stop word", "num_ctx 100", *greedy]


@pytest.mark.parametrize(
    ("generation", "said"),
    [
        # What Transformers takes for what is not said; Ollama would take 0.8, 0.9 and 40.
        ({"do_sample": True}, {"temperature": "1.0", "top_k": "50", "top_p": "1.0", "repeat_penalty": "1.0"}),
        ({"do_sample": True, "temperature": 0.5, "top_k": 0, "top_p": None, "min_p": 0.1},
         {"temperature": "0.5", "top_k": "0", "top_p": "1.0", "min_p": "0.1", "repeat_penalty": "1.0"}),
        # A penalty changes greedy answers too, and counts the whole text.
        ({"repetition_penalty": 1.05}, {"temperature": "0", "repeat_penalty": "1.05", "repeat_last_n": "-1"}),
        ({}, {"temperature": "0", "repeat_penalty": "1.0"}),
    ],
)  # fmt: skip
def test_answers_are_drawn_as_transformers_draws_them(
    generation: dict[str, Any], said: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    done = ollama.export(file(tmp_path / "model.gguf"), tmp_path / "out")
    assert any("measured without" in note for note in done.notes) == ("repeat_last_n" in said)
    found = [value.split(" ", 1) for name, value in modelfile(tmp_path / "out") if name == "PARAMETER"]
    assert {key: value for key, value in found if key not in ("stop", "num_ctx")} == said
    for key, value in found:
        assert MODELFILE_PARAMETERS[key](value) is not None


@pytest.mark.parametrize("value", ["0", "-1", '"strong"', "true"])
def test_a_penalty_that_is_no_factor_is_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(f'{{"repetition_penalty": {value}}}')
    with pytest.raises(InputError, match=r"repetition_penalty must be a number above 0, not .*; mend it"):
        ollama.export(file(tmp_path / "model.gguf"), tmp_path / "out")


@pytest.mark.parametrize("value", ['"hot"', "NaN", "-1", "true", "Infinity", "[1]"])
def test_a_setting_that_is_no_number_is_refused_and_nothing_is_written(value: str, tmp_path: Path) -> None:
    source = file(tmp_path / "model.gguf")
    (tmp_path / "generation_config.json").write_text(f'{{"do_sample": true, "temperature": {value}, "top_p": null}}')
    with pytest.raises(InputError, match=r"generation_config\.json: temperature must be a number from 0 on"):
        ollama.export(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"is no GGUF, .*; build one: q8_0"):
        ollama.export(tmp_path, tmp_path / "out")
    source = file(tmp_path / "model.gguf", context=512)
    with pytest.raises(InputError, match="--context 1024 is more than the 512 tokens"):
        ollama.export(source, tmp_path / "out", context=1024)
    with pytest.raises(InputError, match=r"has no generation_config\.json"):
        ollama.export(source, tmp_path / "out", model=tmp_path / "none")
    assert not (tmp_path / "out").exists()
    assert main(["export", str(source), "--to", "ollama", "--out", str(tmp_path / "out"), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["status"] == "never run here"
    assert done["command"].startswith("ollama create NAME -f ")
    assert main(["export", str(source), "--to", "ollama", "--out", str(tmp_path / "out")]) == 2
