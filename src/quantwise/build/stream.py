"""Calibration texts on their way through a model of which one block at a time is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quantwise.build.calibration import Batch
from quantwise.build.experts import SeparateExperts
from quantwise.build.products import products_in
from quantwise.build.shared_calls import SharedCalls
from quantwise.build.skeleton import Skeleton
from quantwise.build.statistics import Seen, Sums


class _Stop(Exception):
    """No error: it ends a forward pass once every block has been called."""


class Stream:
    """The hidden states (sequences, length, width) of all batches before the block ``at``, in float32.

    ``hidden`` may be given from an earlier process; otherwise the embeddings are read and run. Masks and rotary
    embeddings of every block are those with which the model itself calls it, and kept once (``shared_calls``).
    """

    def __init__(
        self, skeleton: Skeleton, batches: Sequence[Batch], at: int = 0, hidden: Sequence[Tensor] | None = None
    ) -> None:
        self.skeleton, self.batches, self.at = skeleton, batches, at
        self.hidden: list[Tensor] = [] if hidden is None else list(hidden)
        self._keywords: list[list[dict[str, Any]]] = []
        shared = SharedCalls()
        with skeleton.filled(*skeleton.embeddings()), torch.no_grad():
            for batch in batches:
                entering, keywords = _calls(skeleton, batch)
                self._keywords.append(shared.share(keywords))
                if hidden is None:
                    self.hidden.append(entering)

    @torch.no_grad()
    def see(self, needs: frozenset[str], *, advance: bool = True) -> dict[str, Seen]:
        """Run the block ``at``, which must be filled, and return what its linear layers saw.

        With ``advance`` the hidden states become those before the next block. A model whose type is bfloat16 multiplies
        as it does where it is served: factors in that type, sums in float32, if the processor can.
        """
        block = self.skeleton.blocks[self.at]
        names = self.skeleton.linear_layers(self.at)
        sums = Sums({name: self.skeleton.model.get_submodule(name) for name in names} if needs else {}, needs)
        try:
            with products_in(self.skeleton.source.sixteen_bit):
                self._run(block, sums, advance)
        finally:
            seen = sums.finish()
        self.at += advance
        return seen

    def _run(self, block: nn.Module, sums: Sums, keep: bool) -> None:
        mixtures = [module for module in block.modules() if isinstance(module, SeparateExperts)]
        for i, batch in enumerate(self.batches):
            sums.begin(batch.real)
            for mixture in mixtures:
                mixture.real = batch.real
            out = block(self.hidden[i], **self._keywords[i][self.at])
            if keep:
                self.hidden[i] = out[0] if isinstance(out, tuple) else out
        # Passes over the whole model come with batches of other shapes.
        for mixture in mixtures:
            mixture.real = None


def _calls(skeleton: Skeleton, batch: Batch) -> tuple[Tensor, list[dict[str, Any]]]:
    """The hidden states before the first block, and the keyword arguments of every block's call."""
    entering: list[Tensor] = []
    keywords: list[dict[str, Any]] = []

    def stand_in(hidden_states: Tensor, *args: Any, **named: Any) -> Tensor:
        assert not args, "Transformers gives a block all but its hidden states by name"
        entering.append(hidden_states)
        keywords.append(named)
        if len(keywords) == len(skeleton.blocks):
            raise _Stop
        return hidden_states

    for block in skeleton.blocks:
        block.forward = stand_in
    try:
        skeleton.model(input_ids=batch.ids, use_cache=False)
    except _Stop:
        pass
    finally:
        for block in skeleton.blocks:
            del block.forward
    return entering[0], keywords


def walk_blocks(
    skeleton: Skeleton, batches: Sequence[Batch], needs: frozenset[str] = frozenset({"hessian"})
) -> Iterator[dict[str, Seen]]:
    """What the linear layers of each block see, block after block, with the inputs of the 16-bit model."""
    stream = Stream(skeleton, batches)
    for index in range(len(skeleton.blocks)):
        with skeleton.filled(skeleton.block_name(index)):
            yield stream.see(needs)
