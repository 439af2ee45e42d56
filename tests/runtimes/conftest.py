"""A small random Llama with a chat template, as a folder and as a GGUF file, and servers on it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantwise.core.artifact import Artifact
from quantwise.core.runtime import RuntimeOptions
from quantwise.runtimes.process import ServerProcess, free_port

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROSE = "once upon a time there was little dog who loved to play in the park one two three with some thing else"
WORDS = PROSE.split()
OPTIONS = RuntimeOptions(context=256, parallel=4, threads=1, timeout_s=60.0)


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, logs of servers that fail among them."""
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def write_model(folder: Path, dtype: str) -> None:
    """Hidden 128, 2 layers, 2 heads of 64 over 1 key-value head, byte-level BPE of about 330 tokens; seeded."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    special = ["<|bos|>", "<|im_end|>", "<|im_start|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokens.train_from_iterator([" ".join(WORDS), " ".join(WORDS[::-1])], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<|bos|>", eos_token="<|im_end|>")
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
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def model_writer() -> Callable[[Path, str], None]:
    return write_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("tiny")
    write_model(path, "float32")
    return Artifact(str(path), "safetensors", "tiny", None)


@pytest.fixture(scope="session")
def gguf_file(folder: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    from quantwise.formats.gguf.writer import write_gguf
    from quantwise.formats.safetensors_folder import ModelFolder
    from quantwise.grids.ggml_blocks import GgmlBlocks

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, ModelFolder(Path(folder.location)), "f16", lambda ggml, values: GgmlBlocks(ggml).encode(values))
    return Artifact(str(path), "gguf", "tiny-gguf", path.stat().st_size)


@pytest.fixture(scope="session")
def options() -> RuntimeOptions:
    return OPTIONS


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Twelve rendered prompts of different lengths."""
    turns = [" ".join(WORDS[i : i + 3 + i]) for i in range(12)]
    return [f"<|bos|><|im_start|>user\n{turn}<|im_end|>\n<|im_start|>assistant\n" for turn in turns]


@pytest.fixture
def server(gguf_file: Artifact) -> Iterator[ServerProcess]:
    """A llama.cpp server without a key, as a user may run it."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    flags = ["--model", gguf_file.location, "--port", str(port), "--ctx-size", "1024", "--parallel", "4"]
    flags += ["--threads", "1", "--no-webui", "--fit", "off", "--cache-ram", "0"]
    with ServerProcess([sys.executable, "-P", "-m", "quantwise.runtimes.llamacpp_host", *flags], url) as process:
        yield process
