"""The tables of ``vllm_agreement.py``: how often two ways of computing name the same token, how far off they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from quantwise.stats.bootstrap import Estimate, bootstrap_ratio

ALLOWED = 0.01
# Nats between the two likeliest tokens.
GAPS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, np.inf)
Flags = NDArray[np.bool_]
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Compared:
    """One folder at positions P of texts T: who names the same token as whom, and how far log probabilities of the
    token that came are from exact ones. ``again`` and ``again_off`` are of Transformers with another attention.
    """

    name: str
    float32: bool  # what both computed in; else bfloat16
    text: NDArray[np.int64]  # (P,) which text
    answer: Flags  # (P,) whether the position is of an answer
    gap: Reals  # (P,) of the exact logits
    same: Flags  # vLLM and Transformers
    again: Flags  # Transformers with itself
    theirs: Flags  # vLLM and exact
    ours: Flags  # Transformers and exact
    packed: Flags  # Transformers with weights packed and expanded
    theirs_off: Reals  # (P,) nats
    ours_off: Reals
    again_off: Reals


_ON_AMX = """"Beside int8 inputs" is vLLM as it is, beside Transformers and exact numbers with the inputs of quantized
layers rounded to int8, token by token: what vLLM does of its own for 4-bit weights on a processor with AMX;
"16-bit inputs" is vLLM with that switched off (`VLLM_CPU_INT4_W4A8=0`).
"""


def page(told: str, found: Sequence[Compared], failed: Sequence[str], amx: bool) -> str:
    """The whole page."""
    lost = "".join(f"\nNot measured: {one}\n" for one in failed)
    return f"""# vLLM on a CPU{" with AMX" if amx else ""} beside Transformers

How often vLLM and the Transformers runtime name the same next token for one and the same folder; made by
`benchmarks/vllm_agreement.py`. {told}

"Exact" are the stored numbers computed in float64, read from the files by other code than the runtime's. "Other
attention" is Transformers beside itself with `eager` for `sdpa`: the same sums in another order, and no
vLLM in it. "Both in float32": the same files with float32
as the folder's dtype, which both runtimes then compute in, beside 16-bit weights computed so; of GPTQ and AWQ vLLM
does not take it. Intervals resample whole texts.
{_ON_AMX if amx else "A processor with AMX is on [another page](vllm-agreement-amx.md): vLLM computes otherwise there."}

{agreement(found)}

{conclusion(found)}
{lost}
## Is it rounding, or a defect?

Positions where vLLM and Transformers differ, of all positions, by how many nats the two likeliest tokens are apart in
exact numbers:

{by_gap(found)}

{_beyond(found)}

Which of the two is nearer to the exact numbers: mean distance of the log probability of the token that came, in nats,
and how often the exactly likeliest token is named:

{nearness(found)}

