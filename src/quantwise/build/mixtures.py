"""What a recipe cannot do with a mixture of experts; said before anything is built."""

from __future__ import annotations

from collections.abc import Mapping

from quantwise.core.errors import InputError
from quantwise.core.loads import experts_lack
from quantwise.core.recipe import Recipe


def check_experts(recipe: Recipe, left: Mapping[str, str | None]) -> None:
    """Raise InputError where experts could not be read back from what ``recipe`` makes.

    ``left`` says of every layer by its name why it stays in 16 bit, or None where it is quantized: experts of one block
    lie together, all of them or none.
    """
    experts = {name: why for name, why in left.items() if ".experts." in name}
    if experts and (why := experts_lack(recipe.scheme) or next(filter(None, experts.values()), None)):
        raise InputError(f"{recipe.name} cannot hold this mixture of experts: {why}; use int8-channel")
