"""What a build will take, told before it begins: memory, disk and time, from the headers of a model's files.

Memory: one decoder block at a time, so nothing here but the disk grows with depth. Every term is named in
``BuildMemory``; the factors count tensors that live at one moment in ``build`` and ``quantize.gptq``. Time:
floating-point operations over a rate of this machine, and seconds for each weight that a recipe rounds, both measured
just before (``BuildPace``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantwise.core.errors import InputError
from quantwise.core.layerwise import Assignment
from quantwise.core.recipe import Recipe
from quantwise.formats.safetensors_header import TensorEntry
from quantwise.models.config import ModelShape
from quantwise.plan.build_parts import ModelParts, block_of, choices_of, inputs_of, matrices_of, weights_of
from quantwise.plan.fit import size
from quantwise.plan.weights import recipe_bytes

# Resident once torch, transformers and gguf are imported (measured: 378 MiB on Linux x86-64).
IMPORTED = 380 << 20
# What they take besides in the walk of a model of a few thousand weights; in passes of texts through blocks, kernels
# and the pieces that those leave of the heap; and llama.cpp's library (all measured likewise).
WORKING, PASSES, GGML = 20 << 20, 20 << 20, 25 << 20
# Decoders whose attention Transformers runs eagerly, and how many copies of the scores are there at once.
_EAGER, _EAGER_COPIES = ("Gemma2ForCausalLM",), 2
# Tokens that pass through a block at once.
BATCH_TOKENS = 1024
# Log-probabilities that are kept of the texts that ``auto`` and ``distil`` watch.
WATCHED = 1 << 28
# Types in which ``auto`` makes every matrix, and the bytes of a weight in all of them: of 256 to a block, or of 32.
_AUTO_TYPES, _AUTO_BYTES, _AUTO_BYTES_SMALL = 6, 3.9, 4.7
# Bytes a second that are hashed, read or written; disks and hash functions of this decade do more.
_BYTES_PER_SECOND = 400e6
# Of one tensor in a header besides its name: type, shape and place; and what aligns its data.
_NAME_BYTES = 128


@dataclass(frozen=True, slots=True)
class BuildPace:
    """This machine: float32 operations a second, and for each recipe by name the seconds that a weight takes."""

    operations: float
    seconds_per_weight: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Texts:
    """Calibration data: ``tokens`` in all, ``longest`` in one text."""

    tokens: int = 0
    longest: int = 0


@dataclass(frozen=True, slots=True)
class BuildMemory:
    """Bytes at the peak: ``imported`` libraries and what they take when they first work (``working``), ``block`` in
    float32, ``hidden`` states of all tokens, ``statistics`` (Hessians in float64), and the larger of ``activations`` of
    one batch and what ``quantizing`` holds after them. While no block is there, ``outside`` is what the embeddings or
    the writing of the largest tensor take, and ``whole`` what a pass over the whole model in float32 takes, as ``auto``
    and ``distil`` need it after the walk.
    """

    imported: int
    working: int
    block: int
    hidden: int
    activations: int
    statistics: int
    quantizing: int
    outside: int
    whole: int = 0

    @property
    def total(self) -> int:
        """The largest of these moments."""
        at_block = self.block + self.hidden + self.statistics + max(self.activations, self.quantizing)
        return self.imported + self.working + max(at_block, self.hidden + self.outside, self.whole)


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What a build will take: ``memory``, ``disk`` bytes at most, ``seconds`` (None where no pace was given)."""

    memory: BuildMemory
    disk: int
    seconds: float | None

    def sentence(self, free_memory: int, free_disk: int) -> str:
        """One line for a person, with what is there."""
        about = "" if self.seconds is None else f" and {_about(self.seconds)}"
        line = (
            f"this job needs {size(self.memory.total)} of memory ({size(free_memory)} free), "
            f"{size(self.disk)} of disk ({size(free_disk)} free){about}"
        )
        if self.memory.total > free_memory:
            line += "; it may be killed for want of memory: close other programs, or build fewer recipes at a time"
        return line


def plan_build(
    entries: Mapping[str, TensorEntry],
    recipes: Sequence[Recipe],
    texts: Texts,
    pace: BuildPace | None = None,
    shape: ModelShape | None = None,
    beside: int = 0,
) -> BuildJob:
    """The plan of building ``recipes`` from a folder's tensors (``safetensors_header.read_folder``) in one walk.

    ``shape`` is read from its config; ``beside`` are the bytes of tokenizer and settings, which go into each artifact.
    """
    model = ModelParts(entries)
    # A GGUF file keeps a vocabulary in up to twice the bytes.
    made = {recipe: artifact_bytes_at_most(entries, recipe, shape) + 2 * beside for recipe in recipes}
    seconds = None if pace is None else _seconds(model, made, texts, pace)
    return BuildJob(_memory(model, recipes, texts, shape), _disk(model, made, texts), seconds)


