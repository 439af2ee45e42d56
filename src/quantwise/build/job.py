"""One recipe on its way through the model, block after block."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from quantwise.build.artifact_folder import Ingredients
from quantwise.build.rescaled_block import RescaledBlock
from quantwise.build.sensitivity import output_error
from quantwise.build.skeleton import Skeleton
from quantwise.build.statistics import Seen
from quantwise.build.storage import Made, Storage
from quantwise.build.unfinished import Unfinished
from quantwise.core.artifact import Degradation
from quantwise.core.errors import InputError
from quantwise.core.recipe import Recipe
from quantwise.grids.grid import Grid
from quantwise.quantize import QUANTIZERS
from quantwise.quantize.quantizer import Quantizer
from quantwise.quantize.rtn import RoundToNearest
from quantwise.transform import TRANSFORMS
from quantwise.transform.transform import Transform

# An expert that fewer tokens chose is rounded: its statistics would be those of a few sentences.
FEWEST_TOKENS = 128


@dataclass(slots=True)
class Job:
    """A recipe, its quantizer and transforms, and where its blocks are kept."""

    ingredients: Ingredients
    storage: Storage
    kept: Unfinished
    # Whether output errors are wanted beside the codes, for ``auto`` to choose by.
    measures: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    quantizer: Quantizer = field(init=False)
    transforms: Sequence[Transform] = field(init=False)

    def __post_init__(self) -> None:
        self.quantizer = QUANTIZERS[self.recipe.quantizer or "rtn"]()
        self.transforms = [TRANSFORMS[name]() for name in self.recipe.transforms]

    @property
    def recipe(self) -> Recipe:
        """What is made."""
        return self.ingredients.recipe

    @property
    def name(self) -> str:
        """The folder name of the artifact."""
        return self.ingredients.folder_name

    @property
    def distilled(self) -> str:
        """Under which its matrices are kept once their scales are trained."""
        return f"{self.name}-distilled"

    @property
    def needs(self) -> frozenset[str]:
        """The statistics that it reads."""
        own = self.storage.needs | (frozenset({"hessian"}) if self.measures else frozenset())
        return self.quantizer.needs.union(own, *(transform.needs for transform in self.transforms))

    def has(self, index: int) -> bool:
        """Whether a block is finished, here or in a process that was killed."""
        return self.kept.has_block(self.name, index)

    def quantize(self, skeleton: Skeleton, index: int, seen: Mapping[str, Seen]) -> dict[str, Tensor]:
        """Quantize the filled block ``index`` and keep it. Returns the values that its layers now stand for, by
        parameter, float32, with what a transform changed.
        """
        start = time.perf_counter()
        layers = skeleton.linear_layers(index)
        grids: dict[str, Grid[Any]] = {}
        facts = Facts()
        block = RescaledBlock(skeleton, index, seen)
        for name in layers:
            found = self.storage.grid(_stored(skeleton, name), block.weight(name).shape)
            if isinstance(found, str):
                facts.degradations.append(Degradation(name, found))
            elif found is not None:
                grids[name] = found
        for transform in self.transforms:
            facts.degradations += block.rescale(transform, grids, clip=not self.quantizer.needs)
        tensors: dict[str, Tensor] = {}
        for name, grid in grids.items():
            made = self._matrix(name, block, grid, facts)
            stored = _stored(skeleton, name)
            inputs = block.seen.get(name)
            tensors |= self.storage.pack(stored, made, inputs.values if inputs else {})
            facts.replaced.append(f"{stored}.weight")
            facts.layers.append(name)
            if self.measures and inputs:
                error = output_error(block.weight(name), made.dequantized, inputs.values["hessian"])
                facts.errors[f"{name}.weight"] = error
            block.set_quantized(name, made.dequantized)
        for name, tensor in block.changed(skeleton.source.sixteen_bit):
            if name.removesuffix(".weight") not in grids:
                tensors[skeleton.stored_name(name)] = tensor
        facts.seconds = time.perf_counter() - start
        self.kept.keep_block(self.name, index, tensors, asdict(facts))
        return block.values()

    def _matrix(self, name: str, block: RescaledBlock, grid: Grid[Any], facts: Facts) -> Any:
        quantizer, seen = self.quantizer, block.seen.get(name)
        tokens = seen.tokens if seen else 0
        if quantizer.needs and tokens < FEWEST_TOKENS and ".experts." in name:
            what = f"{tokens} calibration tokens reached this expert, fewer than {FEWEST_TOKENS}: rounded to nearest"
            facts.degradations.append(Degradation(name, what))
            quantizer = RoundToNearest()
        elif quantizer.needs and seen is None:
            raise InputError(f"calibration never reached {name}; give more texts, or use rtn")
        made = quantizer(block.weight(name), grid, seen.values if seen else {})
        facts.degradations += [replace(d, where=name) for d in made.degradations]
        return made

    def check(self, skeleton: Skeleton) -> None:
        """Raise InputError where every matrix would stay as it is, or experts could not be read back."""
        source, idle = skeleton.source, True
        for index in range(len(skeleton.blocks)):
            for name in skeleton.linear_layers(index):
                stored = _stored(skeleton, name)
                grid = self.storage.grid(stored, torch.Size(source.entries[f"{stored}.weight"].shape))
                quantized = grid is not None and not isinstance(grid, str)
                idle = idle and not quantized
                if ".experts." in name and not (quantized and self.storage.experts):
                    why = "rows of experts do not split" if self.storage.experts else "runtimes read no experts from it"
                    raise InputError(f"{self.recipe.name} cannot hold this mixture of experts: {why}; use int8-channel")
        if idle:
            raise InputError(
                f"no row of {source.path} splits into groups of {self.recipe.scheme.group}; "
                f"{self.recipe.name} would change nothing: use a channel scheme"
            )

    def made(self, skeleton: Skeleton) -> tuple[Made, tuple[Degradation, ...], float]:
        """All blocks together, what was retreated from, and the seconds all of it took."""
        count = len(skeleton.blocks)
        # Behind the blocks, where a recipe quantizes them, stand the matrices outside of blocks.
        count += self.has(count)
        facts = [Facts.read(self.kept.facts(self.name, index)) for index in range(count)]
        layers = frozenset(name for f in facts for name in f.layers)
        linear = (name for name, m in skeleton.model.named_modules() if isinstance(m, torch.nn.Linear))
        tensors = self.kept.tensors(self.name, count)
        if self.kept.has_block(self.distilled, 0):
            tensors |= self.kept.tensors(self.distilled, 1)
        made = Made(
            tensors=tensors,
            replaced=frozenset(name for f in facts for name in f.replaced),
            ignored=[name for name in linear if name not in layers],
            mixture=any(".experts." in name for name in layers),
        )
        later = self.notes.get("choosing_seconds", 0.0) + self.notes.get("distil_seconds", 0.0)
        return made, tuple(d for f in facts for d in f.degradations), sum(f.seconds for f in facts) + later


@dataclass(slots=True)
class Facts:
    """What to know of a finished block: its quantized ``layers`` by their names in the module tree, the stored tensors
    they stand for, and, where they are measured, their output ``errors`` by full parameter name.
    """

    layers: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    degradations: list[Degradation] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> Facts:
        """As they were kept."""
        found = [Degradation(**d) for d in kept["degradations"]]
        return cls(kept["layers"], kept["replaced"], found, kept["errors"], kept["seconds"])


def _stored(skeleton: Skeleton, name: str) -> str:
    return skeleton.stored_name(f"{name}.weight").removesuffix(".weight")
