"""Whether a runtime loads what is planned, by the table of ``core.loads``: what nothing reads fits nowhere."""

from __future__ import annotations

from functools import cache

from quantwise.core.errors import InputError
from quantwise.core.loads import CPU_BUILD, experts_lack, kernel_lacks, refused
from quantwise.plan.deployment import Deployment
from quantwise.plan.described import one_scheme_each
from quantwise.plan.model import Model
from quantwise.plan.serving_settings import RuntimeName
from quantwise.plan.weight_scheme import parse_weight_scheme
from quantwise.plan.weight_table import in_gguf

# Tables of positions that were learned: beyond their last row a model has none.
_LEARNED = (".embed_positions.weight", ".wpe.weight", "position_embd.weight")


def check_loads(asked: Deployment) -> None:
    """Raise InputError where the runtime does not load the scheme, or has no kernel for it on the site's device, or the
    model cannot hold so long a context.
    """
    why = not_loaded(asked.model, asked.scheme, asked.runtime, on_gpu=asked.on_gpu)
    if why is not None:
        raise InputError(why)
    own = asked.decoder.context
    if asked.context > own and any(name.endswith(_LEARNED) for name in asked.decoder.tensors):
        raise InputError(
            f"{asked.decoder.name} has learned positions for {own:,} tokens and none beyond, not {asked.context:,}; "
            f"take --context {own}"
        )


def not_loaded(model: Model, scheme: str, runtime: RuntimeName, *, on_gpu: bool) -> str | None:
    """Why a runtime does not load a model in a scheme, in one line, or None where it does.

    Raises InputError where the scheme is unknown.
    """
    if runtime == "llamacpp" and model.decoder.architecture == "OPTForCausalLM":
        return f"llama.cpp does not compute opt models such as {model.decoder.name}; take --runtime transformers"
    if parse_weight_scheme(scheme).kind == "as stored":
        return _stored(model, runtime, on_gpu)
    if model.is_quantized:
        return (
            f"{model.decoder.name} is quantized ({model.form}), planned as it is and not in {scheme}: leave --scheme "
            "away, or plan the 16-bit folder that it was made of"
        )
    return _made(scheme, runtime, on_gpu, any(layer.experts for layer in model.decoder.layers))


def _stored(model: Model, runtime: RuntimeName, on_gpu: bool) -> str | None:
    if model.form is None and runtime == "llamacpp":
        return f"llama.cpp runs GGUF files; name a type such as q4_k_m for {model.decoder.name}"
    if model.form is not None and (why := refused(runtime, model.form)) is not None:
        return why
    if model.quantization and not model.decoder.stored:
        return (
            f"the quantization_config of {model.decoder.name} does not tell what its weights take; give the folder "
            "with its .safetensors files, or the hub id"
        )
    if runtime != "vllm" or on_gpu or not model.is_quantized:
        return None
    return next(filter(None, (kernel_lacks(CPU_BUILD, scheme) for scheme in one_scheme_each(model.quantization))), None)


@cache
def _made(scheme: str, runtime: RuntimeName, on_gpu: bool, mixture: bool) -> str | None:
    """Of what is made of 16 bit. Of llama.cpp ``Model.weights`` says it, because 16 bit is a file of another name."""
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
