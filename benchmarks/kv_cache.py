"""How far each cache scheme moves a model from its 16-bit cache: bytes, divergence, recall; at length also speed.

    python benchmarks/kv_cache.py [--texts 12] [--items 100]
    python benchmarks/kv_cache.py --write [--runs DIR] [--gguf FILE --book FILE] [--documents 80]

With ``--write`` caches of llama.cpp are measured at a full context, as ``quantwise kv`` does, and docs/kv-cache.md gets
the tables: the reference model at its longest context, and FILE, a model of yours, over a book, at 2,048 tokens and at
its longest context. Folders in DIR go on where they were. Times count of the first texts only, so that these can be
read on a machine that does nothing else (``--documents 8`` first, and then more).

Without it, all caches of both runtimes, on short texts of the reference model. Texts and items are of the screening
split, which nobody trained on. The divergence is read off the 128 likeliest
tokens of every place, baseline first, and is a lower bound. Each runtime is compared with itself at ``f16``;
Transformers computes in float32 here, because in bfloat16 its own rounding is larger than that of an 8-bit cache, and
its ``f16`` is then a float32 cache. One run, one small model: it shows what is too coarse, and ranks nothing that is
close.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantwise.cache_study.request import TYPES, Request, parse_options
from quantwise.cache_study.study import study
from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact
from quantwise.core.cache_scheme import TRANSFORMERS_CACHES
from quantwise.core.runtime import Ask, Distributions, Runtime, RuntimeOptions
from quantwise.models.config import read_config
from quantwise.models.reference import path
from quantwise.plan.kv_cache import CacheShape, token_bytes
from quantwise.report.cache_table import HEADS, cells, lines
from quantwise.report.progress import progress_on
from quantwise.runtimes.llamacpp import LlamaCpp
from quantwise.runtimes.transformers import Transformers
from quantwise.stats.divergence import divergence
from quantwise.tasks.recall import SUITE
from quantwise.tasks.scorers import score
from quantwise.tasks.suite import items

TOP = 128
SERVED = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "q8_0/q4_0", "q4_0/q8_0")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "kv-cache.md"
BEGIN, END = "<!-- tables: made by benchmarks/kv_cache.py --write -->", "<!-- end of tables -->"
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
    return Artifact(made.location, "gguf", "", None)


def at_length(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The studies, measured as far as they lack texts."""
    asked = Request(None, parse_options(TYPES, "both"), questions=3, timed=8)
    cases = [replace(asked, documents=flags.documents, run=flags.runs / "reference")]
    if flags.gguf is not None:
        real = replace(asked, model=flags.gguf, text=flags.book, questions=4, timed=3)
        cases += [
            replace(real, context=2048, documents=flags.real_documents, run=flags.runs / "real-2048"),
            replace(
                real,
                options=parse_options(TYPES),
                documents=flags.long_documents,
                run=flags.runs / "real-longest",
            ),
        ]
    for case in cases:
        with progress_on(sys.stderr) as bar:
            yield study(replace(case, threads=flags.threads), bar)


def page(record: Mapping[str, Any]) -> Iterator[str]:
    """One study in Markdown."""
    inside = "reference" if "/artifacts/" in record["model"] else Path(record["model"]).name
    yield f"### {inside}, {record['context']:,} tokens\n"
    yield "| " + " | ".join(head for head, _ in HEADS) + " |"
    yield "| " + " | ".join("---" if side == "left" else "---:" for _, side in HEADS) + " |"
    yield from ("| " + " | ".join(row) + " |" for row in cells(record))
    yield ""
    yield from (f"- {line}" for line in lines(record))
    timed = max(option["timed_texts"] for option in record["options"])
    machine, versions = record["machine"], record["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("quantwise", "xllamacpp", "python") if name in versions)
    first = "text" if timed == 1 else f"{timed} texts"
    yield f"- Times are those of the first {first}, {record['threads']} threads. {machine['cpu']}, {named}.\n"


def write(flags: argparse.Namespace) -> None:
    """Measure, and put the tables between the marks of the page."""
    tables = "\n".join(line for record in at_length(flags) for line in page(record))
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Print the table, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--texts", type=int, default=12)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--write", action="store_true", help=f"measure at length, and write {PAGE.name}")
    parser.add_argument("--runs", type=Path, default=Path("runs/kv-cache"), help="where run folders lie")
    parser.add_argument("--gguf", type=Path, help="a real model of more than 2,048 tokens")
    parser.add_argument("--book", type=Path, help="a text file that fills its longest context")
    parser.add_argument("--documents", type=int, default=80)
    parser.add_argument("--real-documents", type=int, default=3, help="texts at 2,048 tokens")
    parser.add_argument("--long-documents", type=int, default=1, help="texts at the model's longest context")
    parser.add_argument("--threads", type=int, default=2)
    flags = parser.parse_args()
    if flags.write:
        write(flags)
        return 0
    texts = [f"{item.text} {item.target}" for item in items(SUITE, "screen", flags.texts, seed=1)]
    print(HEAD + "\n|" + " --- |" * 8)
    with tempfile.TemporaryDirectory() as place:
        table(Transformers(), in_float32(Path(place) / "float32"), list(TRANSFORMERS_CACHES), texts, flags.items)
        table(LlamaCpp(), in_gguf(Path(place)), SERVED, texts, flags.items)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
