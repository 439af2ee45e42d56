"""What exists already: files, folders and servers as artifacts, and the chat template that they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.errors import InputError
from quantwise.core.runtime import Runtime
from quantwise.formats.content_hash import content_hash
from quantwise.formats.gguf.header import read_chat_metadata
from quantwise.models.config import folder_format, read_config
from quantwise.question.request import is_recipe


def brought_by(candidate: Candidate, model: Path | None, runtimes: Mapping[str, Runtime]) -> Artifact | None:
    """The artifact of a candidate that needs no building. Raises InputError where its runtime refuses it."""
    if candidate.source.startswith(("http://", "https://")):
        from quantwise.runtimes.openai import server_artifact

        return server_artifact(candidate.source)
    if is_recipe(candidate):
        if candidate.source != "16bit" or candidate.runtime == "llamacpp" or model is None:
            return None
        path = model
    else:
        path = Path(candidate.source)
    found = describe(path)
    if (why := runtimes[candidate.runtime].refuses(found)) is not None:
        raise InputError(f"{candidate.name}: {why}")
    return found


def describe(path: Path) -> Artifact:
    """A file or folder that exists, as an artifact; its location is absolute, so that a run goes on from anywhere."""
    path = path.resolve()
    if path.is_dir():
        config = read_config(path)
        size = sum(f.stat().st_size for f in path.glob("*.safetensors"))
        bits = 8 * size / config.parameters if config.parameters else None
        return Artifact(str(path), folder_format(path), content_hash(path), size, None, bits)
    return Artifact(str(path), "gguf", content_hash(path), path.stat().st_size)


def one_template(
    model: Path | None, artifacts: Mapping[str, Artifact], arguments: Mapping[str, Any]
) -> ChatTemplate | None:
    """The one template that every arm is rendered with, told these arguments.

    Raises InputError where two arms bring different ones: that breaks more comparisons than quantization does. Likewise
    for arguments that the template does not read, or that only a template could; servers render for themselves.
    """
    found: dict[str, ChatTemplate] = {}
    if model is not None and (own := ChatTemplate.from_folder(model)) is not None:
        found[str(model)] = own
    for name, made in artifacts.items():
        template = template_of(made)
        if template is not None:
            found[name] = template
    hashes = {t.hash for t in found.values()}
    if len(hashes) > 1:
        raise InputError(
            f"chat templates differ between {', '.join(found)}; give every arm the same template, or raw prompts"
        )
    local = [a for a in artifacts.values() if a.format != "server"] or model
    if arguments and local and not found:
        raise InputError(
            f"no chat template is here to be told {', '.join(arguments)}; leave [template_arguments] out of the "
            "scenario, or give the model its template"
        )
    return next(iter(found.values())).told(arguments) if found and local else None


def template_of(artifact: Artifact) -> ChatTemplate | None:
    """The chat template that an artifact carries, or None; a server keeps its own."""
    if artifact.format == "server":
        return None
    if artifact.format == "gguf":
        return ChatTemplate.from_gguf(read_chat_metadata(Path(artifact.location)))
    return ChatTemplate.from_folder(artifact.location)
