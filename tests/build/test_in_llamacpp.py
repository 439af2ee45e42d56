"""GGUF files in stock llama.cpp: token ids equal to Transformers', next-token distributions near to it."""

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from quantwise.build.walk import build
from quantwise.core.recipe import parse_recipe
from quantwise.runtimes.process import ServerProcess, free_port

STORY = "Once upon a time, there was a little dog named Tom. He didn't like the 12 cats; they'd say: \"Go home!\" "
HARD = 'In 1984 — naïve café, 北京 😀.\n\n  Then\the ran 3.75 km.   {"a": [1, 2]}\r\n'


@contextmanager
def llamacpp(file: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    flags = ["--model", file, "--port", str(port), "--ctx-size", "256", "--parallel", "1", "--threads", "1"]
    command = [sys.executable, "-P", "-m", "quantwise.runtimes.llamacpp_host", *flags, "--no-webui", "--fit", "off"]
    with ServerProcess(command, url):
        yield url


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return dict(json.load(answer))


def logits_differ(url: str, model: torch.nn.Module, ids: list[int]) -> float:
    """KL divergence (nats) of llama.cpp's next-token distribution after ``ids`` from that of Transformers."""
    with torch.no_grad():
        ours = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    body = {
        "prompt": ids,
        "n_predict": 1,
        "n_probs": len(ours),
        "temperature": 0.0,
        "cache_prompt": False,
        "ignore_eos": False,
    }
    answer = post(f"{url}/completion", body)
    if not answer.get("completion_probabilities"):
        return 0.0  # the likeliest token ends the text, and then the server tells no probabilities
    theirs = torch.full_like(ours, -30.0)
    for entry in answer["completion_probabilities"][0]["top_logprobs"]:
        theirs[entry["id"]] = max(entry["logprob"], -30.0)
    return float((ours.exp() * (ours - theirs)).sum())


def load(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def compare(folder: Path, file: str, texts: list[str]) -> float:
    """Asserts equal token ids; returns the largest divergence."""
    tokenizer, model = Tokenizer.from_file(str(folder / "tokenizer.json")), load(folder)
    worst = 0.0
    with llamacpp(file) as url:
        for text in texts:
            ids = tokenizer.encode(text).ids
            assert post(f"{url}/tokenize", {"content": text, "add_special": True})["tokens"] == ids
            for length in (max(1, len(ids) // 2), len(ids)):
                worst = max(worst, logits_differ(url, model, ids[:length]))
    return worst


# Largest divergence in nats: f16 keeps what bf16 weights hold, so only rounding of activations is left.
@pytest.mark.parametrize(("name", "most"), [("f16", 1e-4), ("bf16", 2e-3), ("q8_0", 1e-2), ("q4_0", 0.5)])
def test_the_random_model_in_every_type(built, name: str, most: float) -> None:  # type: ignore[no-untyped-def]
    assert compare(built.model, built.artifacts[name].location, [STORY, HARD, " lead", "7"]) < most


@pytest.mark.parametrize("name", ["stories260K", "babyllama-tok105"])
def test_models_that_are_not_ours(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = shared_data / "models" / name
    artifact = build(folder, [parse_recipe("f16")], [], tmp_path)[0]
    texts = [STORY, STORY.lower() + " the end.", "A", " two  spaces"]
    assert compare(folder, artifact.location, texts + [HARD] * (name == "stories260K")) < 1e-4
