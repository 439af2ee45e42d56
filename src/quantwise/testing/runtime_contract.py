"""What every runtime must do, as checks that raise AssertionError; for our runtimes and for those that others add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace

from quantwise.core.artifact import Artifact
from quantwise.core.runtime import Ask, Distributions, Reply, Runtime, RuntimeOptions, Session

# A greedy answer may flip with the batch it is computed in, because floating-point sums depend on the shapes; on this
# share of the prompts at most.
BATCH_FLIPS = 0.25
_TOLERANCE_NATS = 0.05


def check_session(session: Session, prompts: Sequence[str]) -> None:
    """Everything that holds for an open session; ``prompts`` are at least four different rendered texts."""
    assert session.ask([]) == [], "nothing asked, nothing answered"
    asks = [Ask(text=p, max_tokens=6) for p in prompts]
    replies = session.ask(asks)
    _order_and_batches(session, asks, replies)
    for reply in replies:
        assert reply.finish in ("stop", "length"), f"an ordinary request failed: {reply}"
        assert reply.output_tokens is None or 0 <= reply.output_tokens <= 6, "more tokens than were allowed"
        assert reply.prompt_tokens is None or reply.prompt_tokens > 0
        for seconds in (reply.seconds, reply.first_token_seconds):
            assert seconds is None or seconds >= 0
    _one_token(session, prompts)
    _stops(session, asks, replies)
    _choices(session, prompts)
    _failures_stay_alone(session, prompts)
    _footprint(session)
    _distributions(session, prompts[0])


def check_refusals(runtime: Runtime, wrong: Artifact) -> None:
    """A runtime says in one line why it does not take an artifact, has a name, and tells its version."""
    reason = runtime.refuses(wrong)
    assert reason, "an artifact of another format must be refused with a reason"
    assert "\n" not in reason
    assert runtime.name
    assert runtime.version()


def check_timeouts(runtime: Runtime, artifact: Artifact, options: RuntimeOptions, prompts: Sequence[str]) -> None:
    """With no time at all every reply is there and says ``timeout``."""
    with runtime.open(artifact, replace(options, timeout_s=1e-4)) as session:
        replies = session.ask([Ask(text=p, max_tokens=64) for p in prompts])
    assert [r.finish for r in replies] == ["timeout"] * len(prompts), [r.finish for r in replies]
    assert all(r.error for r in replies)


def _order_and_batches(session: Session, asks: list[Ask], replies: list[Reply]) -> None:
    assert len(replies) == len(asks)
    alone = [session.ask([ask])[0] for ask in asks]
    backwards = session.ask(asks[::-1])[::-1]
    allowed = math.floor(BATCH_FLIPS * len(asks))
    for other in (alone, backwards):
        flips = sum(a.text != b.text for a, b in zip(replies, other, strict=True))
        assert flips <= allowed, f"{flips} of {len(asks)} answers depend on order or batch; order is not kept"
        assert [r.prompt_tokens for r in other] == [r.prompt_tokens for r in replies]


def _one_token(session: Session, prompts: Sequence[str]) -> None:
    for reply in session.ask([Ask(text=p, max_tokens=1) for p in prompts]):
        assert reply.output_tokens in (None, 0, 1)


def _stops(session: Session, asks: list[Ask], replies: list[Reply]) -> None:
    """A letter from the middle of an answer, as a stop text, ends that answer before it."""
    for ask, reply in zip(asks, replies, strict=True):
        if len(reply.text) >= 3 and reply.text.isascii():
            stop = reply.text[len(reply.text) // 2]
            cut = session.ask([replace(ask, stop=(stop,))])[0]
            assert cut.text == reply.text.split(stop)[0], f"{cut.text!r} is not {reply.text!r} before {stop!r}"
            assert cut.finish == "stop"
            return


def _choices(session: Session, prompts: Sequence[str]) -> None:
    choices = (" one", " two", " three", " something else")
    replies = session.ask([Ask(text=p, choices=choices) for p in prompts])
    turned = session.ask([Ask(text=p, choices=choices[::-1]) for p in prompts])
    for reply, other in zip(replies, turned, strict=True):
        assert reply.text == "", "with choices nothing is generated"
        assert len(reply.choice_logprobs) == len(choices), f"one number per choice: {reply}"
        assert all(math.isfinite(p) and p <= 0 for p in reply.choice_logprobs)
        assert sum(math.exp(p) for p in reply.choice_logprobs) <= 1.001, "choices exclude each other"
        for mine, again in zip(reply.choice_logprobs, other.choice_logprobs[::-1], strict=True):
            assert abs(mine - again) < _TOLERANCE_NATS, "a choice's log-probability depends on the others"


def _failures_stay_alone(session: Session, prompts: Sequence[str]) -> None:
    """A prompt beyond any context fails by itself; its neighbours are answered."""
    before, bad, after = session.ask([Ask(text=prompts[0]), Ask(text="word " * 100_000), Ask(text=prompts[1])])
    assert bad.finish in ("refused", "crash"), f"an impossible prompt must fail: {bad.finish}"
    assert bad.error
    assert {before.finish, after.finish} <= {"stop", "length"}, "one bad request took others with it"


def _footprint(session: Session) -> None:
    footprint = session.footprint()
    assert footprint.executes in (None, "as stored", "packed", "dequantized")
    for name in (f.name for f in fields(footprint) if f.name != "executes"):
        value = getattr(footprint, name)
        assert value is None or (isinstance(value, int) and value > 0), (
            f"{name} must be positive bytes or None: {value!r}"
        )


def _distributions(session: Session, text: str) -> None:
    if not isinstance(session, Distributions):
        return
    positions = session.next_token_logprobs(text, 3)
    assert positions
    for position in positions:
        assert len(position) in (3, 4), "the three likeliest, and the one that came"
        assert sum(math.exp(p) for p in position.values()) <= 1.001
        best = sorted(position.values(), reverse=True)
        assert best[0] <= 0
