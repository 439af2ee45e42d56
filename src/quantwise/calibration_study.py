"""How much calibration data a recipe needs, and of which kind: held-out divergence by sample count and domain.

    quantwise build MODEL RECIPE --calibration-study

Every cell is built several times, each on another sample of the same size, because the sample moves the result as well.
In-domain samples come from the suites' calibration split, general prose from ``QUANTWISE_DATA``; what is measured on
comes from the screening split of either, so no text serves both, and no certification item is touched.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantwise.chat import ChatTemplate
from quantwise.core.errors import InputError
from quantwise.core.item import Message
from quantwise.core.recipe import Recipe, parse_recipe
from quantwise.tasks import SUITES
from quantwise.tasks.general_prose import general_prose
from quantwise.tasks.prose import held_out_text
from quantwise.tasks.suite import Split, solved_items, split_of

COUNTS = (16, 64, 256, 1024)
SEEDS = 3
HELD_OUT = 72
"""Held-out texts of each kind; intervals count texts, because tokens of one text are dependent."""
IN_DOMAIN, GENERAL, MIXED = "in-domain", "general prose", "mixed"
_RESAMPLES, _ALPHA = 2000, 0.05

FloatArray = NDArray[np.float64]
_Measured = tuple["Cell", FloatArray]
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Cell:
    """One domain and sample count, measured on one kind of held-out text.

    ``tokens`` is the mean over the seeds of what was read; ``by_seed`` are mean KL in nats and ``kl`` is their mean,
    from ``low`` to ``high`` with a 95 % bootstrap over seeds and held-out texts. Against the least of its kind,
    ``overlaps`` is whether the intervals do, ``above`` whether the difference on the same texts stays above zero.
    """

    held_out: str
    domain: str
    samples: int
    tokens: int
    by_seed: tuple[float, ...]
    kl: float
    low: float
    high: float
    overlaps: bool = True
    above: bool = False


@dataclass(frozen=True, slots=True)
class Study:
    """All cells, and what was left out."""

    recipe: str
    seeds: int
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]


def run(model: Path, recipes: Sequence[str], *, as_json: bool, report: Report | None = None) -> dict[str, Any] | str:
    """What the verb prints: the study of one recipe, as a record or as a table."""
    if len(recipes) != 1:
        raise InputError(f"--calibration-study takes one recipe, not {len(recipes)}; run it once for each")
    found = study(model, parse_recipe(recipes[0]), report=report)
    return asdict(found) if as_json else table(found)


def study(
    model: Path, recipe: Recipe, *, counts: Sequence[int] = COUNTS, seeds: int = SEEDS, held_out_texts: int = HELD_OUT,
    report: Report | None = None
) -> Study:  # fmt: skip
    """Build ``recipe`` for every domain, count and seed, measure each, and throw the artifacts away.

    Counts beyond what a domain has are left out with a note. Raises InputError for a recipe that reads no calibration
    data, and for a model or text that cannot be used.
    """
    from quantwise.build.calibration import Sample
    from quantwise.build.held_out import held_out

    if not recipe.reads_data:
        raise InputError(f"{recipe.name} reads no calibration data, so there is nothing to study; try gptq:int4-g64")
    notes: list[str] = []
    general = general_prose(notes)
    pools = _pools(model, 2 * max(counts), general)
    measured = {IN_DOMAIN: in_domain("screen", held_out_texts, ChatTemplate.from_folder(model))}
    if general:
        texts = [text for text in general if split_of(text) == "screen"]
        measured[GENERAL] = random.Random(0).sample(texts, min(held_out_texts, len(texts)))
    data = {kind: held_out(model, texts) for kind, texts in measured.items() if texts}
    plan = [(domain, count) for domain, pool in pools.items() for count in counts if count <= len(pool)]
    for domain, pool in pools.items():
        if too_many := [count for count in counts if count > len(pool)]:
            left = ", ".join(map(str, too_many))
            notes.append(f"{domain} has {len(pool)} calibration texts, so {left} were left out")
    cells: list[_Measured] = []
    for done, (domain, count) in enumerate(plan):
        if report:
            report("study cells", done, len(plan))
        draws = [random.Random(f"{domain}/{count}/{seed}") for seed in range(seeds)]
        samples = [Sample(tuple(draw.sample(pools[domain], count))) for draw in draws]
        cells += _cells(model, recipe, (domain, count), samples, data)
    return Study(recipe.name, seeds, _against_least(cells, data), tuple(notes))


def table(found: Study) -> str:
    """The study as lines for a terminal."""
    lines = [
        f"{found.recipe}: mean KL from 16 bit on held-out text, in nats; {found.seeds} seeds a cell, 95 % intervals"
    ]
    for kind in dict.fromkeys(cell.held_out for cell in found.cells):
        lines += ["", f"measured on {kind}", f"{'calibrated on':<15}{'samples':>8}{'tokens':>8}{'KL':>9}"
                  f"  {'interval':<19}{'seeds from .. to':<20}"]  # fmt: skip
        for cell in (c for c in found.cells if c.held_out == kind):
            lines.append(
                f"{cell.domain:<15}{cell.samples:>8}{cell.tokens:>8}{cell.kl:>9.4f}  "
                f"{cell.low:.4f} .. {cell.high:.4f}  {min(cell.by_seed):.4f} .. {max(cell.by_seed):.4f}  "
                f"{_standing(cell, found)}"
            )
    lines += ["", "Intervals resample seeds and texts; with so few seeds they are on the narrow side."]
    lines += ["'More': the difference from the least, taken text by text, has an interval above zero.", *found.notes]
    return "\n".join(lines)


def _standing(cell: Cell, found: Study) -> str:
    if cell.kl == min(c.kl for c in found.cells if c.held_out == cell.held_out):
        return "the least"
    return ("more" if cell.above else "not told from the least") + (", intervals overlap" if cell.overlaps else "")


def _cells(
    model: Path, recipe: Recipe, what: tuple[str, int], samples: Sequence[Any], data: Mapping[str, Any]
) -> list[_Measured]:
    from quantwise.build.calibration import LONGEST_SEQUENCE, calibrate
    from quantwise.build.held_out import divergences
    from quantwise.build.walk import build

    found: dict[str, list[FloatArray]] = {kind: [] for kind in data}
    tokens = []
    for seed, texts in enumerate(samples):
        tokens.append(calibrate(model, texts, LONGEST_SEQUENCE, seed).tokens)
        with tempfile.TemporaryDirectory(prefix="quantwise-study-") as folder:
            artifact = build(model, [recipe], texts, Path(folder), seed=seed)[0]
            for kind, held in data.items():
                found[kind].append(divergences(held, artifact))
    domain, count = what
    cells = []
    for kind, rows in found.items():
        sums, positions = np.array(rows), data[kind].positions
        low, high = interval(sums, positions)
        by_seed = sums.sum(axis=1) / positions.sum()
        mean_tokens, seeds = round(sum(tokens) / len(tokens)), tuple(map(float, by_seed))
        cells.append((Cell(kind, domain, count, mean_tokens, seeds, float(by_seed.mean()), low, high), sums))
    return cells


def interval(sums: FloatArray, positions: FloatArray, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of sums / positions when seeds (rows) and texts (columns) are both drawn again.

    ``sums`` is (seeds, texts), ``positions`` (texts,). A two-way bootstrap (Owen, "The pigeonhole bootstrap", 2007).
    """
    rng = np.random.default_rng(seed)
    rows, columns = sums.shape
    by_seed = rng.multinomial(rows, np.full(rows, 1 / rows), size=_RESAMPLES)
    by_text = rng.multinomial(columns, np.full(columns, 1 / columns), size=_RESAMPLES)
    values = ((by_seed @ sums) * by_text).sum(axis=1) / (rows * (by_text @ positions))
    low, high = np.quantile(values, [_ALPHA / 2, 1 - _ALPHA / 2])
    return float(low), float(high)


