"""``auto``: a ggml type for each tensor of the file, under a budget, by divergence measured in the real model.

What each type costs each tensor is measured once (``sensitivity``) and serves every budget. The choice under a budget
is then measured as a whole beside the mixes of llama-quantize that fit, and the best of them is shipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from quantwise.build.allocate import Choices, Option
from quantwise.build.artifact_folder import Ingredients
from quantwise.build.calibration import Calibration
from quantwise.build.gguf_storage import GgufFile, types_of_all
from quantwise.build.job import Job
from quantwise.build.palette import Palette, Purse, fixed_mixes
from quantwise.build.sensitivity import PROBE, Mix, Probe, best, compare, sensitivities
from quantwise.build.skeleton import Skeleton
from quantwise.build.unfinished import Unfinished
from quantwise.build.watch import NOT_HELD_OUT, Watch, watch, watched_batches, whole
from quantwise.core.errors import InputError

_Report = Callable[[str, int, int], None]
# Of llama-quantize's mixes that fit, those that waste more of the budget are not measured.
_LEAST_SPENT = 0.85


@dataclass(slots=True)
class Auto:
    """All recipes ``auto`` of one walk. Made before it, so that a budget too small is refused at once."""

    skeleton: Skeleton
    wanted: Sequence[Ingredients]
    kept: Unfinished
    palettes: Mapping[str, Palette]
    purses: Mapping[str, Purse]

    @classmethod
    def of(cls, skeleton: Skeleton, wanted: Sequence[Ingredients], kept: Unfinished) -> Auto:
        """Raises InputError for a budget that is too small, or a recipe that cannot be mixed."""
        palettes: dict[str, Palette] = {}
        purses = {}
        for made_of in wanted:
            recipe = made_of.recipe
            assert recipe.budget
            assert recipe.quantizer
            palette = palettes.setdefault(recipe.quantizer, Palette.of(made_of, skeleton, kept))
            options = palette.options()
            if not options:
                raise InputError(f"{recipe.name}: no row of {skeleton.source.path} splits into ggml's blocks; use f16")
            storage = GgufFile(recipe, skeleton.source, types_of_all(skeleton.source, "q8_0"))
            chosen = {skeleton.stored_name(name) for names in palette.units.values() for name in names}
            purse = Purse.of(recipe.budget, storage, chosen)
            purse.check(recipe.name, options)
            purses[made_of.folder_name] = purse
        return cls(skeleton, wanted, kept, palettes, purses)

    @property
    def jobs(self) -> list[Job]:
        """What the walk has to make before anything can be chosen."""
        return [job for palette in self.palettes.values() for job in palette.jobs.values()]

    def chosen(self, data: Calibration, report: _Report) -> list[Job]:
        """A job for each recipe, in their order, with its types. Its blocks are kept, unless it propagates errors."""
        if any(self.kept.note(made_of.folder_name, "mix") is None for made_of in self.wanted):
            with whole(self.skeleton) as model:
                vocabulary = int(self.skeleton.source.config["vocab_size"])
                batches = watched_batches(data, vocabulary)
                report("watch the model", 0, 1)
                watched = watch(model, batches)
                for made_of in self.wanted:
                    if self.kept.note(made_of.folder_name, "mix") is None:
                        self.kept.keep_note(made_of.folder_name, "mix", self._mix(made_of, watched, report))
        return [self._job(made_of) for made_of in self.wanted]

    def _mix(self, made_of: Ingredients, watched: Watch, report: _Report) -> dict[str, Any]:
        start = time.perf_counter()
        palette, purse = self.palettes[made_of.recipe.quantizer or ""], self.purses[made_of.folder_name]
        choices = purse.sized(_measured(palette, watched, report))
        mixes = compare(
            watched,
            choices,
            purse.room,
            palette.values,
            {n: kinds for n, kinds in fixed_mixes(palette) if _spent(choices, kinds, purse.room)},
            lambda done, total: report(f"measure mixes of {made_of.recipe.name}", done, total),
        )
        won = best(mixes)
        return {"kinds": dict(mixes[won].kinds), "notes": _notes(mixes, won, watched, time.perf_counter() - start)}

    def _job(self, made_of: Ingredients) -> Job:
        note = self.kept.note(made_of.folder_name, "mix")
        assert note is not None
        palette, kinds = self.palettes[made_of.recipe.quantizer or ""], note["kinds"]
        types = types_of_all(self.skeleton.source, "q8_0")
        types |= {self.skeleton.stored_name(n): kind for unit, kind in kinds.items() for n in palette.units[unit]}
        job = Job(made_of, GgufFile(made_of.recipe, self.skeleton.source, types), self.kept, notes=dict(note["notes"]))
        palette.compose(job, kinds, blocks="propagate" not in made_of.recipe.options)
        return job


def _measured(palette: Palette, watched: Watch, report: _Report) -> Choices:
    """The divergence of every unit in every type: kept, or measured now."""
    known = palette.kept.note(palette.name, "choices")
    if known is None:
        palette.make_outer()
        roundings = palette.roundings()
        found: dict[str, Mapping[str, Option]] = dict(
            sensitivities(
                watched, roundings, _probes(palette, roundings),
                lambda done, total: report("measure sensitivities", done, total),
            )
        )  # fmt: skip
        options = palette.options()
        for name in palette.outer:
            # Embeddings have no Hessian, and there are one or two: each type is measured.
            found[name] = {
                ggml: Option(option.bytes, max(0.0, watched.divergence(palette.values(name, ggml))))
                for ggml, option in options[name].items()
            }
        known = {name: {ggml: asdict(option) for ggml, option in kinds.items()} for name, kinds in found.items()}
        palette.kept.keep_note(palette.name, "choices", known)
    return {name: {ggml: Option(**option) for ggml, option in kinds.items()} for name, kinds in known.items()}


def _probes(palette: Palette, roundings: Mapping[str, Mapping[str, Any]]) -> Iterator[Probe]:
    for name, kinds in roundings.items():
        kind = PROBE if PROBE in kinds else next(iter(kinds))
        yield Probe(name, kind, palette.values(name, kind))


def _spent(choices: Choices, kinds: Mapping[str, str], room: int) -> bool:
    held = [choices[tensor].get(kind) for tensor, kind in kinds.items()]
    return _LEAST_SPENT * room <= sum(option.bytes for option in held if option) <= room


def _notes(mixes: Mapping[str, Mix], won: str, watched: Watch, seconds: float) -> dict[str, Any]:
    """What the artifact says of the choice; divergences are means in nats per token on watched calibration texts."""
    return {
        "mix": won,
        "expected_divergence": mixes[won].expected,
        "measured_divergence": mixes[won].measured,
        "mixes_measured": {name: mix.measured for name, mix in mixes.items()},
        "watched_tokens": sum(map(len, watched.reference)),
        "watched_texts": NOT_HELD_OUT,
        "choosing_seconds": seconds,
        "types": dict(mixes[won].kinds),
    }
