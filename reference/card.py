"""Write the reference model's card from its training log and from fresh screening items: ``python reference/card.py``.

Every number in it is measured here or read from the log; certification items are never touched.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import platform
import textwrap
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from judge import greedy_scores
from quantwise.tasks import SUITES
from stream import ITEMS_PER_ROUND, PROMPT_WEIGHT, PROSE_ROWS_PER_ROUND, PROSE_WEIGHT, RECALL_ROWS_PER_ROUND

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent / "src" / "quantwise" / "models" / "reference"
FRESH_SEED = 90_001
ROWS_PER_ROUND = ITEMS_PER_ROUND | {"long recall": RECALL_ROWS_PER_ROUND, "prose": PROSE_ROWS_PER_ROUND}
DATA = (
    "Data: items of the training split, made on the fly; long rows with two to four facts to recall, whose distance "
    "grows over the first part of the run; procedural documents; and English prose, about an eighth of the tokens: the "
    "TinyStories sample (CDLA-Sharing-1.0) and War and Peace without its last tenth (public domain). Never WikiText "
    "nor BLiMP, which are for measuring. Rows in a round of drawing: "
    + ", ".join(f"{name} {number}" for name, number in ROWS_PER_ROUND.items())
    + f". Loss weights: 1 on answers, {PROMPT_WEIGHT} on prompts, {PROSE_WEIGHT} on prose."
)


def wilson(right: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def processor() -> str:
    """Name of the processor, as the machine gives it."""
    info = pathlib.Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def loss_table(rows: list[dict[str, Any]], entries: int = 12) -> str:
    """Mean training loss in equal stretches of the run."""
    losses = [row for row in rows if "loss" in row]
    worst = max(row["loss"] for row in losses)
    lines = ["| step | million tokens | minutes | loss (nats) | |", "| ---: | ---: | ---: | ---: | :--- |"]
    for part in range(entries):
        stretch = losses[part * len(losses) // entries : (part + 1) * len(losses) // entries]
        if stretch:
            last, mean = stretch[-1], sum(row["loss"] for row in stretch) / len(stretch)
            bar = "▇" * max(1, round(30 * mean / worst))
            place = f"{last['step']} | {last['tokens'] / 1e6:.1f} | {last['seconds'] / 60:.1f}"
            lines.append(f"| {place} | {mean:.3f} | `{bar}` |")
    return "\n".join(lines)


def accuracy_table(model: LlamaForCausalLM, tokenizer: Tokenizer, count: int) -> str:
    """Greedy accuracy on fresh screening items, suite by suite, as the suite's own scorer counts it."""
    lines = ["| suite | what it asks | accuracy | 95 % interval | items |", "| --- | --- | ---: | ---: | ---: |"]
    for suite in SUITES:
        right = sum(greedy_scores(model, tokenizer, suite, count, FRESH_SEED))
        low, high = wilson(right, count)
        print(f"{suite.name}  {right / count:.3f}  {low:.3f} to {high:.3f}", flush=True)
        lines.append(f"| `{suite.name}` | {suite.summary} | {right / count:.1%} | {low:.1%} to {high:.1%} | {count} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the reference model's card.")
    parser.add_argument("--run", default="main", help="name of the training run, whose log is read")
    parser.add_argument("--items", type=int, default=400, help="fresh screening items a suite")
    parser.add_argument("--note", default="", help="a paragraph about this run that no log can tell")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)  # small operations in two threads mostly wait for each other
    rows = [json.loads(line) for line in (HERE / "work" / options.run / "log.jsonl").read_text().splitlines()]
    settings = json.loads((HERE / "work" / options.run / "settings.json").read_text())
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16).eval()
    accuracy = accuracy_table(model, tokenizer, options.items)
    last = [row for row in rows if "loss" in row][-1]
    size = sum(file.stat().st_size for file in MODEL.iterdir() if file.suffix in (".safetensors", ".json"))
    shape = model.config
    card = TEMPLATE.format(
        parameters=f"{sum(p.numel() for p in model.parameters()):,}",
        megabytes=f"{size / 1e6:.1f}",
        layers=shape.num_hidden_layers,
        hidden=shape.hidden_size,
        feed=shape.intermediate_size,
        heads=shape.num_attention_heads,
        kv=shape.num_key_value_heads,
        vocabulary=shape.vocab_size,
        context=shape.max_position_embeddings,
        data=textwrap.fill(DATA, 118),
        accuracy=accuracy,
        losses=loss_table(rows),
        note=f"{textwrap.fill(options.note, 118)}\n\n" if options.note else "",
        steps=f"{last['step']:,}",
        tokens=f"{last['tokens'] / 1e6:.1f}",
        minutes=f"{last['seconds'] / 60:.0f}",
        seed=settings["seed"],
        lr=settings["lr"],
        decay=f"{settings['decay_from']:.0%}",
        micro=settings["micro_batches"],
        workers=settings["workers"],
        machine=f"{processor()}; PyTorch {torch.__version__}",
    )
    (MODEL / "README.md").write_text(card)


TEMPLATE = """# The reference model

A Llama-architecture model of {parameters} parameters ({megabytes} MB in bfloat16, tokenizer included) that ships with
quantwise, so that its whole path can be run on any machine in minutes: plan, quantize, measure, compare, decide.
It is good at the eight task suites below and at nothing else.

**Rankings of quantization methods on a model this small need not carry over to models of 1B parameters and more.**
What it shows is that the machinery works, not which method is best for your model.

## Shape

{layers} layers, hidden {hidden}, feed-forward {feed}, {heads} attention heads of dimension 64 over {kv} key-value
heads, tied embeddings, context {context}. Every matrix row is a multiple of 256 long, so that k-quants apply to all of
it. The vocabulary is a byte-level BPE of {vocabulary} entries with every digit on its own (`smollm` to llama.cpp); no
token is put before the text. A conversation is written `<|user|>question<|assistant|>answer<|end|>`, with an optional
`<|system|>text` before it.

## Accuracy in 16 bit

Greedy decoding in Transformers, bfloat16, on fresh items of the screening split, which are disjoint from the training
items by the hash of their prompts. Intervals are Wilson's.

{accuracy}

The suites are a little harder at test than in training: rare arithmetic patterns (chains of carries, borrows across
zeros) are 80 % of the items and have four digits, instead of 15 % and three; rare languages are less rare (share by
rank to the power of -0.5 instead of -0.8) and there are always four nouns; functions have four further steps, lists
five or six numbers and three operations; names are longer; and long words are mistyped twice. Each suite's file says
how.

## Training

{data}

Recipe: `python reference/train.py`; seed {seed}; {steps} steps of {micro} micro-batches of about 2,048 places, {tokens}
million tokens that were not padding; Muon for the hidden matrices, AdamW for embedding and norms, peak learning rate
{lr}, falling linearly to zero from {decay} of the budget on; computed in bfloat16, kept in float32. {minutes} minutes
with {workers} single-threaded worker(s) on: {machine}.

{losses}

{note}The loss is the weighted mean over the mixture, so its level says little by itself.

## Licence

Apache-2.0, as the rest of the package.
"""


if __name__ == "__main__":
    main()
