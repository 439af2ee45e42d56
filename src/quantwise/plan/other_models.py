"""Models that may be taken instead of one: smaller ones of its family, and ones that can be planned where it cannot."""

from __future__ import annotations

from quantwise.models.presets import PRESETS, preset_decoder


def family(name: str) -> tuple[str, ...]:
    """The presets of a preset's family that have fewer parameters, larger first."""
    if name not in PRESETS:
        return ()
    stem, size = _stem_and_size(name)
    found = [(other, *_stem_and_size(other)) for other in PRESETS]
    smaller = [(amount, other) for other, own, amount in found if own == stem and size is not None and amount]
    return tuple(other for amount, other in sorted(smaller, reverse=True) if size is not None and amount < size)


def _stem_and_size(name: str) -> tuple[str, float | None]:
    """``qwen3-8b`` as (``qwen3``, 8.0); a name without a size as (name, None). Mixtures are families of their own."""
    stem, _, last = name.rpartition("-")
    unit = {"b": 1.0, "m": 1e-3}.get(last[-1:], 0.0)
    try:
        return stem, float(last[:-1]) * unit or None
    except ValueError:
        return name, None


def plannable(most_bytes: float, bits: float) -> tuple[str, ...]:
    """Dense presets without recurrent layers, larger first: the largest that takes at most so many bytes at so many
    bits a weight, the largest of half of that, and the smallest of all.
    """
    sized = sorted((size, name) for name in PRESETS if (size := _stem_and_size(name)[1]) is not None)
    known = [(size * 1e9 * bits / 8, name) for size, name in sized]
    smallest = next(name for _, name in known if not _recurrent(name))
    found = []
    for most in (most_bytes, most_bytes / 2):
        fitting = (name for amount, name in reversed(known) if amount <= most)
        found.append(next((name for name in fitting if not _recurrent(name)), smallest))
    return tuple(dict.fromkeys((*found, smallest)))


def _recurrent(name: str) -> bool:
    return any(layer.state for layer in preset_decoder(name).layers)
