"""The commonest doubled beginning token: a GGUF file whose tokenizer adds one, and whose chat template writes one too.

llama.cpp's chat endpoint takes one of them off (``common/chat.cpp``), and so do we; whoever sends the rendered text to
an endpoint for plain prompts gets both, and many models answer worse then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantwise.formats.gguf.header import read_chat_metadata

# Where a file does not say it, llama.cpp goes by its kind of vocabulary (src/llama-vocab.cpp, llama_vocab::impl::load).
_KINDS_THAT_ADD = ("llama", "bert")
_PRE_THAT_ADD = (
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
    "tekken", "chameleon",
)  # fmt: skip


def adds_beginning(metadata: Mapping[str, Any]) -> bool:
    """Whether llama.cpp's tokenizer puts a beginning token before a text."""
    told = metadata.get("tokenizer.ggml.add_bos_token")
    if isinstance(told, bool):
        return told
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    return kind in _KINDS_THAT_ADD or (kind == "gpt2" and pre in _PRE_THAT_ADD)


def beginning_twice(path: Path) -> str | None:
    """One line where both the tokenizer and the template of a file bring a beginning token, with its fix; else None.

    Raises InputError where the file is damaged. What a template does is seen in its text: whether it names the token,
    or ``bos_token``.
    """
    metadata = read_chat_metadata(path)
    template, index = metadata.get("tokenizer.chat_template"), metadata.get("tokenizer.ggml.bos_token_id")
    if not isinstance(template, str) or not isinstance(index, int) or not adds_beginning(metadata):
        return None
    vocabulary = metadata.get("tokenizer.ggml.tokens", ())
    token = str(vocabulary[index]) if 0 <= index < len(vocabulary) else ""
    if "bos_token" not in template and not (token and token in template):
        return None
    return (
        f"the file's tokenizer adds {token or 'a beginning token'} and its chat template writes it too; quantwise "
        "and llama-server's chat endpoint read it once, a program that sends the rendered text as a plain prompt gets "
        "it twice: use the chat endpoint, or have the tokenizer add none (gguf_set_metadata.py FILE "
        "tokenizer.ggml.add_bos_token false)"
    )
