"""A compressed-tensors artifact as a checkpoint of ModelOpt's layout, which TensorRT-LLM serves. Never run here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from quantwise import __version__
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.core.scheme import Scheme
from quantwise.export.made import Exported, whole, write_manifest
from quantwise.formats import modelopt
from quantwise.formats.content_hash import RECORD, content_hash
from quantwise.formats.safetensors_folder import ModelFolder, copy_side_files, write_config, write_tensors


def export(artifact: Path, out: Path) -> Exported:
    """Write the folder ``out``. The model's tensors are in memory at once.

    Raises InputError, with what could be built instead, for an artifact whose numbers TensorRT-LLM has no place for.
    """
    recipe, scheme = _made_by(artifact)
    if (why := modelopt.lacks(scheme)) is not None:
        raise InputError(f"{artifact} ({recipe}) has no counterpart in TensorRT-LLM: {why}")
    folder = ModelFolder(artifact, quantized=True)
    layers = modelopt.quantized(folder)
    if any(".experts." in name for name in layers):
        raise InputError(f"{artifact} is a mixture of experts, whose layout in TensorRT-LLM was not checked; use vLLM")
    algorithm = modelopt.ALGORITHMS[scheme.name]
    settings = folder.config.get("quantization_config") or {}
    exclude = sorted({"lm_head", *settings.get("ignore", ())})
    exported = Exported(
        to="tensorrt-llm",
        folder=str(out.absolute()),
        artifact=recipe,
        artifact_hash=content_hash(artifact),
        command=f"trtllm-serve {shlex.quote(str(out.absolute()))}",
        notes=algorithm.notes,
    )
    try:
        tensors = modelopt.converted(folder, scheme)
    except ValueError as error:
        raise InputError(f"{artifact}: {error}; TensorRT-LLM has no place for it") from error
    plain = {key: value for key, value in folder.config.items() if key != "quantization_config"}
    with whole(out) as draft:
        write_tensors(draft, tensors)
        write_config(draft, plain, modelopt.sixteen_bit(folder))
        copy_side_files(artifact, draft)
        _write(draft / "hf_quant_config.json", modelopt.quant_config(algorithm, exclude, __version__))
        write_manifest(draft, exported)
    return exported


def _made_by(artifact: Path) -> tuple[str, Scheme]:
    """The recipe that made a folder, and its scheme. Raises InputError where nobody wrote it down."""
    if artifact.is_file() and artifact.suffix == ".gguf":
        raise InputError(f"{artifact}: TensorRT-LLM does not read GGUF; build int4-g128, int8-channel or fp8")
    try:
        body: dict[str, Any] = json.loads((artifact / RECORD).read_text(encoding="utf-8"))
        name, form = str(body["recipe"]), str(body["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{artifact} is no artifact of `quantwise build` (no whole {RECORD}); give one") from error
    scheme = parse_recipe(name).scheme
    if form in ("gptq", "awq"):
        raise InputError(f"{artifact} is in the layout of {form}; build {name.split(',')[0]} without layout=")
    return name, scheme


def _write(path: Path, body: Any) -> None:
    path.write_text(json.dumps(body, indent=4) + "\n", encoding="utf-8")
