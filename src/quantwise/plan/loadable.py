"""Whether a runtime loads what is planned, by the table of ``core.loads``: what nothing reads fits nowhere."""

from __future__ import annotations

from functools import cache

from quantwise.core.errors import InputError
from quantwise.core.loads import CPU_BUILD, experts_lack, kernel_lacks, refused
from quantwise.models.decoder import Decoder
from quantwise.plan.deployment import Deployment
from quantwise.plan.serving_settings import RuntimeName
from quantwise.plan.weight_scheme import parse_weight_scheme
from quantwise.plan.weight_table import in_gguf


def check_loads(asked: Deployment) -> None:
    """Raise InputError where the runtime does not load the scheme, or has no kernel for it on the site's device."""
    why = not_loaded(asked.decoder, asked.scheme, asked.runtime, on_gpu=asked.on_gpu)
    if why is not None:
        raise InputError(why)


def not_loaded(decoder: Decoder, scheme: str, runtime: RuntimeName, *, on_gpu: bool) -> str | None:
    """Why a runtime does not load a model in a scheme, in one line, or None where it does.

    Of llama.cpp ``Model.weights`` says it, because a scheme of 16 bit is a file of another name there. Raises
    InputError where the scheme is unknown.
    """
    if scheme == "stored":
        return refused(runtime, "gguf" if "token_embd.weight" in decoder.tensors else "safetensors")
    return _not_loaded(scheme, runtime, on_gpu, any(layer.experts for layer in decoder.layers))


@cache
def _not_loaded(scheme: str, runtime: RuntimeName, on_gpu: bool, mixture: bool) -> str | None:
    wanted = parse_weight_scheme(scheme)
    if runtime == "llamacpp":
        return None
    if in_gguf(wanted):
        return refused(runtime, "gguf")
    if wanted.recipe is None:
        return None
    own = wanted.recipe.scheme
    why = refused(runtime, own.format)
    if why is None and runtime == "vllm" and not on_gpu:
        why = kernel_lacks(CPU_BUILD, own)
    if why is None and mixture and (lacks := experts_lack(own)) is not None:
        why = f"{own.name} cannot hold this mixture of experts: {lacks}; use int8-channel"
    return why
