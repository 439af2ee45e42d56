"""The study: every text is read once with every cache, options in rotating order, and then all is asked of it.

One pass over a text of a full context gives all four answers: how fast it was read, how fast a token is written behind
it, the next-token distributions of its last places, and the answers to the questions about it. Texts and answers are
kept one by one, so a study that is stopped goes on where it was.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from quantwise.cache_study.findings import findings
from quantwise.cache_study.request import (
    TAIL,
    TOP,
    WRITTEN,
    CacheOption,
    Request,
    check_counts,
    room_of,
    settings,
    settings_hash,
)
from quantwise.cache_study.subject import Subject, cores, keeps_all, read_subject, with_file
from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.core.evidence import ANSWERED
from quantwise.core.progress import Progress
from quantwise.core.runtime import RuntimeOptions
from quantwise.runtimes.llamacpp import LlamaCpp, LlamaCppSession
from quantwise.store import Store
from quantwise.tasks.long_recall import Document, check_room, document, sentences_of
from quantwise.tasks.scorers import score

_TIMEOUT_S = 6 * 3600.0
"""Reading a full context on a processor takes minutes, and hours for large models."""
_WARM_UP = 32
Tell = Callable[[str], None]


def study(request: Request, progress: Progress, tell: Tell = lambda line: None) -> dict[str, Any]:
    """Measure what is missing, and return the record (``findings``). Raises InputError for a request that cannot be
    met, before a server is started; RuntimeFailure where one does not start or dies.
    """
    check_counts(request)
    request = replace(request, threads=request.threads or cores())
    prose = sentences_of(request.text) if request.text is not None else []
    subject = read_subject(request)
    check_room(request.questions, room_of(subject.context), prose, request.seed)
    kept = settings(request, subject.artifact.hash, subject.context, LlamaCpp().version(), prose)
    folder = request.run or Path("runs") / f"kv-{settings_hash(kept)}"
    with Store(folder, create=True) as store:
        _freeze(store, kept)
        tell(f"run folder {folder}")
        subject = with_file(subject, folder / "artifacts")
        store.put("model", "artifact", asdict(subject.artifact))
        with _Servers(subject, request) as servers:
            _Work(store, subject, request, servers, prose).run(progress)
        return findings(store, subject, request, kept) | {"folder": str(folder)}


def _freeze(store: Store, kept: dict[str, Any]) -> None:
    held = store.get("cache-study", "settings")
    if held is None:
        store.put("cache-study", "settings", kept)
    elif held != kept:
        changed = ", ".join(key for key in kept if held.get(key) != kept[key])
        raise InputError(f"{store.folder} holds another study (changed: {changed}); choose another --run")


class _Servers:
    """A server for each option: side by side where memory allows, else one at a time."""

    def __init__(self, subject: Subject, request: Request) -> None:
        self._subject, self._threads = subject, request.threads
        self._all = keeps_all(subject, request.options)
        self._open: dict[CacheOption, tuple[LlamaCppSession, ExitStack]] = {}

    def __enter__(self) -> _Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        while self._open:
            self._open.popitem()[1][1].close()

    def session(self, option: CacheOption) -> LlamaCppSession:
        """The option's session, warm. Raises RuntimeFailure, which names the option, when it does not start."""
        if option not in self._open:
            if not self._all:
                self._close()
            stack = ExitStack()
            asked = RuntimeOptions(option.cache, self._subject.context, self._threads, 1, _TIMEOUT_S)
            try:
                session = stack.enter_context(
                    LlamaCpp(flash_attention=option.flash).open(self._subject.artifact, asked)
                )
                session.timed(session.tokenize(" once upon a time" * _WARM_UP)[:_WARM_UP], _WARM_UP)
            except RuntimeFailure as error:
                stack.close()
                raise RuntimeFailure(f"cache {option.name}: {error}; leave it out of --types") from error
            self._open[option] = session, stack
        return self._open[option][0]


class _Work:
    """What is done to each text with each option."""

    def __init__(self, store: Store, subject: Subject, request: Request, servers: _Servers, prose: list[str]) -> None:
        self._store, self._subject, self._request = store, subject, request
        self._servers, self._prose = servers, prose
        self._process = secrets.token_hex(4)
        self._text: Document | None = None

    def run(self, progress: Progress) -> None:
        """Measure what the store lacks, as long as the budget lasts."""
        begun, budget = time.monotonic(), self._request.budget_seconds
        options = self._request.options
        total = self._request.documents * len(options)
        held = self._store.all("unit")
        left = [(n, o) for n, o in self._turns() if unit_name(n, o) not in held]
        progress.stage("long texts", total, total - len(left))
        for number, option in left:
            if budget is not None and time.monotonic() - begun > budget:
                return
            self._measure(number, option)
            progress.advance(1, f"text {number + 1}, {option.name}")

    def _turns(self) -> Iterator[tuple[int, CacheOption]]:
        options = self._request.options
        for number in range(self._request.documents):
            turn = number % len(options)
            yield from ((number, option) for option in (*options[turn:], *options[:turn]))

    def _measure(self, number: int, option: CacheOption) -> None:
        session = self._servers.session(option)
        text = self._document(number, session)
        asks = [self._subject.ask(item) for item in text.items(self._subject.template is not None)]
        ids = [session.tokenize(ask.text or "", not ask.rendered) for ask in asks]
        shared = ids[0][: _same(ids)] if len(ids) > 1 else ids[0]
        with _named(option):
            phases = session.timed(shared, WRITTEN)
            tail = session.tail_logprobs(shared, min(TAIL, len(shared) - 1), TOP)
            replies = session.ask(asks)
        items = text.items(self._subject.template is not None)
        answers = [
            {
                "item": item.id,
                "cluster": item.cluster,
                "finish": reply.finish,
                "score": score(item, reply.text) if reply.finish in ANSWERED else None,
                "output": reply.text,
                "tokens": reply.prompt_tokens,
                "error": reply.error,
            }
            for item, reply in zip(items, replies, strict=True)
        ]
        body = {
            "number": number,
            "option": option.name,
            "process": self._process,
            "tokens": len(shared),
            "phases": asdict(phases),
            "tail": [sorted(place.items()) for place in tail],
            "answers": answers,
        }
        self._store.put("memory", option.name, asdict(session.footprint()))
        self._store.put("unit", unit_name(number, option), body)

    def _document(self, number: int, session: LlamaCppSession) -> Document:
        """The text of this number, the same with every option."""
        if self._text is None or self._text.number != number:
            room = room_of(self._subject.context)
            chat = self._subject.template is not None

            def fits(text: str) -> bool:
                (item,) = Document(number, text, (("Toven", "617"),)).items(chat)
                ask = self._subject.ask(item)
                return len(session.tokenize(ask.text or "", not ask.rendered)) <= room

            self._text = document(number, self._request.questions, fits, self._prose, self._request.seed)
        return self._text


def unit_name(number: int, option: CacheOption) -> str:
    """The key of one text with one option in the store."""
    return f"{number:05d}/{option.name}"


def _same(ids: list[list[int]]) -> int:
    """How many tokens all prompts begin with."""
    return next((i for i, column in enumerate(zip(*ids, strict=False)) if len(set(column)) > 1), min(map(len, ids)))


@contextmanager
def _named(option: CacheOption) -> Iterator[None]:
    try:
        yield
    except RuntimeFailure as error:
        raise RuntimeFailure(f"cache {option.name}: {error}; the same command goes on where it was") from error
