"""The Transformers runtime against slow, obvious ways of saying the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from quantwise.core.artifact import Artifact
from quantwise.core.cache_scheme import TRANSFORMERS_CACHES
from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.core.item import Message
from quantwise.core.runtime import Ask, RuntimeOptions
from quantwise.plan.model_source import read_folder_decoder
from quantwise.plan.transformers_memory import transformers_cache
from quantwise.runtimes.transformers import Transformers, TransformersSession
from quantwise.stats.divergence import divergence
from quantwise.testing.runtime_contract import check_session


@pytest.fixture(scope="module")
def model(folder: Artifact) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder.location)
    return AutoModelForCausalLM.from_pretrained(folder.location).eval(), tokenizer


def test_batches_answer_as_generate_does_alone(
    folder: Artifact, options: RuntimeOptions, prompts: list[str], model: tuple[Any, Any]
) -> None:
    net, tokenizer = model
    with Transformers().open(folder, options) as session:
        replies = session.ask([Ask(text=p, max_tokens=4 + i) for i, p in enumerate(prompts)])
    for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        out = net.generate(**ids, max_new_tokens=4 + i, do_sample=False, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
        stopped = int(out[-1]) == tokenizer.eos_token_id
        assert reply.text == tokenizer.decode(out, skip_special_tokens=True)
        assert (reply.finish, reply.output_tokens) == ("stop" if stopped else "length", len(out) - stopped)
        assert reply.prompt_tokens == ids["input_ids"].shape[1]


def test_choices_are_summed_token_by_token(
    folder: Artifact, options: RuntimeOptions, prompts: list[str], model: tuple[Any, Any]
) -> None:
    net, tokenizer = model
    choices = (" one", " little dog", " x")
    with Transformers().open(folder, options) as session:
        replies = session.ask([Ask(text=p, choices=choices) for p in prompts])
    for prompt, reply in zip(prompts, replies, strict=True):
        start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        for choice, told in zip(choices, reply.choice_logprobs, strict=True):
            ids = tokenizer(prompt + choice, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                logprobs = net(torch.tensor([ids])).logits[0].log_softmax(-1)
            slow = sum(float(logprobs[i - 1, ids[i]]) for i in range(start, len(ids)))
            assert told == pytest.approx(slow, abs=1e-3)


def test_distributions_hold_the_token_that_came(folder: Artifact, options: RuntimeOptions) -> None:
    text = "once upon a time there was"
    with Transformers().open(folder, options) as session:
        assert isinstance(session, TransformersSession)
        positions = session.next_token_logprobs(text, 5)
        ids = session.tokenize(text)
        scored = session.ask([Ask(text="", choices=(text,), rendered=False)])[0]
    # The tokenizer adds nothing, so the opening token stands before the text and every token of it is predicted.
    assert len(positions) == len(ids)
    assert scored.choice_logprobs[0] == pytest.approx(sum(p[i] for p, i in zip(positions, ids, strict=True)), abs=1e-3)


def test_messages_without_a_template_are_plain_text(folder: Artifact, options: RuntimeOptions) -> None:
    with Transformers().open(folder, options) as session:
        turns = (Message("system", "once upon"), Message("user", "a time"))
        plain, text = session.ask([Ask(messages=turns), Ask(text="once upon\na time", rendered=False)])
    assert (plain.text, plain.prompt_tokens) == (text.text, text.prompt_tokens)


def test_the_dtype_is_the_checkpoints(
    tmp_path: Path, options: RuntimeOptions, prompts: list[str], model_writer: Callable[[Path, str], None]
) -> None:
    model_writer(tmp_path, "bfloat16")
    with Transformers().open(Artifact(str(tmp_path), "safetensors", "", None), options) as session:
        assert isinstance(session, TransformersSession)
        session.ask([Ask(text=p, max_tokens=2) for p in prompts[:4]])
        stored = (tmp_path / "model.safetensors").stat().st_size
        footprint = session.footprint()
    assert footprint.weights_bytes == pytest.approx(stored, rel=0.02)
    assert footprint.peak_process_bytes is None


@pytest.mark.parametrize("cache", [name for name in TRANSFORMERS_CACHES if name != "f16"])
def test_a_quantized_cache_keeps_the_contract_and_the_planned_bytes(
    cache: str, options: RuntimeOptions, prompts: list[str], tmp_path: Path, model_writer: Callable[[Path, str], None]
) -> None:
    model_writer(tmp_path, "bfloat16")
    artifact, decoder = Artifact(str(tmp_path), "safetensors", "", None), read_folder_decoder(tmp_path)
    text = " ".join(prompts)[:300]
    with Transformers().open(artifact, replace(options, cache=cache)) as session:
        assert isinstance(session, TransformersSession)
        told = session.next_token_logprobs(text, 330)
        # The opening token stands before the text, and its last token is never read.
        assert session.footprint().cache_bytes == transformers_cache(decoder, len(session.tokenize(text)), 1, cache)
        check_session(session, prompts)
    with Transformers().open(artifact, options) as session:
        assert isinstance(session, TransformersSession)
        assert divergence([session.next_token_logprobs(text, 330)], [told]).mean_kl > 1e-6


def test_what_it_cannot_do_is_said_in_one_line(folder: Artifact, options: RuntimeOptions, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown cache scheme 'q8_0'; allowed: f16, int8-token"):
        Transformers().open(folder, replace(options, cache="q8_0"))
    with (
        pytest.raises(RuntimeFailure, match=r"no config\.json"),
        Transformers().open(Artifact(str(tmp_path), "safetensors", "", None), options),
    ):
        pass
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((Path(folder.location) / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes((Path(folder.location) / "model.safetensors").read_bytes()[:5000])
    broken = Artifact(str(tmp_path), "safetensors", "", None)
    with pytest.raises(RuntimeFailure, match="cannot load"), Transformers().open(broken, options):
        pass


@pytest.mark.long
def test_a_process_of_its_own_says_why_it_cannot_load(options: RuntimeOptions, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    nothing = Artifact(str(tmp_path), "safetensors", "", None)
    with pytest.raises(RuntimeFailure, match="cannot load"), Transformers(own_process=True).open(nothing, options):
        pass
