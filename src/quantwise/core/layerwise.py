"""The field's usual layer-wise assignment: which matrices take the more precise of a ``layerwise-`` scheme's two.

In a dense model: attention, and all of the first and the last block. In a mixture of experts: all but the experts, as
in the published mixtures of attention at 4 bit and experts at 2 (HQQ's Mixtral) or at 8 and 4. Embeddings, output
matrix and routers stay in 16 bit, as in every folder. That is advice, not a finding: ``docs/methods.md`` says what
became of it when it was measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from quantwise.core.scheme import Scheme

_BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_EXPERTS = r".*\.experts\.\d+\..*"


@dataclass(frozen=True, slots=True)
class Assignment:
    """Of one model: the number of its ``last`` block, and whether it is a ``mixture`` of experts."""

    last: int
    mixture: bool

    @classmethod
    def of(cls, names: Iterable[str]) -> Assignment:
        """By the names of the model's tensors, as folders have them."""
        known = list(names)
        last = max((int(found[1]) for name in known if (found := _BLOCK.search(name))), default=0)
        return cls(last, any(re.match(_EXPERTS, name) for name in known))

    def scheme_of(self, name: str, scheme: Scheme) -> Scheme:
        """The scheme of a matrix, by its name in the folder or the module tree: ``scheme`` itself unless it has two."""
        if scheme.higher is None:
            return scheme
        if self.mixture:
            return scheme if re.match(_EXPERTS, name) else scheme.higher
        return scheme.higher if any(re.match(pattern, name) for pattern in self._spared) else scheme

    @property
    def targets(self) -> tuple[list[str], list[str]]:
        """What takes the lower and what the higher scheme, in the words of a compressed-tensors config: a class, or
        regular expressions on names behind ``re:``. A name is looked up before a class.
        """
        if self.mixture:
            return [f"re:{_EXPERTS}"], ["Linear"]
        return ["Linear"], [f"re:{pattern}" for pattern in self._spared]

    @property
    def does_nothing(self) -> bool:
        """Whether every block is the first or the last."""
        return not self.mixture and self.last < 2

    @property
    def _spared(self) -> tuple[str, ...]:
        return (rf"(.*\.)?layers\.(0|{self.last})\..*", r"(.*\.)?layers\.\d+\.(self_attn|attention)\..*")
