"""One rendering of messages for every runtime.

A chat template is a Jinja program that comes with a model. It runs in Jinja's immutable sandbox with the names that
Hugging Face documents for templates: ``messages``, ``add_generation_prompt``, the special tokens, ``raise_exception``,
``strftime_now``, ``tojson``, loop controls and the ``generation`` tag.
https://huggingface.co/docs/transformers/chat_templating_writing
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import meta, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from quantwise.core.errors import InputError
from quantwise.core.item import Message
from quantwise.core.template_arguments import RESERVED, TOKEN_NAMES

# A template that prints today's date would give another prompt tomorrow, and another answer; so today never changes.
FROZEN_TODAY = date(2024, 7, 26)


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's words for training; for asking it means its body."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own declaration)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the two tags, unchanged."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled chat template with its special tokens.

    ``source`` is the Jinja text; ``tokens`` maps names such as ``bos_token`` to their text; ``arguments`` are told to
    every rendering, such as ``enable_thinking``. Raises InputError when the source does not compile, and for an
    argument that it never reads.
    """

    def __init__(
        self, source: str, tokens: Mapping[str, str] | None = None, today: date = FROZEN_TODAY,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.source = source
        self.arguments = dict(arguments or {})
        self.tokens = {"bos_token": "", "eos_token": ""} | dict(tokens or {})
        self.today = today
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = today.strftime
        try:
            self._template = environment.from_string(source)
            read = meta.find_undeclared_variables(environment.parse(source)) if self.arguments else set()
        except TemplateError as error:
            raise InputError(
                f"the chat template does not compile: {_line(error)}; mend it or give raw prompts"
            ) from error
        if unread := sorted(set(self.arguments) - read):
            named = ", ".join(sorted(read - set(RESERVED))) or "none"
            raise InputError(f"the chat template reads no argument {unread[0]!r}; leave it out; it reads: {named:.200}")

    def told(self, arguments: Mapping[str, Any]) -> ChatTemplate:
        """The same template with these arguments."""
        return ChatTemplate(self.source, self.tokens, self.today, arguments)

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """The complete prompt, special tokens included. Raises InputError where the template refuses the messages.

        Functions that can be called (``tools``) are shown as the template shows them; where it knows of none, the
        system message lists them as JSON.
        """
        if tools and "tools" not in self.source:
            messages, tools = with_tools(messages, tools), ()
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self._template.render(
                messages=turns, add_generation_prompt=add_generation_prompt, tools=list(tools) or None, documents=None,
                **self.tokens, **self.arguments,
            )  # fmt: skip
        except (TemplateError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
            roles = ", ".join(m.role for m in messages)
            raise InputError(f"the chat template refuses the messages ({roles}): {_line(error)}") from error

    @property
    def hash(self) -> str:
        """Hash of everything that shapes a rendering: source, special tokens, the date it is told, arguments if any."""
        what: list[Any] = [self.source, sorted(self.tokens.items()), self.today.isoformat()]
        what += [sorted(self.arguments.items())] if self.arguments else []
        return hashlib.blake2b(json.dumps(what, ensure_ascii=False).encode(), digest_size=16).hexdigest()

    @classmethod
    def from_folder(cls, folder: str | Path) -> ChatTemplate | None:
        """The template of a Hugging Face folder (``chat_template.jinja`` before ``tokenizer_config.json``), or None.

        Raises InputError when ``tokenizer_config.json`` is not JSON.
        """
        folder = Path(folder)
        config = _json_object(folder / "tokenizer_config.json")
        file = folder / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.is_file() else _default_of(config.get("chat_template"))
        if source is None:
            return None
        return cls(source, {name: text for name in TOKEN_NAMES if (text := _token_text(config.get(name)))})

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> ChatTemplate | None:
        """The template in a GGUF header given as key to value, or None where it has none."""
        source = metadata.get("tokenizer.chat_template")
        if not isinstance(source, str) or not source:
            return None
        vocabulary = metadata.get("tokenizer.ggml.tokens", ())
        keys = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
        tokens = {}
        for name, key in keys.items():
            index = metadata.get(f"tokenizer.ggml.{key}_token_id")
            if index is not None and 0 <= int(index) < len(vocabulary):
                tokens[name] = str(vocabulary[int(index)])
        return cls(source, tokens)


def with_tools(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """The messages with the functions told in words, for a template or a server that has no place for them."""
    listed = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False, sort_keys=True) for tool in tools)
    told = (
        "You can call the functions below. To call one, answer with nothing but a JSON object that has its name and "
        f'its arguments: {{"name": "...", "arguments": {{...}}}}\n{listed}'
    )
    if messages and messages[0].role == "system":
        return (Message("system", f"{messages[0].content}\n\n{told}"), *messages[1:])
    return (Message("system", told), *messages)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _json_object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {_line(error)}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} must hold a JSON object, not a {type(found).__name__}")
    return found


def _default_of(entry: Any) -> str | None:
    """A tokenizer may name several templates; ours is the one called ``default``."""
    if isinstance(entry, list):
        named = {e.get("name"): e.get("template") for e in entry if isinstance(e, dict)}
        entry = named.get("default")
    return entry if isinstance(entry, str) and entry else None


def _token_text(entry: Any) -> str | None:
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None
