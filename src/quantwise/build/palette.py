"""Every matrix of a model in every ggml type that ``auto`` may choose from, and what a budget leaves for them.

One walk makes them all by the recipe's own quantizer: how much it gains differs between types (GPTQ's gain over
rounding is a third at 4 bits and two thirds at 2), so types are compared as they would be shipped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace

from torch import Tensor

from quantwise.build.allocate import Choices, Option
from quantwise.build.artifact_folder import Ingredients
from quantwise.build.gguf_storage import GgufFile, types_of_all
from quantwise.build.job import Facts, Job
from quantwise.build.sensitivity import Rounding
from quantwise.build.skeleton import Skeleton
from quantwise.build.unfinished import Unfinished
from quantwise.core.errors import InputError
from quantwise.core.recipe import Budget, Recipe
from quantwise.core.scheme import FIXED_SCHEMES, Scheme
from quantwise.formats.gguf.mixes import tensor_bytes
from quantwise.formats.gguf.tensors import FITS_ALL, types_in
from quantwise.formats.safetensors_stream import read_entry
from quantwise.grids.ggml_grid import GgmlGrid

# Where rows do not split into 256, what llama-quantize takes in their place.
TYPES = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_0")
_FLOATS = ("f32", "f16", "bf16")
_EXPERT = re.compile(r"\.experts\.\d+\.")
# Tensors of a GGUF file begin at multiples of this many bytes.
_ALIGNMENT = 32


@dataclass(slots=True)
class Palette:
    """``jobs`` fill all matrices with one of ``TYPES`` each.

    ``units`` are the parameters that may be quantized: one by its own name; the experts of a block that GGUF holds in
    one tensor, which has one type, by theirs with ``*`` for the number.
    """

    skeleton: Skeleton
    kept: Unfinished
    jobs: Mapping[str, Job]
    units: Mapping[str, Sequence[str]] = field(init=False)

    def __post_init__(self) -> None:
        types, blocks = self._types(TYPES[0]), range(len(self.skeleton.blocks))
        names = [f"{name}.weight" for index in blocks for name in self.skeleton.linear_layers(index)]
        units: dict[str, list[str]] = {}
        for name in names:
            if types[self.skeleton.stored_name(name)] not in _FLOATS:
                units.setdefault(_EXPERT.sub(".experts.*.", name), []).append(name)
        self.units = units | {name: [name] for name in self.outer}

    @classmethod
    def of(cls, made_of: Ingredients, skeleton: Skeleton, kept: Unfinished) -> Palette:
        """The palette of a recipe ``auto``."""
        jobs = {}
        for kind in TYPES:
            grid = GgmlGrid(kind)
            scheme = Scheme(f"all-{kind}", "ggml", grid.layout.bits, "group", "gguf", group=grid.block)
            alone = replace(made_of, recipe=Recipe(scheme, made_of.recipe.quantizer))
            storage = GgufFile(alone.recipe, skeleton.source, types=types_of_all(skeleton.source, kind))
            jobs[kind] = Job(alone, storage, kept, measures=True)
        return cls(skeleton, kept, jobs)

    @property
    def name(self) -> str:
        """Under which notes are kept."""
        return self.jobs[TYPES[0]].name

    @property
    def outer(self) -> list[str]:
        """Parameter names of embeddings and of an output matrix of its own, where they may be quantized."""
        return self._storage(TYPES[0]).outer(self.skeleton)

    def make_outer(self) -> None:
        """Round the matrices outside of blocks to every type, as ggml does."""
        at = len(self.skeleton.blocks)
        for kind, job in self.jobs.items():
            if not self.kept.has_block(job.name, at):
                tensors = self._storage(kind).pack_outer(self.skeleton)
                self.kept.keep_block(job.name, at, tensors, asdict(Facts(replaced=list(tensors))))

    def roundings(self) -> dict[str, dict[str, Rounding]]:
        """Each unit of a block in each of its types: bytes and output error. What no text reached has none."""
        found: dict[str, dict[str, Rounding]] = {}
        blocks, outer = range(len(self.skeleton.blocks)), self.outer
        for kind, job in self.jobs.items():
            errors: dict[str, float] = {}
            for index in blocks:
                errors |= Facts.read(self.kept.facts(job.name, index)).errors
            for unit in self.units.keys() - outer:
                ggml, held = self._size(unit, kind)
                error = sum(errors.get(name, 0.0) for name in self.units[unit])
                found.setdefault(unit, {}).setdefault(ggml, Rounding(held, error))
        return {unit: found[unit] for unit in self.units if unit in found}

    def options(self) -> dict[str, dict[str, Option]]:
        """Every unit in each of its types, as if none cost anything."""
        found: dict[str, dict[str, Option]] = {}
        for unit in self.units:
            for kind in TYPES:
                ggml, held = self._size(unit, kind)
                found.setdefault(unit, {})[ggml] = Option(held, 0.0)
        return found

    def values(self, unit: str, ggml: str) -> dict[str, Tensor]:
        """The parameters of a unit in a type: float32 (out, in)."""
        job = self._made_in(unit, ggml)
        entries = self.kept.tensors(job.name, len(self.skeleton.blocks) + 1)
        found = {}
        for name in self.units[unit]:
            path = self.skeleton.stored_name(name).removesuffix(".weight")
            found[name] = job.storage.unpack(path, lambda stored: read_entry(entries[stored])).dequantized
        return found

    def compose(self, job: Job, kinds: Mapping[str, str], *, blocks: bool) -> None:
        """Keep for ``job`` the units in ``kinds``: those outside of blocks, and with ``blocks`` all others too."""
        count = len(self.skeleton.blocks)
        for index in range(0 if blocks else count, count + 1):
            if self.kept.has_block(job.name, index):
                continue
            facts, tensors = Facts(), dict[str, Tensor]()
            for one in self.jobs.values():
                own = Facts.read(self.kept.facts(one.name, index))
                entries = self.kept.tensors(one.name, count + 1)
                units = [unit for unit, kind in kinds.items() if self._made_in(unit, kind) is one]
                picked = {n: self.skeleton.stored_name(n) for unit in units for n in self.units[unit]}
                tensors |= {s: read_entry(entries[s]) for s in picked.values() if s in own.replaced}
                mine = [name for name in own.layers if f"{name}.weight" in picked]
                facts.layers += mine
                facts.degradations += [d for d in own.degradations if d.where in mine]
                facts.seconds += own.seconds
            facts.replaced = list(tensors)
            self.kept.keep_block(job.name, index, tensors, asdict(facts))

    def _storage(self, kind: str) -> GgufFile:
        storage = self.jobs[kind].storage
        assert isinstance(storage, GgufFile)
        return storage

    def _types(self, kind: str) -> Mapping[str, str]:
        return self._storage(kind).types

    def _size(self, unit: str, kind: str) -> tuple[str, int]:
        stored = [self.skeleton.stored_name(name) for name in self.units[unit]]
        ggml = self._types(kind)[stored[0]]
        return ggml, sum(tensor_bytes(self.skeleton.source.entries[name].shape, ggml) for name in stored)

    def _made_in(self, unit: str, ggml: str) -> Job:
        """The first job that gives a unit this type."""
        stored = self.skeleton.stored_name(self.units[unit][0])
        return next(job for kind, job in self.jobs.items() if self._types(kind)[stored] == ggml)


@dataclass(frozen=True, slots=True)
class Purse:
    """What a budget leaves for the matrices that have a choice.

    Bits per weight count all tensors over all weights, as ``bits_per_weight`` of an artifact does. A budget of bytes
    counts the whole file: header, tokenizer and the gaps between tensors too.
    """

    budget: Budget
    header: int
    fixed: Sequence[int]
    weights: int

    @classmethod
    def of(cls, budget: Budget, storage: GgufFile, chosen: Set[str]) -> Purse:
        """Of a file whose tensors ``chosen`` (names in the folder) may take any type."""
        entries, types = storage.source.entries, storage.types
        fixed = [tensor_bytes(entries[n].shape, kind) for n, kind in types.items() if n not in chosen]
        weights = sum(math.prod(entries[name].shape) for name in types)
        return cls(budget, storage.header_bytes() if budget.bytes else 0, fixed, weights)

    @property
    def room(self) -> int:
        """Bytes for the matrices that have a choice, sized as ``sized`` does."""
        if self.budget.bytes is None:
            return int((self.budget.bits_per_weight or 0.0) * self.weights / 8) - sum(self.fixed)
        return self.budget.bytes - _aligned(self.header) - sum(map(_aligned, self.fixed))

    def sized(self, choices: Choices) -> dict[str, dict[str, Option]]:
        """Options with the bytes that count against the budget."""
        if self.budget.bytes is None:
            return {tensor: dict(options) for tensor, options in choices.items()}
        return {t: {k: Option(_aligned(o.bytes), o.loss) for k, o in kinds.items()} for t, kinds in choices.items()}

    def check(self, recipe: str, choices: Choices) -> None:
        """Raise InputError where not even the smallest types fit."""
        least = sum(min(option.bytes for option in kinds.values()) for kinds in self.sized(choices).values())
        if least > self.room:
            if self.budget.bytes is None:
                need = f"{8 * (least + sum(self.fixed)) / self.weights:.3f} bits per weight"
            else:
                need = f"{self.budget.bytes - self.room + least} bytes"
            raise InputError(f"{recipe} is too small a budget; the smallest mix of this model takes {need}")


def fixed_mixes(palette: Palette) -> Iterator[tuple[str, dict[str, str]]]:
    """The mixes of llama-quantize, by name, as types of the units that have a choice."""
    skeleton = palette.skeleton
    for name, scheme in FIXED_SCHEMES.items():
        if scheme.kind == "ggml" and scheme.group == FITS_ALL:
            types = types_in(skeleton.source.entries, skeleton.source.config, name, importance=True)
            yield name, {unit: types[skeleton.stored_name(names[0])] for unit, names in palette.units.items()}


def _aligned(held: int) -> int:
    return -(-held // _ALIGNMENT) * _ALIGNMENT
