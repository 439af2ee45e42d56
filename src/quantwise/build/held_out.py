"""How far an artifact's next-token distributions lie from those of its 16-bit model on texts that neither has seen.

Both are run by Transformers in float32, whatever the runtime they are made for: only the stored numbers differ, and the
inputs of layers where a scheme rounds those too. A GGUF file is decoded by our own reader into the 16-bit model's tree:
Transformers' reader knows few architectures, and drops what it does not expect without a word. Rounded inputs are
rounded as vLLM rounds them (``runtimes.rounded_inputs``); those of LLM.int8() by bitsandbytes itself, which takes them,
and multiplies outliers, in float16. One exception: the weights of an asymmetric compressed-tensors folder
without experts are rounded to its 16-bit type, as Transformers expands them while it loads (about 1 % of the divergence
at 4 bit). The divergence is exact, over the whole vocabulary, unlike that of ``screen``, which a server may have
truncated.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from quantwise.build.skeleton import Skeleton
from quantwise.build.watch import whole
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.models.config import quantization_settings
from quantwise.runtimes.rounded_inputs import round_inputs
from quantwise.runtimes.transformers_folder import filled, read_here

# Longer texts are cut: logits of one text are (tokens, vocabulary) in float32.
LONGEST = 512
# Log-probabilities that are kept: 1 GiB in float32.
MOST_KEPT = 1 << 28


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Texts as tokens (1, positions), and the log-probabilities that the 16-bit ``model`` gives to each: float32
    (positions, vocabulary); None where all of them together take more than MOST_KEPT numbers. Then they are computed
    again whenever they are asked for.
    """

    model: Path
    ids: tuple[Tensor, ...]
    kept: tuple[Tensor, ...] | None

    @property
    def positions(self) -> NDArray[np.float64]:
        """Predicted positions of each text."""
        return np.array([ids.shape[1] for ids in self.ids], dtype=np.float64)

    def reference(self) -> Iterator[Tensor]:
        """The 16-bit log-probabilities, text by text."""
        if self.kept is not None:
            yield from self.kept
            return
        live = _in_sixteen_bit(self.model)
        for ids in self.ids:
            yield _log_probabilities(live, ids)


def held_out(model: Path, texts: Sequence[str]) -> HeldOut:
    """Run the 16-bit model over ``texts``. Raises InputError where none has a token, or the model cannot be loaded."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    context = int(ModelFolder(model).config.get("max_position_embeddings", LONGEST))
    encoded = [tokenizer.encode(text).ids[: min(LONGEST, context)] for text in texts]
    ids = tuple(torch.tensor([tokens]) for tokens in encoded if tokens)
    if not ids:
        raise InputError("there is no held-out text to measure on; give at least one")
    live = _in_sixteen_bit(model)
    first = _log_probabilities(live, ids[0])
    if sum(tokens.shape[1] for tokens in ids) * first.shape[-1] > MOST_KEPT:
        return HeldOut(model, ids, None)
    return HeldOut(model, ids, (first, *(_log_probabilities(live, tokens) for tokens in ids[1:])))


def divergences(data: HeldOut, artifact: Artifact) -> NDArray[np.float64]:
    """KL of the artifact from the 16-bit model in nats, summed over the positions of each text.

    Raises InputError where Transformers cannot load the artifact, or a GGUF file is not one of the 16-bit model.
    """
    place = Path(artifact.location)
    if artifact.format == "gguf":
        file = place if place.is_file() else next(place.glob("*.gguf"))
        with _decoded(data.model, file) as live:
            return divergences_of(data, live)
    # compressed-tensors draws bars of its own, when it loads and when it first computes; nothing turns them off.
    with contextlib.redirect_stderr(io.StringIO()):
        if read_here(place, settings := quantization_settings(place)):
            try:
                live = filled(place, settings, torch.float32)
            except RuntimeFailure as error:
                raise InputError(str(error)) from error
        else:
            live = _loaded(place, torch.float32)
            round_inputs(live)
        return divergences_of(data, live)


def divergences_of(data: HeldOut, live: nn.Module) -> NDArray[np.float64]:
    """The same for a model in memory."""
    sums = []
    for ids, p in zip(data.ids, data.reference(), strict=True):
        q = _log_probabilities(live, ids)
        sums.append(float((p.exp() * (p - q)).sum(dtype=torch.float64)))
    return np.array(sums)


@torch.no_grad()
def _log_probabilities(live: nn.Module, ids: Tensor) -> Tensor:
    logits: Tensor = live(input_ids=ids, use_cache=False).logits[0]
    return logits.float().log_softmax(-1)


def _in_sixteen_bit(model: Path) -> nn.Module:
    """The model in float32, rounded to 16 bit first: that is what artifacts are compared with."""
    return _loaded(model, ModelFolder(model).sixteen_bit).float()


@contextlib.contextmanager
def _decoded(model: Path, file: Path) -> Iterator[nn.Module]:
    """The model of the 16-bit folder ``model`` with the values of a GGUF file of it, in float32."""
    # GGUF is an extra of its own.
    from quantwise.formats.gguf.reader import read_values

    skeleton = Skeleton(ModelFolder(model))
    with whole(skeleton) as live, torch.no_grad():
        # A tied output is one parameter with the embedding.
        left = {skeleton.stored_name(name): parameter for name, parameter in live.named_parameters()}
        for name, values in read_values(file, skeleton.source.entries, skeleton.source.config):
            left.pop(name).copy_(torch.tensor(values))
        if left:
            raise InputError(f"{file} holds no {', '.join(left)}; it is the file of another model")
        yield live


def _loaded(place: Path, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        live: nn.Module = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InputError(f"Transformers cannot load {place}: {str(error).splitlines()[0]}") from error
    if dtype == torch.float32:
        _widen(live)
    return live.eval()


def _widen(live: nn.Module) -> None:
    """Make a model float32 that bitsandbytes loaded: it takes the folder's own type, whatever it is asked for.

    Its 4-bit layers become plain ones, because on some CPUs its kernel rounds scales and inputs to bfloat16.
    """
    packed = {name: module for name, module in live.named_modules() if type(module).__name__ == "Linear4bit"}
    for name, module in packed.items():
        library = importlib.import_module("bitsandbytes.functional")
        weight: Any = module.weight
        weight.quant_state.dtype = torch.float32
        plain = nn.Linear(1, 1, bias=False)
        plain.weight = nn.Parameter(library.dequantize_4bit(weight.data, weight.quant_state), requires_grad=False)
        plain.bias = module.bias
        live.set_submodule(name, plain)
    for parameter in live.parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()
