"""A handful of conversations by which prompts are compared between runtimes, before anything is measured.

Each shows one way in which templates break: a beginning token that comes twice, a system turn that is lost or made up,
white space that is taken off, a turn that is left out. They are asked as items are: rendered by our template where
there is one, else as messages that a server renders by its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from quantwise.chat import ChatTemplate
from quantwise.core.errors import InputError
from quantwise.core.item import Message
from quantwise.core.prompt_tokens import PromptTokens, TellsPrompts
from quantwise.core.runtime import Ask

SYSTEM = "Answer as the heliotrope would."
_QUESTION = Message("user", "Which bird dives from the harbour wall, a cormorant or a plover?")
USER = "a user turn alone"
WITH_SYSTEM = "a system turn and a user turn"
SPACES = "white space around a turn"
UNICODE = "letters of many scripts"
PLAIN = "a plain text"
CONVERSATIONS: Mapping[str, tuple[Message, ...]] = {
    USER: (_QUESTION,),
    WITH_SYSTEM: (Message("system", SYSTEM), _QUESTION),
    SPACES: (Message("user", "\n  two words \n\n"),),
    "several turns": (_QUESTION, Message("assistant", "The cormorant."), Message("user", "And which one wades?")),
    UNICODE: (Message("user", "Żółw, naïve café, 東京の空, שלום, 🦜 and 3,14?"),),
}
Told = dict[str, PromptTokens]


def asks(
    template: ChatTemplate | None, chats: bool, plain: bool, arguments: Mapping[str, Any] | None = None
) -> dict[str, Ask]:
    """What is asked, by name: conversations where items have turns, a text where they have none. A server that renders
    by its own template is told the ``arguments``; those of ``template`` are in it.

    A conversation that our own template refuses is left out: no runtime is given one of that kind.
    """
    found = {PLAIN: Ask(text=_QUESTION.content, rendered=False)} if plain else {}
    for name, turns in CONVERSATIONS.items() if chats else ():
        try:
            text = template.render(turns) if template is not None else None
        except InputError:
            continue
        found[name] = Ask(messages=turns, template_arguments=arguments or {}) if text is None else Ask(text=text)
    return found


def probe(session: TellsPrompts, wanted: Mapping[str, Ask]) -> Told:
    """What the session reads for each of them. Raises RuntimeFailure where it fails over one."""
    return {name: session.prompt_tokens(ask) for name, ask in wanted.items()}


def fingerprint(told: Mapping[str, PromptTokens]) -> str:
    """Hash of everything that is known of the prompts: of a server that renders for itself, the hash of its template
    as far as it can be seen from outside."""
    seen = {name: [p.ids, None if p.ids else p.count, p.refused is not None] for name, p in told.items()}
    return hashlib.blake2b(json.dumps(seen, sort_keys=True).encode(), digest_size=16).hexdigest()


def to_json(told: Mapping[str, PromptTokens]) -> dict[str, object]:
    """As the store keeps it."""
    return {name: asdict(prompt) for name, prompt in told.items()}


def from_json(record: Mapping[str, Mapping[str, Any]]) -> Told:
    """Read back what ``to_json`` wrote."""
    return {name: PromptTokens(**_tuples(body)) for name, body in record.items()}


def _tuples(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for key, value in body.items()}  # fmt: skip
