"""Chat templates in Ollama's words, where a model's own Jinja can be told to be one of a few simple kinds.

Ollama renders with Go's text/template. A translation is given only where the model's template, rendered on the
conversations below, says letter for letter what the kind says; everything else (default system prompts, tools,
thinking, dates) fails that, and is left to Ollama. https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantwise.chat import ChatTemplate
from quantwise.core.errors import InputError
from quantwise.core.item import Message


@dataclass(frozen=True, slots=True)
class Kind:
    """Turns one after another, each ``before`` role ``between`` content ``after``, and an open one of the assistant."""

    name: str
    before: str
    between: str
    after: str

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, without the token that begins a sequence (Ollama adds it by itself)."""
        turns = [f"{self.before}{m.role}{self.between}{m.content}{self.after}" for m in messages]
        return f"{''.join(turns)}{self.before}assistant{self.between}"

    @property
    def go(self) -> str:
        """The same as Ollama writes it."""
        turn = f"{self.before}{{{{ .Role }}}}{self.between}{{{{ .Content }}}}{self.after}"
        return f"{{{{ range .Messages }}}}{turn}{{{{ end }}}}{self.before}assistant{self.between}"


KINDS = (
    Kind("chatml", "<|im_start|>", "\n", "<|im_end|>\n"),
    Kind("llama3", "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"),
    Kind("phi3", "<|", "|>\n", "<|end|>\n"),
    Kind("zephyr", "<|", "|>\n", "</s>\n"),
)
_TALK = (
    Message("system", "Answer in one word."), Message("user", "Hello, how are you?"), Message("assistant", "Fine."),
    Message("user", "Zwei Zeilen:\n\n{\"a\": \"<b>\"} & ümlaut"), Message("assistant", "Yes\nno"), Message("user", "?"),
)  # fmt: skip
SAMPLES: tuple[tuple[Message, ...], ...] = (_TALK[1:2], _TALK[:2], _TALK[1:4], _TALK[:4], _TALK)
"""One turn and several, with and without a system turn: two of Ollama's rules, each role after each, several lines."""


def translated(template: ChatTemplate, adds_bos: bool) -> tuple[Kind | None, str | None]:
    """The kind that a template is, or None; and what to know where the two differ on odd conversations.

    ``adds_bos`` says that the tokenizer begins every sequence by itself, as it does in Ollama: then the template must
    write that token too, and else it must not.
    """
    begins = template.tokens.get("bos_token", "") if adds_bos else ""
    for kind in KINDS:
        if all(_says(template, kind, talk, begins) for talk in SAMPLES):
            padded = tuple(replace(m, content=f" {m.content}\n") for m in SAMPLES[0])
            if _says(template, kind, padded, begins):
                return kind, None
            return kind, "the model's template strips white space around a message, Ollama's does not"
    return None, None


def _says(template: ChatTemplate, kind: Kind, messages: Sequence[Message], begins: str) -> bool:
    try:
        return template.render(messages) == begins + kind.render(messages)
    except InputError:
        return False