def _against_least(cells: Sequence[_Measured], data: Mapping[str, Any]) -> tuple[Cell, ...]:
    least: dict[str, _Measured] = {}
    for cell, sums in sorted(cells, key=lambda pair: pair[0].kl):
        least.setdefault(cell.held_out, (cell, sums))
    found = []
    for cell, sums in cells:
        best, best_sums = least[cell.held_out]
        low, _ = interval(sums - best_sums, data[cell.held_out].positions)
        found.append(replace(cell, overlaps=cell.low <= best.high, above=low > 0))
    return tuple(found)


def _pools(model: Path, count: int, general: Sequence[str]) -> dict[str, list[str]]:
    """Calibration texts by domain, none of them in the screening or certification split."""
    pools = {IN_DOMAIN: in_domain("calibration", count, ChatTemplate.from_folder(model))}
    prose = [text for text in general if split_of(text) in ("train", "calibration")]
    if prose:
        pools[GENERAL] = random.Random(1).sample(prose, min(count, len(prose)))
        half = min(len(pools[IN_DOMAIN]), len(pools[GENERAL]))
        pools[MIXED] = [*pools[IN_DOMAIN][:half], *pools[GENERAL][:half]]
    return pools


def in_domain(split: Split, count: int, template: ChatTemplate | None) -> list[str]:
    """About ``count`` texts of one split, in mixed order: solved items of every suite, and generated prose."""
    each = max(1, count // (len(SUITES) + 1))
    texts = held_out_text(split, each)
    for suite in SUITES:
        for item, answer in solved_items(suite, split, each):
            turns = (*item.messages, Message("assistant", answer))
            if template is not None and item.messages:
                texts.append(template.render(turns, add_generation_prompt=False))
            else:
                texts.append(f"{item.text}\n{answer}")
    random.Random(2).shuffle(texts)
    return texts
