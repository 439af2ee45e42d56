"""A model folder becomes a model of Transformers that computes with the numbers that the folder means."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager, redirect_stderr
from pathlib import Path
from typing import Any

from quantwise.core.errors import RuntimeFailure
from quantwise.core.runtime import Executes
from quantwise.models.config import quantization_settings
from quantwise.models.stored_scheme import expanded_because
from quantwise.runtimes.expanded_layouts import expanded
from quantwise.runtimes.mixture_folder import holds_mixture, round_mixture, rounds_inputs, stored_layers
from quantwise.runtimes.packed_folder import packed_model
from quantwise.runtimes.packed_linear import PackedInt4, PackedInt8
from quantwise.runtimes.rounded_inputs import RoundedLinear, round_inputs
from quantwise.runtimes.transformers_device import device

_FIXED: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load(folder: str) -> tuple[Any, Any, Executes]:
    """Model, tokenizer, and how its weights are computed with; safetensors only, no code of the checkpoint's own.

    Raises RuntimeFailure, and what ``device`` raises.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    path = Path(folder)
    if not (path / "config.json").is_file():
        raise RuntimeFailure(f"{folder} is no model folder (no config.json); give a folder in the Hugging Face layout")
    logging.disable_progress_bar()
    place = device()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **_FIXED)
        with without_bars():
            model = model_of(path, place)
            executes = executes_of(path, model)
    except RuntimeFailure:
        raise
    except Exception as error:  # what a loader may raise is open-ended; this is the border where it is translated
        said = " ".join(str(error).split())[:300]
        raise RuntimeFailure(f"Transformers cannot load {folder}: {type(error).__name__}: {said}") from error
    return model, tokenizer, executes


def model_of(path: Path, place: str = "cpu") -> Any:
    """The model alone, ready to answer on the device ``place``; packed layers are made for a processor only.

    Raises RuntimeFailure, and what Transformers raises.
    """
    from transformers import AutoModelForCausalLM

    settings = quantization_settings(path)
    if place != "cpu" and _rounds_inputs(settings):
        raise RuntimeFailure(
            f"{path} rounds inputs, which is computed here on a processor only; unset QUANTWISE_DEVICE, or serve the "
            "folder with vLLM and give its address"
        )
    if place == "cpu" and (packed := _packed(path, settings)) is not None:
        return packed
    if read_here(path, settings):
        return _read_here(path, settings).to(place)
    # bitsandbytes puts its weights on a GPU where there is one, unless it is told a place.
    put = {"device_map": {"": place}} if settings.get("quant_method") == "bitsandbytes" else {}
    load = AutoModelForCausalLM.from_pretrained
    model = load(str(path), dtype="auto", use_safetensors=True, **put, **_FIXED).eval()
    if not put:
        model = model.to(place)
    if settings.get("quant_method") == "compressed-tensors" and _rounds_inputs(settings) and not round_inputs(model):
        raise RuntimeFailure(
            f"{path} rounds inputs, but its config has Transformers expand its weights (dequantize), and then inputs "
            "are not rounded; serve the folder with vLLM and give its address"
        )
    return model


def executes_of(path: Path, model: Any) -> Executes:
    """How the weights of ``model``, loaded from ``path``, are computed with.

    A mixture whose inputs are rounded is multiplied in few bits too, but it was expanded on its way there.
    """
    settings = quantization_settings(path)
    if not settings:
        return "as stored"
    if settings.get("quant_method") == "bitsandbytes":
        return "packed"
    kinds = {type(module) for module in model.modules()}
    if not kinds.isdisjoint((PackedInt8, PackedInt4)):
        return "packed"
    rounded = RoundedLinear in kinds and not holds_mixture(path, settings)
    return "packed" if rounded and expanded_because(settings) is None else "dequantized"


def without_bars() -> AbstractContextManager[object]:
    """compressed-tensors draws bars on standard error, where ours is, and no setting turns them off."""
    return redirect_stderr(io.StringIO())


def read_here(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder's numbers are read by us: Transformers would want accelerators, or lose some of them."""
    return settings.get("quant_method") in ("gptq", "awq") or holds_mixture(path, settings)


def filled(path: Path, settings: Mapping[str, Any], dtype: Any) -> Any:
    """The model of a folder that is read here, in ``dtype``. Raises RuntimeFailure."""
    if settings.get("quant_method") in ("gptq", "awq"):
        return _with(path, expanded(path, settings, dtype), dtype)
    rounded = rounds_inputs(settings)
    layers, tensors = stored_layers(path)
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    model = _with(path, {**tensors, **{f"{n}.weight": layer.values().to(dtype) for n, layer in layers.items()}}, dtype)
    if rounded:
        round_mixture(model, layers)
    return model


def _packed(path: Path, settings: Mapping[str, Any]) -> Any:
    """The model on torch's kernels, or None where they do not take it, or it rounds inputs and has kernels there."""
    if not settings or _rounds_inputs(settings):
        return None
    model = packed_model(path, settings, _dtype(path))
    return None if model is None else _with_generation(path, model)


def _read_here(path: Path, settings: Mapping[str, Any]) -> Any:
    return _with_generation(path, filled(path, settings, _dtype(path)))


def _dtype(path: Path) -> Any:
    import torch
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(path), **_FIXED).dtype or torch.float16


def _with_generation(path: Path, model: Any) -> Any:
    from transformers import GenerationConfig

    if (path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(str(path), **_FIXED)
    return model


def _with(path: Path, tensors: Mapping[str, Any], dtype: Any) -> Any:
    """The model of a folder's config with ``tensors`` of that type, named as in the folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(path), **_FIXED)
    del config.quantization_config
    with torch.device("meta"):
        kind = type(AutoModelForCausalLM.from_config(config))
    model, told = kind.from_pretrained(
        None, config=config, state_dict=dict(tensors), dtype=dtype, output_loading_info=True
    )
    if lacking := sorted(told["missing_keys"]):
        raise RuntimeFailure(f"{path} lacks {lacking[0]} and {len(lacking) - 1} more of its tensors; download it again")
    return model.eval()


def _rounds_inputs(settings: Mapping[str, Any]) -> bool:
    groups = settings.get("config_groups")
    return isinstance(groups, dict) and any(g.get("input_activations") for g in groups.values() if isinstance(g, dict))
