"""Whatever a person calls a model, as a decoder: a folder, a config.json, a .gguf file, a preset's name, or a hub id.

Only headers are read; of a hub id by range requests.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quantwise.core.errors import InputError
from quantwise.formats.gguf.header import GgufHeader, read_gguf_header
from quantwise.formats.safetensors_header import read_folder
from quantwise.models.decoder import Decoder
from quantwise.models.families import FAMILIES
from quantwise.models.from_config import decoder_by_usual_keys, decoder_of, language_model, rope_factor_count
from quantwise.models.from_gguf import GgufFacts, gguf_decoder
from quantwise.models.presets import PRESETS, preset_decoder
from quantwise.models.tensor_table import TensorTable
from quantwise.plan.described import described_bytes, quantization_of
from quantwise.plan.stored_tensors import Bytes, logical_tensors
from quantwise.plan.terms import Device

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_LONGEST_CONFIG = 1 << 24


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A decoder and where it was found: a ``folder`` (with its tokenizer, perhaps) or a ``file`` on this machine.

    ``rope_factors`` numbers are stored beside the weights in a GGUF file that is made of it. ``loaded``: bytes that
    Transformers holds of a folder's own tensors by device, as in ``stored_tensors``. ``quantization`` is what its
    config.json says of that, empty where it is not quantized.
    """

    decoder: Decoder
    folder: Path | None = None
    file: Path | None = None
    rope_factors: int = 0
    loaded: Mapping[Device, Bytes | None] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)


def read_decoder(text: str) -> Decoder:
    """The decoder that ``text`` names. Raises InputError, one line, where it names none or a file is damaged."""
    return read_source(text).decoder


def read_source(text: str) -> ModelSource:
    """What ``text`` names, and where it is. Raises InputError as ``read_decoder`` does."""
    path = Path(text)
    if path.is_dir():
        config = read_config_file(path / "config.json")
        return _with_factors(_folder_source(path, config), config)
    if path.suffix.lower() == ".gguf" and ":" not in text:
        return ModelSource(read_gguf_decoder(path), file=path)
    if path.is_file():
        config = read_config_file(path)
        return _with_factors(_described(decoder_of(config, path.parent.name or path.stem, str(path)), config), config)
    if (preset := PRESETS.get(text.strip().lower())) is not None:
        return _with_factors(ModelSource(preset_decoder(preset.name)), preset.config)
    return _hub_source(text)


def _with_factors(found: ModelSource, config: Mapping[str, Any]) -> ModelSource:
    return replace(found, rope_factors=rope_factor_count(language_model(config, "config.json"), found.decoder))


def _hub_source(text: str) -> ModelSource:
    # The client of the hub takes longer to load than all else here.
    from quantwise.models.hub import hub_name, select
    from quantwise.plan.hub_headers import stand_in

    name = hub_name(text)
    if name is None:
        raise InputError(
            f"{text} is no folder, config.json, .gguf file or hub id, nor a preset; "
            f"presets: {', '.join(sorted(PRESETS))}"
        )
    with tempfile.TemporaryDirectory(prefix="quantwise-headers-") as folder:
        found = read_source(str(stand_in(select(name), Path(folder))))
    return replace(found, decoder=replace(found.decoder, name=name.text), folder=None, file=None)


def read_folder_decoder(folder: Path) -> Decoder:
    """The decoder in a model folder; with its tensors as stored where it has .safetensors files, else by its config.

    Raises InputError where a file is missing or damaged, or holds fewer weights than config.json describes.
    """
    return _folder_source(folder, read_config_file(folder / "config.json")).decoder


def is_known_type(config: Mapping[str, Any], where: str = "config.json") -> bool:
    """Whether the tensors of its model type are known, and with them what its layers keep."""
    return str(language_model(config, where).get("model_type")) in FAMILIES


def _folder_source(folder: Path, config: Mapping[str, Any]) -> ModelSource:
    name, where = folder.resolve().name, str(folder / "config.json")
    if not any(folder.glob("*.safetensors")):
        return replace(_described(decoder_of(config, name, where), config), folder=folder)
    decoder = (decoder_of if is_known_type(config, where) else decoder_by_usual_keys)(config, name, where)
    found = logical_tensors(read_folder(folder), config, decoder.tensors)
    _check_count(folder, found.shapes, decoder.tensors)
    own = replace(decoder, tensors=found.shapes, stored=found.stored)
    return ModelSource(own, folder, loaded=found.loaded, quantization=quantization_of(config))


def _described(decoder: Decoder, config: Mapping[str, Any]) -> ModelSource:
    """A model of which only the config.json is there: of a quantized one the bytes that this tells."""
    settings = quantization_of(config)
    if not settings:
        return ModelSource(decoder)
    stored, loaded = described_bytes(decoder, settings)
    return ModelSource(replace(decoder, stored=stored or {}), loaded=loaded, quantization=settings)


def read_gguf_decoder(path: Path) -> Decoder:
    """The decoder in a .gguf file, or in all parts of a split one. Raises InputError as ``read_gguf_header`` does."""
    return decoder_of_headers([read_gguf_header(part, part=True) for part in _parts(path)], path)


def decoder_of_headers(headers: Sequence[GgufHeader], path: Path) -> Decoder:
    """The decoder in all parts of the GGUF file at ``path``. Raises InputError where they are of no decoder."""
    first = headers[0]
    shapes, stored = {}, {}
    for header in headers:
        for tensor in header.tensors:
            if tensor.name in shapes:
                raise InputError(f"{header.path} repeats tensor {tensor.name!r:.60} of another part; download it again")
            shapes[tensor.name], stored[tensor.name] = tensor.shape, tensor.bytes
    name = first.keys.get("general.name")
    facts = GgufFacts(first.architecture, first.keys, first.arrays, shapes, stored, str(path))
    return gguf_decoder(facts, name if isinstance(name, str) and name else path.stem)


def read_config_file(path: Path) -> dict[str, Any]:
    """A config.json. Raises InputError where it is missing, too long, or no JSON object."""
    try:
        if path.stat().st_size > _LONGEST_CONFIG:
            raise InputError(f"{path} has {path.stat().st_size} bytes, which no config.json has; give another file")
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; give a folder in the Hugging Face layout"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({str(error).splitlines()[0]}); download it again") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is no JSON object; download it again")
    return config


def _parts(path: Path) -> list[Path]:
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    parts = [path.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing or not parts:
        raise InputError(f"{path} is a part of several, and {', '.join(missing[:3]) or path.name} is missing beside it")
    return parts


def _check_count(folder: Path, found: Mapping[str, tuple[int, ...]], due: Mapping[str, tuple[int, ...]]) -> None:
    """Extra tensors (a copy of a tied matrix, a vision part) are no fault; missing ones are."""
    have, need = (TensorTable.of(table).numbers for table in (found, due))
    if have < need:
        raise InputError(
            f"{folder} holds {have:,} weights, its config.json describes {need:,}; download the missing shards"
        )
