"""A model's module tree without its weights: parts are filled from the folder when needed, then emptied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from quantwise.build.architecture import Architecture
from quantwise.build.architectures import architecture_of
from quantwise.build.experts import separate
from quantwise.core.errors import InputError
from quantwise.formats.safetensors_folder import ModelFolder, require_finite


class Skeleton:
    """The tree of ``source``'s model, its parameters on torch's meta device, its buffers real.

    Raises InputError where Transformers cannot make it from the config, or a module has no known place.
    """

    def __init__(self, source: ModelFolder) -> None:
        self.source = source
        self._stored: dict[str, str] = {}
        self.model = _empty(source)
        self.config: Mapping[str, object] = self.model.config.to_dict()  # type: ignore[union-attr,operator]
        self.architecture: Architecture = self._separated()
        blocks = self.model.get_submodule(self.architecture.blocks)
        self.blocks: list[nn.Module] = list(blocks.children())

    def block_name(self, index: int) -> str:
        """The full name of a decoder block."""
        return f"{self.architecture.blocks}.{index}"

    def embeddings(self) -> list[str]:
        """Full names of the modules that run before the first block."""
        return [name for name, _ in self.model.named_modules() if name in self.architecture.embeddings]

    def linear_layers(self, index: int) -> list[str]:
        """Full names of the layers of a block that recipes quantize, in the order of the module tree."""
        block, place = self.block_name(index), self.architecture.linear
        named = self.blocks[index].named_modules()
        return [f"{block}.{path}" for path, m in named if isinstance(m, nn.Linear) and place(path)]

    def stored_name(self, name: str) -> str:
        """The name in the folder of a parameter of the tree. Raises InputError where the folder lacks it."""
        if (known := self._stored.get(name)) is not None:
            return known
        for candidate in self._spellings(name):
            if candidate in self.source:
                self._stored[name] = candidate
                return candidate
        raise self._lacks(name)

    def check_folder(self) -> None:
        """Raise InputError where the folder lacks a parameter or holds it in another shape, told from headers."""
        output, tied = f"{self.architecture.output}.weight", bool(self.config.get("tie_word_embeddings"))
        for name, parameter in self.model.named_parameters():
            stored = self.stored_name(name)
            if name == output and not tied and stored == self.stored_name(f"{self.architecture.embeddings[0]}.weight"):
                raise self._lacks(name)
            self._check_shape(name, self.source.entries[stored].shape, parameter)

    def read(self, name: str) -> Tensor:
        """A parameter rounded to the model's 16-bit type, in float32. Raises InputError where it is not finite."""
        stored = self.stored_name(name)
        tensor = self.source[stored].to(self.source.sixteen_bit).float()
        require_finite(stored, tensor)
        return tensor

    @contextmanager
    def filled(self, *modules: str) -> Iterator[None]:
        """The parameters of ``modules`` (full names) are real inside. Raises InputError as ``read`` does."""
        empty: list[tuple[nn.Module, str, nn.Parameter]] = []
        try:
            for prefix in modules:
                for path, module in self.model.get_submodule(prefix).named_modules(prefix=prefix):
                    for name, parameter in list(module.named_parameters(recurse=False)):
                        read = self.read(f"{path}.{name}")
                        self._check_shape(f"{path}.{name}", tuple(read.shape), parameter)
                        empty.append((module, name, parameter))
                        module._parameters[name] = nn.Parameter(read, requires_grad=False)
            yield
        finally:
            for module, name, parameter in empty:
                module._parameters[name] = parameter

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Parameters of filled modules are ``values``, rounded to 16 bit as a runtime unpacks them, inside."""
        before: list[tuple[nn.Module, str, nn.Parameter | None]] = []
        try:
            for name, value in values.items():
                path, _, last = name.rpartition(".")
                module = self.model.get_submodule(path)
                before.append((module, last, module._parameters[last]))
                rounded = value.to(self.source.sixteen_bit).float()
                module._parameters[last] = nn.Parameter(rounded, requires_grad=False)
            yield
        finally:
            for module, last, parameter in before:
                module._parameters[last] = parameter

    def _lacks(self, name: str) -> InputError:
        return InputError(
            f"{self.source.path} has no tensor {name}; a file is missing, or config.json is of another model: download "
            "it again"
        )

    def _check_shape(self, name: str, found: tuple[int, ...], parameter: Tensor) -> None:
        if found != tuple(parameter.shape):
            raise InputError(
                f"tensor {name} has shape {found}, and config.json of {self.source.path} wants "
                f"{tuple(parameter.shape)}; download both again"
            )

    def _separated(self) -> Architecture:
        """Split fused experts into layers; returns the architecture under which every module has its place."""
        fused = {
            name: module
            for name, module in self.model.named_modules()
            if name.endswith(".experts") and _holds_weights(module)
        }
        for name, module in fused.items():
            parent, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(parent), last, separate(module))
        named = {name: type(m).__name__ for name, m in self.model.named_modules() if _holds_weights(m)}
        return architecture_of(self.config, named)

    def _spellings(self, name: str) -> Iterator[str]:
        """As the tree says it, as older folders say it, and as a folder of the model without its head does."""
        renamed = name
        for ours, theirs in self.architecture.stored:
            renamed = renamed.replace(ours, theirs)
        for spelled in (name, renamed):
            yield spelled
            yield spelled.removeprefix(f"{self.architecture.base}.")
        if name == f"{self.architecture.output}.weight":  # tied to the embedding
            yield from self._spellings(f"{self.architecture.embeddings[0]}.weight")


def _holds_weights(module: nn.Module) -> bool:
    return next(module.named_parameters(recurse=False), None) is not None


def _empty(source: ModelFolder) -> nn.Module:
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    # Its bars would cut through our own progress.
    logging.disable_progress_bar()
    try:
        with init_empty_weights(include_buffers=False):
            model: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source.path))
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"Transformers cannot load {source.path}: {why}; give a decoder that it knows") from error
    return model.float().eval()