def artifact_bytes_at_most(entries: Mapping[str, TensorEntry], recipe: Recipe, shape: ModelShape | None = None) -> int:
    """The bytes of an artifact at most, but for tokenizer and settings: its tensors and their names.

    Without a ``shape`` it is estimated, on the high side.
    """
    if recipe.budget is not None and recipe.budget.bytes is not None:
        return recipe.budget.bytes
    # Up to five tensors stand for a matrix.
    names = sum(5 * (len(name) + _NAME_BYTES) for name in entries)
    # A budget that is too small is refused by its own words, later.
    with contextlib.suppress(InputError):
        if shape is not None:
            return recipe_bytes(entries, recipe, shape) + names
    scheme, total = recipe.scheme, 0
    given = recipe.budget.bits_per_weight if recipe.budget else None
    assigned = Assignment.of(entries)
    for name, entry in entries.items():
        bits = given or assigned.scheme_of(name, scheme).bits + 2.0
        matrix = len(entry.shape) == 2 and (block_of(name) is not None or scheme.format == "gguf")
        small = scheme.kind != "float" and matrix and scheme.divides(entry.shape[-1])
        total += math.ceil(math.prod(entry.shape) * (bits if small else 16 if matrix else 32) / 8)
    return total + names


def _memory(model: ModelParts, recipes: Sequence[Recipe], texts: Texts, shape: ModelShape | None) -> BuildMemory:
    matrices, inputs = matrices_of(model.largest), inputs_of(model.largest)
    widest = max((columns for _, columns in matrices), default=0)
    inner = max((max(shape) for shape in matrices), default=0)
    batch = max(min(BATCH_TOKENS, texts.tokens), texts.longest)
    walked = [recipe for recipe in recipes if _walked(recipe)]
    gptq = [r for r in walked if r.quantizer == "gptq"]
    awq = [r for r in walked if "awq" in r.transforms]
    ggml = any(recipe.scheme.format == "gguf" for recipe in recipes)
    # A recipe keeps what its block stands for in float32, and what is packed of it. Of one matrix 8 copies are in work,
    # and 12 where the scales of k types are searched.
    copies = 12 if any(recipe.scheme.format == "gguf" for recipe in walked) else 8
    matrix = max((r * c for r, c in matrices), default=0)
    quantizing = 6 * weights_of(model.largest) + 4 * copies * matrix if walked else 0
    if gptq:  # Damped, ordered, flipped, factorized, inverted, each in float64.
        quantizing += 60 * widest**2
        # Several keep the factors of a block for each other; one alone keeps the last.
        alone = len(gptq) == 1 and gptq[0].budget is None
        quantizing += 0 if alone else 4 * sum(n * n for n in inputs)
    if awq and not gptq:  # Scaled to 1, and divided by what its channels were multiplied by, in both precisions.
        quantizing += 32 * widest**2
    if any(recipe.transforms for recipe in (*gptq, *awq)):
        quantizing += 8 * sum(n * n for n in inputs)
    # In eager attention the scores of all heads stand whole, and again at each step from a product to a probability.
    eager = shape is not None and shape.architecture in _EAGER
    scores = 4 * texts.longest * (_EAGER_COPIES * shape.heads * batch + 2 * texts.longest) if shape and eager else 0
    return BuildMemory(
        imported=IMPORTED,
        working=WORKING + bool(walked and texts.tokens) * PASSES + ggml * GGML,
        block=4 * weights_of(model.largest) if walked else 0,
        hidden=4 * texts.tokens * model.hidden,
        activations=4 * batch * (6 * model.hidden + 4 * inner) + scores,
        statistics=8 * sum(n * n for n in inputs) if gptq or awq else 0,
        quantizing=quantizing,
        # In float32, as stored, and encoded.
        outside=10 * model.outside,
        whole=_whole(model, recipes, texts),
    )


