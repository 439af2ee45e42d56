"""How claims are shown: recipes are built from the real walk, and measured on held-out text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantwise.build.held_out import divergences, held_out
from quantwise.build.walk import build
from quantwise.calibration_study import in_domain
from quantwise.core.recipe import parse_recipe

Divergence = Mapping[str, NDArray[np.float64]]


def measure(model: Path, out: Path, *recipes: str, texts: int = 4, samples: int = 12) -> Divergence:
    """Mean KL from 16 bit in nats of each held-out text, by recipe; artifacts go to ``out``."""
    data = held_out(model, in_domain("screen", texts, None))
    made = build(model, [parse_recipe(text) for text in recipes], in_domain("calibration", samples, None), out)
    return {r: divergences(data, a) / data.positions for r, a in zip(recipes, made, strict=True)}
