"""How far each cache scheme moves the reference model from its 16-bit cache: bytes, divergence, and recall.

    python benchmarks/kv_cache.py [--texts 12] [--items 100]

Texts and items are of the screening split, which nobody trained on. The divergence is read off the 128 likeliest
tokens of every place, baseline first, and is a lower bound. Each runtime is compared with itself at ``f16``;
Transformers computes in float32 here, because in bfloat16 its own rounding is larger than that of an 8-bit cache, and
its ``f16`` is then a float32 cache. One run, one small model: it shows what is too coarse, and ranks nothing that is
close.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact
from quantwise.core.cache_scheme import TRANSFORMERS_CACHES
from quantwise.core.runtime import Ask, Distributions, Runtime, RuntimeOptions
from quantwise.models.config import read_config
from quantwise.models.reference import path
from quantwise.plan.kv_cache import CacheShape, token_bytes
from quantwise.runtimes.llamacpp import LlamaCpp
from quantwise.runtimes.transformers import Transformers
from quantwise.stats.divergence import divergence
from quantwise.tasks.recall import SUITE
from quantwise.tasks.scorers import score
from quantwise.tasks.suite import items

TOP = 128
SERVED = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "q8_0/q4_0", "q4_0/q8_0")
HEAD = "| runtime | cache | bytes per token, K + V | of f16 | KL mean | KL p99 | same top token | recall |"

Told = list[list[dict[int, float]]]


def measured(runtime: Runtime, artifact: Artifact, cache: str, texts: Sequence[str], asked: int) -> tuple[Told, float]:
    """Distributions over the texts, and the share of recall items answered right."""
    template = ChatTemplate.from_folder(path())
    assert template is not None
    questions = items(SUITE, "screen", asked)
    with runtime.open(artifact, RuntimeOptions(cache=cache, context=1024, parallel=8, threads=1)) as session:
        assert isinstance(session, Distributions)
        told = [session.next_token_logprobs(text, TOP) for text in texts]
        asks = [Ask(text=template.render(q.messages), max_tokens=q.max_tokens) for q in questions]
        replies = session.ask(asks)
    right = sum(score(q, r.text) for q, r in zip(questions, replies, strict=True))
    return told, right / max(1, len(questions))


def table(runtime: Runtime, artifact: Artifact, caches: Sequence[str], texts: Sequence[str], asked: int) -> None:
    """One line for each cache scheme, ``f16`` first."""
    model = read_config(path())
    shape = CacheShape(model.layers, model.kv_heads, model.head_dim, model.head_dim)
    whole, base = sum(token_bytes(shape)), None
    for cache in caches:
        told, recall = measured(runtime, artifact, cache, texts, asked)
        base = base or told
        far = divergence(base, told)
        keys, values = token_bytes(shape, cache)
        share = (keys + values) / whole
        print(
            f"| {runtime.name} | `{cache}` | {keys:.0f} + {values:.0f} | {share:.2f} | {far.mean_kl:.2e} |"
            f" {far.p99_kl:.2e} | {far.same_top:.2%} | {recall:.1%} |",
            flush=True,
        )


def in_float32(place: Path) -> Artifact:
    """The reference model as a folder in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(path(), dtype="float32").save_pretrained(place)
    AutoTokenizer.from_pretrained(path()).save_pretrained(place)
    return Artifact(str(place), "safetensors", "", None)


def in_gguf(place: Path) -> Artifact:
    """The reference model as a file in f16."""
    from quantwise.build.walk import build
    from quantwise.core.recipe import parse_recipe

    (made,) = build(path(), [parse_recipe("f16")], [], place)
    return Artifact(str(next(Path(made.location).glob("*.gguf"))), "gguf", "", None)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--texts", type=int, default=12)
    parser.add_argument("--items", type=int, default=100)
    flags = parser.parse_args()
    texts = [f"{item.text} {item.target}" for item in items(SUITE, "screen", flags.texts, seed=1)]
    print(HEAD + "\n|" + " --- |" * 8)
    with tempfile.TemporaryDirectory() as place:
        table(Transformers(), in_float32(Path(place) / "float32"), list(TRANSFORMERS_CACHES), texts, flags.items)
        table(LlamaCpp(), in_gguf(Path(place)), SERVED, texts, flags.items)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