def _whole(model: ModelParts, recipes: Sequence[Recipe], texts: Texts) -> int:
    """The model, what its matrices stand for and, where scales are trained, codes and gradients beside them; the
    distributions that are watched; and the logits of a batch, a few times over. Limits as in ``build.watch``.
    """
    distils = any("distil" in recipe.options for recipe in recipes)
    if not distils and all(recipe.budget is None for recipe in recipes):
        return 0
    vocabulary = model.outside // max(model.hidden, 1)
    watched = min(texts.tokens // 8 * vocabulary, WATCHED)
    batch = min(texts.tokens * vocabulary, max(WATCHED // 4, texts.longest * vocabulary))
    weights = sum(map(weights_of, model.blocks)) + 2 * model.outside
    return weights * (24 if distils else 8) + 4 * watched + 16 * batch


def _disk(model: ModelParts, made: Mapping[Recipe, int], texts: Texts) -> int:
    """Artifacts, finished blocks of all of them until the last is written (again where scales are trained), and hidden
    states with their successors.
    """
    alone = sum("propagate" in recipe.options for recipe in made)
    hidden = 4 * texts.tokens * model.hidden * (2 + alone)
    mixed = {recipe.quantizer for recipe in made if recipe.budget is not None}
    fits = all(columns % 256 == 0 for block in model.blocks for _, columns in matrices_of(block))
    palettes = math.ceil((_AUTO_BYTES if fits else _AUTO_BYTES_SMALL) * model.weights) * len(mixed)
    copies = {recipe: 1 + _walked(recipe) + ("distil" in recipe.options) for recipe in made}
    return sum(copies[recipe] * held for recipe, held in made.items()) + palettes + (hidden if texts.tokens else 0)


def _seconds(model: ModelParts, made: Mapping[Recipe, int], texts: Texts, pace: BuildPace) -> float:
    recipes = list(made)
    walked = [recipe for recipe in recipes if _walked(recipe)]
    passes = (1 if texts.tokens else 0) + 2 * sum("propagate" in recipe.options for recipe in recipes)
    operations = by_weight = 0.0
    for block in model.blocks:
        weights, matrices, inputs = weights_of(block), matrices_of(block), inputs_of(block)
        squares = sum(n * n for n in inputs)
        operations += passes * 2 * texts.tokens * (weights + 2 * texts.longest * model.hidden + squares)
        # Cholesky and the triangular inverse, in float64 at half the rate: once for all that read the same inputs.
        operations += _factorized(walked) * sum(8 / 3 * n**3 for n in inputs)
        for recipe in walked:
            types = _AUTO_TYPES if recipe.budget is not None else 1
            by_weight += types * weights * pace.seconds_per_weight.get(recipe.name, 0.0)
            if recipe.quantizer == "gptq":
                # Updates of the columns to come.
                operations += types * sum(rows * columns**2 for rows, columns in matrices)
            if "awq" in recipe.transforms:
                operations += sum(84 * min(rows, 512) * columns**2 for rows, columns in matrices)
    every = sum(math.prod(entry.shape) for entry in model.entries.values())
    # Each tensor of the file is probed on an eighth of the texts; scales learn for three epochs, forth and back.
    probes = sum(map(choices_of, model.blocks)) / 8 * any(r.budget is not None for r in recipes)
    epochs = 3 * 4 * sum("distil" in recipe.options for recipe in recipes)
    operations += 2 * texts.tokens * every * (probes + epochs)
    by_weight += sum(every * pace.seconds_per_weight.get(r.name, 0.0) for r in recipes if not _walked(r))
    moved = 3 * model.bytes + 2 * sum(made.values())
    moved += 4 * texts.tokens * model.hidden * len(model.blocks) * max(passes, 0)
    return operations / pace.operations + by_weight + moved / _BYTES_PER_SECOND


def _factorized(recipes: Sequence[Recipe]) -> int:
    """How often a block is factorized: transformed and propagated inputs are a recipe's own."""
    gptq = [recipe for recipe in recipes if recipe.quantizer == "gptq"]
    own = [recipe for recipe in gptq if recipe.transforms or "propagate" in recipe.options]
    return len(own) + (len(own) < len(gptq))


def _walked(recipe: Recipe) -> bool:
    """Whether a recipe goes through the blocks; the others see one tensor at a time."""
    direct = recipe.scheme.format == "gguf" and not recipe.reads_data
    return recipe.scheme.kind != "float" and not direct


def _about(seconds: float) -> str:
    for unit, length in (("hour", 3600.0), ("minute", 60.0), ("second", 1.0)):
        if seconds >= 1.5 * length or unit == "second":
            count = max(1, round(seconds / length))
            return f"about {count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError("seconds are the last unit")
