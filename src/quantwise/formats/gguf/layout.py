"""Which tensors of a folder become which tensor of a GGUF file: names and shapes only."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quantwise.core.errors import InputError
from quantwise.formats.gguf.graph import GgufArchitecture

_SUFFIX = re.compile(r"(.+)\.(weight|bias)")
_NUMBERED = re.compile(r"(.+\.experts\.)(\d+)(\..+)")
# Buffers of older folders, which are recomputed.
_BUFFERS = ("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
# (1, columns) in a folder, (columns,) in the file.
_FLAT = "ffn_gate_inp_shexp"


@dataclass(frozen=True, slots=True)
class Target:
    """One tensor of the file: ``shape`` as GGUF counts it, slowest first; ``sources`` are tensors of the folder,
    several where experts are stacked, in the order of their numbers.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]

    @property
    def part(self) -> str:
        """What it is within its block, such as ``attn_q``."""
        return self.name.rpartition(".")[0].rpartition(".")[2]

    @property
    def stacked(self) -> bool:
        """Whether it holds the matrices of experts."""
        return self.part.endswith("_exps")


def targets(
    shapes: Mapping[str, tuple[int, ...]], architecture: GgufArchitecture, *, tied: bool, strict: bool = True
) -> list[Target]:
    """The tensors of the file, in the order of the folder's ``shapes``.

    A ``tied`` output matrix is not stored. Raises InputError where an expert is missing, and where a tensor has no
    place; if not ``strict``, that keeps its own name.
    """
    members: dict[str, dict[int, str]] = {}
    for name in shapes:
        if name.endswith(_BUFFERS):
            continue
        found = _place(name, architecture)
        if found is None and strict:
            raise InputError(
                f"tensor {name!r} has no place in llama.cpp's {architecture.name}; bring a .gguf of this model"
            )
        target, expert = found or (name, 0)
        if not (tied and target == "output.weight"):
            members.setdefault(target, {})[expert] = name
    return [_target(name, experts, shapes) for name, experts in members.items()]


def _target(name: str, experts: Mapping[int, str], shapes: Mapping[str, tuple[int, ...]]) -> Target:
    sources = tuple(experts[number] for number in sorted(experts))
    shape = shapes[sources[0]]
    made = Target(name, shape, sources)
    if made.part == _FLAT:
        return Target(name, shape[-1:], sources)
    if not made.stacked:
        return made
    if sorted(experts) != list(range(len(experts))) or any(shapes[source] != shape for source in sources):
        raise InputError(f"the experts of {name} are not complete or not of one shape; download the missing shards")
    return Target(name, (len(sources), *shape), sources)


def expert_count(made: Iterable[Target]) -> int:
    """Experts of a block; 0 where there is no mixture."""
    return max((target.shape[0] for target in made if target.stacked), default=0)


@functools.cache
def _inside(blocks: str) -> re.Pattern[str]:
    """The number of a block, and the path in it."""
    return re.compile(rf"{re.escape(blocks)}\.(\d+)\.(.+)")


def _place(name: str, architecture: GgufArchitecture) -> tuple[str, int] | None:
    """The name in the file and the number of the expert, 0 where it is none."""
    split = _SUFFIX.fullmatch(name)
    if split is None:
        return None
    module, suffix = split[1], split[2]
    part = architecture.whole.get(module)
    before, expert = "", 0
    if part is None:
        inside = _inside(architecture.blocks).fullmatch(module)
        if inside is None:
            return None
        numbered = _NUMBERED.fullmatch(inside[2])
        path = f"{numbered[1]}*{numbered[3]}" if numbered else inside[2]
        part = architecture.parts.get(path)
        before, expert = f"blk.{inside[1]}.", int(numbered[2]) if numbered else 0
    if part is None or (suffix == "bias" and part not in architecture.biases):
        return None
    return f"{before}{part}.{suffix}", expert
