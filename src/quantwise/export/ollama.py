"""A GGUF as a folder for ``ollama create``: the file, and a Modelfile with stop tokens and parameters. Never run here.

https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantwise.chat import ChatTemplate
from quantwise.core.errors import InputError
from quantwise.export.made import Exported, whole, write_manifest
from quantwise.export.ollama_template import Kind, translated
from quantwise.formats.content_hash import content_hash
from quantwise.formats.gguf.header import read_gguf_header, read_vocabulary

CONTEXT = 4096
"""Tokens of context where nobody says how many: the whole context of a recent model would fill most machines."""
_IDS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
# What Transformers takes where generation_config.json does not say; Ollama's own defaults are others (0.8, 40, 0.9 and,
# in older ones, a penalty of 1.1), so these are written.
_DRAWN = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}
_PENALTY = "repetition_penalty"
_NO_TEMPLATE = (
    "TEMPLATE is left out, because this chat template is none that can be translated with certainty: Ollama takes the "
    "nearest of those it knows, and where none is near the file's own (before 0.30 it sent bare text); look at `ollama "
    "show --template` before you trust it"
)
_GREEDY = (
    "no generation_config.json was found, so temperature is left to Ollama (0.8 as documented); verdicts of quantwise "
    "are about greedy answers"
)
_PENALIZED = (
    "generation_config.json has a repetition penalty, so the Modelfile has it; verdicts of quantwise were measured "
    "without it"
)


def export(artifact: Path, out: Path, *, context: int | None = None, model: Path | None = None) -> Exported:
    """Write the folder ``out``; ``model`` is where generation_config.json is looked for, beside the artifact's own.

    Raises InputError where the artifact is no GGUF, naming recipes that would make one.
    """
    file = _gguf(artifact)
    header = read_gguf_header(file)
    keys = dict(header.keys)
    vocabulary = read_vocabulary(file)
    most = header.context_length
    if context is not None and most and context > most:
        raise InputError(f"--context {context} is more than the {most} tokens that {file.name} was made for")
    settings = _generation(file.parent, model)
    kind, notes = _template(keys, vocabulary)
    if settings is None:
        notes.append(_GREEDY)
    elif (settings.get(_PENALTY) or 1) != 1:
        notes.append(_PENALIZED)
    stops = _stops(keys, vocabulary, settings or {})
    tokens = context or min(CONTEXT, most or CONTEXT)
    name = f"./{file.name}"
    lines = _modelfile(name, kind, stops, tokens, settings)
    place = str(out.absolute())
    exported = Exported(
        to="ollama",
        folder=place,
        artifact=file.name,
        artifact_hash=content_hash(file),
        command=f"ollama create NAME -f {shlex.quote(place + '/Modelfile')} && ollama run NAME",
        notes=tuple(notes),
    )
    with whole(out) as draft:
        _link(file, draft / file.name)
        (draft / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_manifest(draft, exported)
    return exported


def _gguf(artifact: Path) -> Path:
    if not artifact.exists():
        raise InputError(f"{artifact}: no such artifact; give a .gguf file, or a folder that `quantwise build` made")
    found = sorted(artifact.glob("*.gguf")) if artifact.is_dir() else [artifact]
    if len(found) != 1 or found[0].suffix != ".gguf":
        raise InputError(f"{artifact} is no GGUF, which is what Ollama runs; build one: q8_0, q4_k_m or gptq:q4_k_m")
    return found[0]


def _template(keys: Mapping[str, Any], vocabulary: Sequence[str]) -> tuple[Kind | None, list[str]]:
    metadata = {**keys, "tokenizer.ggml.tokens": vocabulary}
    template = ChatTemplate.from_gguf(metadata)
    if template is None:
        return None, ["the file has no chat template, so Ollama sends bare text: it is a model for completion"]
    begins = keys.get("tokenizer.ggml.add_bos_token")  # without it, every tokenizer has a rule of its own
    kind, note = translated(template, begins) if isinstance(begins, bool) else (None, None)
    if kind is None:
        return None, [_NO_TEMPLATE]
    return kind, [note] if note else []


def _stops(keys: Mapping[str, Any], vocabulary: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Texts of the tokens that end an answer: of the file's header, and of generation_config.json."""
    more = settings.get("eos_token_id")
    ids = [keys.get(name) for name in _IDS] + (list(more) if isinstance(more, list) else [more])
    known = [int(i) for i in ids if isinstance(i, int) and 0 <= i < len(vocabulary)]
    return [text for i in dict.fromkeys(known) if (text := vocabulary[i]).strip()]


def _generation(folder: Path, model: Path | None) -> dict[str, Any] | None:
    for place in (model, folder):
        file = None if place is None else place / "generation_config.json"
        if file is None or not file.is_file():
            continue
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file} is no JSON; download it again") from error
        if not isinstance(found, dict):
            raise InputError(f"{file} must hold a JSON object; download it again")
        return found
    if model is not None:
        raise InputError(f"{model} has no generation_config.json; leave --model out")
    return None


def _modelfile(
    name: str, kind: Kind | None, stops: Sequence[str], context: int, settings: Mapping[str, Any] | None
) -> list[str]:
    lines = ["# Written by quantwise; never run here.", f"FROM {name}"]
    if kind is not None:
        lines.append(f'TEMPLATE """{kind.go}"""')
    lines += [f"PARAMETER stop {_quoted(text)}" for text in stops]
    lines.append(f"PARAMETER num_ctx {context}")
    lines += [f"PARAMETER {key} {value}" for key, value in _sampling(settings).items()]
    return lines


def _sampling(settings: Mapping[str, Any] | None) -> dict[str, float | int]:
    """How answers are drawn, as generation_config.json says: without ``do_sample`` Transformers takes the likeliest.

    A penalty on what came before changes that, too. Transformers looks at the whole text for it, Ollama at the last 64
    tokens unless told otherwise.
    """
    if settings is None:
        return {}
    drawn = bool(settings.get("do_sample", False))
    keys = (*_DRAWN, "min_p", _PENALTY) if drawn else (_PENALTY,)
    said = {key: _number(key, settings[key]) for key in keys if settings.get(key) is not None}
    penalty = said.pop(_PENALTY, 1.0)
    found = _DRAWN | said if drawn else {"temperature": 0}
    return found | {"repeat_penalty": penalty} | ({} if penalty == 1 else {"repeat_last_n": -1})


def _number(key: str, value: Any) -> float | int:
    """It, from 0 on; a penalty is a factor, so above 0."""
    least = 1e-9 if key == _PENALTY else 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e9:
        allowed = "above 0" if least else "from 0 on"
        raise InputError(f"generation_config.json: {key} must be a number {allowed}, not {value!r:.40}; mend it")
    return value


def _quoted(text: str) -> str:
    """A value as the Modelfile's reader takes it back: it knows no escapes, only quotes of one and of three."""
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'


def _link(file: Path, target: Path) -> None:
    """The same bytes under another name where the disk can do that, else a copy."""
    try:
        os.link(file.resolve(), target)
    except OSError:
        shutil.copyfile(file, target)
