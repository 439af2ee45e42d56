"""The matrices of one block as one recipe changes them: a private copy wherever a transform or a quantizer writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from quantwise.build.architecture import Group
from quantwise.build.skeleton import Skeleton
from quantwise.build.statistics import Seen
from quantwise.core.artifact import Degradation
from quantwise.grids.grid import Grid
from quantwise.transform.rescale import clipped, divided_norm, divided_rows, rescaled, scaled_sink
from quantwise.transform.transform import Transform


class RescaledBlock:
    """Block ``index`` of a skeleton, filled. ``seen`` are the statistics of its layers after what was rescaled."""

    def __init__(self, skeleton: Skeleton, index: int, seen: Mapping[str, Seen]) -> None:
        self._skeleton, self._prefix = skeleton, skeleton.block_name(index)
        self.seen = dict(seen)
        self._own: dict[str, Tensor] = {}
        modules = [path for path, _ in skeleton.blocks[index].named_modules()]
        self._groups = skeleton.architecture.groups_in(modules, skeleton.config)

    def weight(self, name: str) -> Tensor:
        """The weight of a module by its full name, float32."""
        return self._get(f"{name}.weight")

    def values(self) -> dict[str, Tensor]:
        """Every parameter that is no longer the skeleton's, by its full name."""
        return dict(self._own)

    def set_quantized(self, name: str, values: Tensor) -> None:
        """The matrix of a layer now stands for ``values``."""
        self._own[f"{name}.weight"] = values

    def changed(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Parameters that are no longer the skeleton's, in 16 bit."""
        for name, tensor in self._own.items():
            yield name, tensor.to(dtype).contiguous()

    def rescale(self, transform: Transform, grids: Mapping[str, Grid[Any]], clip: bool) -> list[Degradation]:
        """Apply ``transform`` to every group of the block some of whose sinks are quantized on ``grids``."""
        found: list[Degradation] = []
        for group in self._groups:
            sinks = [f"{self._prefix}.{path}" for path in group.sinks]
            inputs = list({id(self.seen[s]): self.seen[s] for s in sinks if s in self.seen}.values())
            quantized = [sink for sink in sinks if sink in grids]
            if not quantized or not inputs:
                continue
            rows = self._producer_rows(group, self.weight(sinks[0]).shape[1])
            weights, own = [self.weight(s) for s in quantized], [grids[s] for s in quantized]
            scaling = transform(weights, own, _together(inputs), rows)
            scale = self._divide(group, scaling.scale, rows)
            readers = [*sinks, *(f"{self._prefix}.{path}" for path in group.routers)]
            for reader in readers:
                self._own[f"{reader}.weight"] = scaled_sink(self.weight(reader), scale)
            if clip and scaling.clips is not None:
                for sink, bound in zip(quantized, scaling.clips, strict=True):
                    self._own[f"{sink}.weight"] = clipped(self.weight(sink), bound)
            after = {id(old): Seen(old.tokens, rescaled(old.values, scale)) for old in inputs}
            self.seen |= {s: after[id(self.seen[s])] for s in sinks if s in self.seen}
            where = f"{self._prefix}.{group.producer}"
            found += [Degradation(where, f"{transform.name}: {d.what}") for d in scaling.degradations]
        return found

    def _divide(self, group: Group, scale: Tensor, rows: Tensor | None) -> Tensor:
        """Divide the group's producer by ``scale``; returns what the sinks must be multiplied by, exactly."""
        producer, architecture = f"{self._prefix}.{group.producer}", self._skeleton.architecture
        weight, bias = self.weight(producer), self._bias(producer)
        if group.producer in architecture.norms:
            dtype = self._skeleton.source.sixteen_bit
            weight, bias, scale = divided_norm(weight, bias, scale, dtype, architecture.norm_offset)
        else:
            weight, bias = divided_rows(weight, bias, scale, rows)
        self._own[f"{producer}.weight"] = weight
        if bias is not None:
            self._own[f"{producer}.bias"] = bias
        return scale

    def _producer_rows(self, group: Group, channels: int) -> Tensor | None:
        """The producer's row behind each input channel of the sinks; None where they are its rows one by one."""
        count = self.weight(f"{self._prefix}.{group.producer}").shape[0]
        if group.rows == "second half":
            return torch.arange(count - channels, count)
        if group.rows == "all" and not group.producer.endswith(".v_proj"):
            return None
        config = self._skeleton.config
        heads = int(str(config["num_attention_heads"]))
        kv_heads = int(str(config.get("num_key_value_heads") or heads))
        width = channels // heads
        values = kv_heads * width
        if heads == kv_heads and values == count:
            return None
        channel = torch.arange(channels)
        return count - values + channel // width // (heads // kv_heads) * width + channel % width

    def _get(self, parameter: str) -> Tensor:
        own = self._own.get(parameter)
        return self._skeleton.model.get_parameter(parameter) if own is None else own

    def _bias(self, name: str) -> Tensor | None:
        bias = getattr(self._skeleton.model.get_submodule(name), "bias", None)
        return None if bias is None else self._get(f"{name}.bias")


def _together(inputs: Sequence[Seen]) -> Mapping[str, Tensor]:
    """Statistics over all the tokens of several inputs, as experts of one mixture see them."""
    if len(inputs) == 1:
        return inputs[0].values
    tokens = sum(one.tokens for one in inputs)
    names = inputs[0].values.keys()
    found = {}
    for name in names:
        parts = [one.values[name] for one in inputs]
        if name == "absmax":
            found[name] = torch.stack(parts).amax(0)
        elif name == "hessian":
            found[name] = torch.stack(parts).sum(0)
        else:
            found[name] = torch.stack([one.values[name] * (one.tokens / tokens) for one in inputs]).sum(0)
    return found
