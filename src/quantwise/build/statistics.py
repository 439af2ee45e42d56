"""What is added up over the inputs of linear layers while calibration texts pass through a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

# Rows of a Hessian that are multiplied at once.
_STRIP = 256


@dataclass(frozen=True, slots=True)
class Seen:
    """The inputs that one layer saw: how many ``tokens``, and ``values`` of them by name.

    ``hessian`` is float64 (in, in), the sum of x x^T; ``mean_square`` float64 (in,), the mean of x^2; ``absmax``
    float32 (in,), the largest |x|.
    """

    tokens: int
    values: Mapping[str, Tensor]


@dataclass(slots=True)
class _Input:
    """Sums over one input tensor, shared by the layers that read it."""

    width: int
    needs: frozenset[str]
    tokens: int = 0
    hessian: Tensor = field(init=False)
    squares: Tensor = field(init=False)
    absmax: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if "hessian" in self.needs:
            self.hessian = torch.zeros(self.width, self.width, dtype=torch.float64)
        self.squares = torch.zeros(self.width, dtype=torch.float64)
        self.absmax = torch.zeros(self.width)

    def add(self, rows: Tensor) -> None:
        if not len(rows):
            return
        self.tokens += len(rows)
        if "hessian" in self.needs:
            _add_products(self.hessian, rows)
        if "mean_square" in self.needs:
            self.squares += rows.double().square().sum(0)
        if "absmax" in self.needs:
            self.absmax = torch.maximum(self.absmax, rows.abs().amax(0))

    def seen(self) -> Seen:
        values: dict[str, Tensor] = {}
        if "hessian" in self.needs:
            values["hessian"] = self.hessian
        if "mean_square" in self.needs:
            values["mean_square"] = self.squares / max(self.tokens, 1)
        if "absmax" in self.needs:
            values["absmax"] = self.absmax
        return Seen(self.tokens, values)


def _add_products(total: Tensor, rows: Tensor) -> None:
    """Add rows^T rows to ``total`` (in, in): symmetric, so only what lies on and below the diagonal is multiplied."""
    width = rows.shape[1]
    for start in range(0, width, _STRIP):
        stop = min(start + _STRIP, width)
        strip = rows[:, start:stop].T @ rows[:, :stop]
        total[start:stop, :stop] += strip
        total[:start, start:stop] += strip[:, :start].T


class Sums:
    """Adds up the inputs of the layers of one block, once for each distinct input tensor.

    Layers that read the same tensor (q, k and v; gate and up) get one ``Seen`` with the same tensors in it, which lets
    a quantizer factorize their Hessian once.
    """

    def __init__(self, layers: Mapping[str, nn.Module], needs: frozenset[str]) -> None:
        self._needs = needs
        self._inputs: dict[str, _Input] = {}
        self._real, self._whole = torch.empty(0), False
        self._now: list[tuple[Tensor, _Input]] = []
        self._handles = [layer.register_forward_pre_hook(self._hook(name)) for name, layer in layers.items()]

    def begin(self, real: Tensor) -> None:
        """A new batch: ``real`` (sequences, length) marks its tokens that are no padding."""
        self._real, self._whole, self._now = real, bool(real.all()), []

    def finish(self) -> dict[str, Seen]:
        """Take the hooks away. Returns what each layer saw; layers that saw nothing are missing."""
        for handle in self._handles:
            handle.remove()
        self._now = []
        shared = {id(found): found.seen() for found in self._inputs.values()}
        return {name: shared[id(found)] for name, found in self._inputs.items() if found.tokens}

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs = args[0]
            for tensor, found in self._now:
                if tensor is inputs:
                    self._inputs[name] = found
                    return
            found = self._inputs.setdefault(name, _Input(inputs.shape[-1], self._needs))
            found.add(self._rows(inputs))
            self._now.append((inputs, found))

        return add

    def _rows(self, inputs: Tensor) -> Tensor:
        """(real tokens, in) float32. Some blocks flatten their tokens; an expert sees its own, all of them real."""
        if self._whole and inputs.shape[:-1].numel() == self._real.numel():
            return inputs.reshape(-1, inputs.shape[-1]).float()
        if inputs.shape[:-1] == self._real.shape:
            return inputs[self._real].float()
        if inputs.shape[:-1] == (self._real.numel(),):
            return inputs[self._real.flatten()].float()
        return inputs.reshape(-1, inputs.shape[-1]).float()
