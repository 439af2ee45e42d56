"""A small random Llama with its GGUF file, tasks that it answers by construction, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROSE = "once upon a time there was little dog who loved to play in the park one two three with some thing else"
WORDS = PROSE.split()
TEMPLATE = "{% for m in messages %}<user>{{ m['content'] }}<end>{% endfor %}"
COUNT = 240


@dataclass(frozen=True)
class Ended:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that an error is. Fails where standard error holds anything else than it and progress lines."""
        lines = self.err.splitlines()
        said = [line for line in lines if line.startswith("quantwise: ")]
        assert len(said) == 1, self.err
        assert lines[-1] == said[0], self.err
        assert "Traceback" not in self.err
        assert not [line for line in lines[:-1] if not progress_line(line)], self.err
        return said[0]

    @property
    def record(self) -> dict[str, Any]:
        """Standard output, which is one JSON object and nothing else."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def progress_line(line: str) -> bool:
    """A stage, or what is said beforehand of margins and the items that they take."""
    stages = ("read the question", "build: ", "screen: ", "A/A noise floor: ", "certify: ")
    return line.startswith((*stages, "margin ", "this job needs ", "  "))


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


Command = Callable[..., Ended]


@pytest.fixture(scope="session")
def quantwise() -> Command:
    """Runs ``python -m quantwise`` in a process of its own: ``quantwise(folder, *arguments)``."""

    def run(folder: Path, *arguments: object, **more: Any) -> Ended:
        command = [sys.executable, "-m", "quantwise", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=240, env=environment(), **more
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line inside this process, in ``tmp_path``: ``here(*arguments)``."""
    from quantwise.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as end:
            code = int(str(end.code))
        told = capsys.readouterr()
        return Ended(code, told.out, told.err)

    return run


def write_model(folder: Path) -> None:
    """Hidden 128, 2 layers, 2 heads of 64 over 1, byte-level BPE of about 330 tokens.

    Seeded; it mostly repeats its last token.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<pad>", "<end>", "<user>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokens.train_from_iterator([" ".join(WORDS), " ".join(WORDS[::-1])], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<end>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        initializer_range=0.05,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    folder.mkdir()
    write_model(folder)
    return folder


@pytest.fixture(scope="session")
def gguf_file(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from quantwise.build.walk import build
    from quantwise.core.recipe import parse_recipe

    made = build(model, [parse_recipe("f16")], [], tmp_path_factory.mktemp("gguf"))
    return Path(made[0].location)


@pytest.fixture(scope="session")
def broken_gguf(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same file with the layers' output matrices 64 times too large: it loads, and answers something else."""
    import gguf
    import numpy as np

    data = bytearray(gguf_file.read_bytes())
    for tensor in gguf.GGUFReader(gguf_file).tensors:
        if "ffn_down" in tensor.name or "attn_output" in tensor.name:
            begin, end = int(tensor.data_offset), int(tensor.data_offset) + int(tensor.n_bytes)
            data[begin:end] = (np.frombuffer(data[begin:end], np.float16) * np.float16(64)).tobytes()
    path = tmp_path_factory.mktemp("broken") / "broken.gguf"
    path.write_bytes(data)
    return path


def write_lines(path: Path, records: list[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def asked_prompts() -> list[str]:
    texts = [" ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(3, 9)) for i in range(COUNT)]
    return [f"{text} {WORDS[i % 19]}{i}" for i, text in enumerate(texts)]


@pytest.fixture(scope="session")
def own_words(gguf_file: Path, asked_prompts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 180 items whose targets are what the 16-bit file says: it gets nearly all right, a damaged one few."""
    from quantwise.core.runtime import Ask

    said = replies(gguf_file, [Ask(text=p, max_tokens=4, rendered=False) for p in asked_prompts])
    items = [
        {"id": i, "prompt": p, "target": r.text, "scorer": "exact", "max_tokens": 4}
        for i, (p, r) in enumerate(zip(asked_prompts, said, strict=True))
        if r.text and r.text.strip() == r.text and r.text.isprintable()
    ]
    return write_lines(tmp_path_factory.mktemp("tasks") / "words.jsonl", items)


@pytest.fixture(scope="session")
def own_choices(gguf_file: Path, asked_prompts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 items with three choices each, of which the target is what the 16-bit file prefers."""
    from quantwise.core.runtime import Ask

    choices = [tuple(f" {WORDS[(i + k) % len(WORDS)]}" for k in (0, 7, 12)) for i in range(120)]
    prompts = asked_prompts[:120]
    asks = [Ask(text=p, choices=c, rendered=False) for p, c in zip(prompts, choices, strict=True)]
    found = [r.choice_logprobs for r in replies(gguf_file, asks)]
    items = [
        {"id": i, "prompt": p, "choices": c, "target": values.index(max(values)), "scorer": "choice"}
        for i, (p, c, values) in enumerate(zip(prompts, choices, found, strict=True))
    ]
    return write_lines(tmp_path_factory.mktemp("tasks") / "preferred.jsonl", items)


def replies(gguf_file: Path, asks: list[Any]) -> list[Any]:
    from quantwise.core.artifact import Artifact
    from quantwise.core.runtime import RuntimeOptions
    from quantwise.runtimes.llamacpp import LlamaCpp

    with LlamaCpp().open(Artifact(str(gguf_file), "gguf", "", None), RuntimeOptions(context=256, threads=1)) as session:
        return session.ask(asks)


@pytest.fixture(scope="session")
def complete() -> Callable[[Path], int]:
    """Counts the artifacts of a run folder; fails where one is not whole: of the hash that its record says.

    Drafts and walks, which a killed process leaves, are none yet; their names begin with a dot.
    """
    from quantwise.formats.content_hash import content_hash

    def check(folder: Path) -> int:
        made = [path for path in (folder / "artifacts").glob("*") if not path.name.startswith(".")]
        for path in made:
            record = json.loads((path / "quantwise.json").read_text())
            whole = path / "model.gguf" if record["format"] == "gguf" else path
            assert record["hash"] == content_hash(whole)
        return len(made)

    return check