{_nearer(found)}
"""


def agreement(found: Sequence[Compared]) -> str:
    """The first table."""
    lines = [
        "| folder | vLLM and Transformers agree | less 16 bit's, points (95 %) | Transformers, other attention "
        "| at answers |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for one in found:
        base = _base(one, found)
        over = "" if base is None or base is one else _points(_over(one, base))
        lost = int((~one.same[one.answer]).sum())
        at = f"{one.same[one.answer].mean():.2%} ({lost} of {int(one.answer.sum()):,} differ)"
        lines.append(f"| {one.name} | {one.same.mean():.2%} | {over} | {one.again.mean():.2%} | {at} |")
    return "\n".join(lines)


def conclusion(found: Sequence[Compared]) -> str:
    """Which are within a point of what 16 bit reaches, over all positions and at answers."""
    pairs = [(one, base) for one in found if (base := _base(one, found)) is not None and base is not one]
    others = [one for one, _ in pairs]
    within = [one.name for one, base in pairs if (low := _over(one, base).low) is not None and low >= -ALLOWED]
    shares = [one.same[one.answer].mean() - base.same[base.answer].mean() for one, base in pairs]
    at = [one.name for one, share in zip(others, shares, strict=True) if share >= -ALLOWED]
    whole = f"{', '.join(within)} {'is' if len(within) == 1 else 'are'}" if within else "none is"
    places = "all are" if len(at) == len(others) else f"{', '.join(at) or 'none'} {'is' if len(at) < 2 else 'are'}"
    itself = [f"{one.name} {100 * float(one.same.mean() - one.again.mean()):+.2f}" for one in found]
    return (
        f"Not more than 1 point below what 16 bit reaches: over all positions, by the whole interval, {whole}; "
        f"at answers, by the share alone, {places}.\nPoints above or below what Transformers agrees with itself (other "
        f"attention): {', '.join(itself)}."
    )


def by_gap(found: Sequence[Compared]) -> str:
    """Differences by how near the two likeliest tokens are."""
    heads = [f"below {high:g}" if low == 0 else f"{low:g} and more" if high == np.inf else f"{low:g} to {high:g}"
             for low, high in _bins()]  # fmt: skip
    lines = [f"| folder | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    for one in found:
        cells = []
        for low, high in _bins():
            here = (one.gap >= low) & (one.gap < high)
            cells.append(f"{int((~one.same[here]).sum())} of {int(here.sum()):,}")
        lines.append(f"| {one.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def nearness(found: Sequence[Compared]) -> str:
    """Distances from exact numbers."""
    lines = [
        "| folder | vLLM | Transformers | other attention | named by vLLM | by Transformers |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in found:
        off = [f"{values.mean():.4f}" for values in (one.theirs_off, one.ours_off, one.again_off)]
        named = [f"{values.mean():.2%}" for values in (one.theirs, one.ours)]
        lines.append(f"| {one.name} | {' | '.join(off + named)} |")
    return "\n".join(lines)


def _beyond(found: Sequence[Compared]) -> str:
    far = [(one.name, int((~one.same[one.gap >= 0.5]).sum()), int((one.gap >= 0.5).sum())) for one in found]
    medians = [f"{one.name} {np.median(one.gap[~one.same]):.3f}" for one in found if not one.same.all()]
    total = ", ".join(f"{name} {lost} of {of:,}" for name, lost, of in far)
    median = f" Where they differ the two tokens are apart by, in the median: {', '.join(medians)}." if medians else ""
    return f"Half a nat and more apart they differ at: {total}.{median}".replace(". ", ".\n")


def _nearer(found: Sequence[Compared]) -> str:
    ratios = [f"{one.name} {one.theirs_off.mean() / one.ours_off.mean():.2f}" for one in found]
    packed = [f"{one.name} {one.packed.mean():.2%}" for one in found]
    return (
        f"vLLM's distance over that of Transformers: {', '.join(ratios)}.\n"
        "The Transformers runtime (packed kernels, texts in batches) and "
        f"a plain pass over expanded weights agree at: {', '.join(packed)}."
    )


def _base(one: Compared, found: Sequence[Compared]) -> Compared | None:
    """16 bit, computed in the same type."""
    return next((o for o in found if o.float32 == one.float32 and o.name.startswith("`16bit`")), None)


def _over(one: Compared, base: Compared) -> Estimate:
    """Agreement less that of ``base``, texts resampled."""
    texts = np.arange(int(base.text.max()) + 1)
    sums = [[float((flags & (base.text == text)).sum()) for text in texts] for flags in (one.same, base.same)]
    return bootstrap_ratio(np.subtract(*sums), np.bincount(base.text).astype(np.float64))


def _points(over: Estimate) -> str:
    bounds = [f"{100 * bound:+.2f}" if bound is not None else "unknown" for bound in (over.low, over.high)]
    return f"{100 * over.value:+.2f} ({' to '.join(bounds)})"


def _bins() -> list[tuple[float, float]]:
    return list(pairwise(GAPS))
