"""Models on a hub: ``owner/name`` is a folder in the Hugging Face layout, ``owner/name-GGUF:*Q4_K_M*`` one file of one.

What is there is listed first, headers are read by HTTP range requests, and only what was chosen is downloaded, by the
``huggingface_hub`` library into its own cache. Everything is pinned to the commit that was listed. The hub is the one
that ``HF_ENDPOINT`` names; a log-in of ``hf auth login`` or ``HF_TOKEN`` is used where there is one.
"""

from __future__ import annotations

import fnmatch
import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from quantwise.core.errors import EnvironmentFailure, InputError, QuantwiseError

# A repository's name by the hub's rules, then a file pattern, then what a candidate says beside its source.
_NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<pattern>[^@,]+))?(?P<rest>(?:@[a-z]+)?(?:,kv=.*)?)",
    re.ASCII,
)
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
# What a folder needs beside its weights: shapes, tokenizer, chat template.
_SIDE_FILES = re.compile(r"[^/]+\.(json|jinja|txt|model)")
_INDEX = "model.safetensors.index.json"
_FIRST_RANGE, _GROWTH = 1 << 20, 4
_LONGEST_HEADER = 1 << 29
_SECONDS = 30.0
_LISTED = 12

HeaderEnd = Callable[[bytes], int | None]
"""Where a file's header ends, from its first bytes; None where more of them are needed."""


@dataclass(frozen=True, slots=True)
class HubName:
    """``repo`` and ``pattern`` as a person wrote them; ``rest`` is the candidate's runtime and cache, unread."""

    repo: str
    pattern: str | None = None
    rest: str = ""

    @property
    def text(self) -> str:
        """The name without its rest."""
        return self.repo if self.pattern is None else f"{self.repo}:{self.pattern}"


@dataclass(frozen=True, slots=True)
class Selection:
    """The files of a repository that a name stands for, with their bytes, at one commit.

    ``weights`` are the files among them that hold tensors. ``cached`` is the folder where the hub could not be reached
    and an earlier download is used.
    """

    name: HubName
    commit: str
    files: dict[str, int]
    cached: Path | None = None

    @property
    def weights(self) -> list[str]:
        """The files that hold tensors."""
        return [file for file in self.files if file.endswith((".safetensors", ".gguf"))]

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def hub_name(text: str) -> HubName | None:
    """The hub id that a text is, or None: exactly one slash, a repository's characters, and no such file here."""
    match = _NAME.fullmatch(text)
    if match is None or "--" in match["repo"] or ".." in match["repo"] or match["repo"].endswith((".gguf", ".", "-")):
        return None
    source = text.removesuffix(match["rest"]) if match["rest"] else text
    if Path(source).exists() or Path(match["repo"]).exists() or Path(text).exists():
        return None
    return HubName(match["repo"], match["pattern"], match["rest"])


def endpoint() -> str:
    """The address of the hub."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def select(name: HubName) -> Selection:
    """List the repository and choose the files. Where the hub cannot be reached an earlier download is used.

    Raises InputError for a repository that is not there or may not be read, and where the pattern fits no file or
    several (they are listed); EnvironmentFailure where the hub cannot be reached and nothing was downloaded before.
    """
    with _translated(name):
        try:
            info = _api().model_info(name.repo, files_metadata=True, timeout=_SECONDS)
        except QuantwiseError:
            raise  # ours already: the library is not installed
        except Exception as error:
            folder = _cached(name) if isinstance(error, _foreign()) and _unreachable(error) else None
            if folder is None:
                raise
            files = {f.relative_to(folder).as_posix(): f.stat().st_size for f in folder.rglob("*") if f.is_file()}
            return Selection(name, folder.name, _chosen(name, files), folder)
    files = {s.rfilename: int(s.size or 0) for s in info.siblings or ()}
    return Selection(name, str(info.sha), _chosen(name, files))


def download(selection: Selection) -> Path:
    """Fetch the chosen files into the library's cache. Returns the folder, or the one file that a pattern named.

    Raises EnvironmentFailure where the network or the disk fails; the same command goes on where it was.
    """
    folder = selection.cached
    if folder is None:
        with _translated(selection.name):
            chosen = list(selection.files)
            folder = Path(_api().snapshot_download(selection.name.repo, allow_patterns=[_literal(f) for f in chosen]))
        missing = [file for file in selection.files if not (folder / file).is_file()]
        if folder.name != selection.commit or missing:
            raise InputError(f"{selection.name.repo} was changed on the hub meanwhile; run the same command again")
    return folder / selection.weights[0] if selection.name.pattern is not None else folder


def first_bytes(selection: Selection, file: str, end: HeaderEnd) -> bytes:
    """The header of a file by range requests that grow until it is complete; no byte is asked for twice.

    Raises InputError where the file may not be read or is none of its format (``end`` says so).
    """
    size, data, wanted = selection.files[file], b"", _FIRST_RANGE
    while True:
        data += _range(selection, file, len(data), min(wanted, size))
        try:
            complete = end(data)
        except InputError as error:
            raise InputError(f"{selection.name.repo}: {file}: {error}") from error
        if complete is not None and complete <= len(data):
            return data[:complete]
        if len(data) >= min(size, _LONGEST_HEADER):
            raise InputError(f"{selection.name.repo}: {file} is damaged: its header has no end; choose another file")
        wanted = max(complete or 0, _GROWTH * wanted)


def small_file(selection: Selection, file: str) -> bytes:
    """A text file of the repository, whole."""
    return _range(selection, file, 0, selection.files[file])


def _range(selection: Selection, file: str, begin: int, end: int) -> bytes:
    """Bytes ``begin`` to ``end`` (exclusive); fewer only where the file is shorter than listed."""
    if selection.cached is not None:
        with (selection.cached / file).open("rb") as stream:
            stream.seek(begin)
            return stream.read(end - begin)
    with _translated(selection.name):
        import huggingface_hub

        # Loaded by its name: the package tells of its parts only when something has loaded them.
        utils: Any = importlib.import_module("huggingface_hub.utils")
        url = huggingface_hub.hf_hub_url(selection.name.repo, file, revision=selection.commit, endpoint=endpoint())
        headers = {**utils.build_hf_headers(), "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=_SECONDS) as reply:
            reply.raise_for_status()
            # A server that knows no ranges sends the whole file: we stop reading where we have enough.
            skip = begin if reply.status_code == httpx.codes.OK else 0
            data = b""
            for chunk in reply.iter_bytes():
                data += chunk
                if len(data) >= skip + end - begin:
                    break
        return data[skip : skip + end - begin]


def _chosen(name: HubName, files: dict[str, int]) -> dict[str, int]:
    ggufs = sorted(file for file in files if file.lower().endswith(".gguf"))
    if name.pattern is not None:
        pattern = name.pattern.lower()
        fitting = [f for f in ggufs if fnmatch.fnmatchcase(f.lower(), pattern)]
        if not fitting:
            there = f"it holds {_list(ggufs)}" if ggufs else "it holds no .gguf file"
            raise InputError(f"{name.repo} has no .gguf file that fits {name.pattern!r}; {there}")
        if _PART.search(fitting[0]):
            raise InputError(
                f"{name.text} is split over several files ({fitting[0]}), which is not read here; choose one in a "
                "single file, or join it with llama-gguf-split --merge and give the file"
            )
        if len(fitting) > 1:
            raise InputError(f"{name.pattern!r} fits several files of {name.repo}: {_list(fitting)}; name one of them")
        return {fitting[0]: files[fitting[0]]}
    tensors = [f for f in files if f.endswith(".safetensors") and "/" not in f]
    if "config.json" not in files or not tensors:
        if ggufs:
            raise InputError(f"{name.repo} holds GGUF files; name one, as in {name.repo}:{_example(ggufs)}: "
                             f"{_list(ggufs)}")  # fmt: skip
        lacks = "config.json" if "config.json" not in files else ".safetensors file (others may run code when loaded)"
        raise InputError(f"{name.repo} holds no {lacks}; name a repository of a language model in safetensors")
    if _INDEX in files:
        tensors = [f for f in tensors if re.fullmatch(r"model-\d+-of-\d+\.safetensors", f)] or tensors
    elif "model.safetensors" in tensors:
        tensors = ["model.safetensors"]
    side = [f for f in files if _SIDE_FILES.fullmatch(f)]
    return {f: files[f] for f in sorted({*side, *tensors})}


def _example(ggufs: list[str]) -> str:
    found = re.search(r"(I?Q\d\w*|BF16|F16)(?=\.gguf$)", ggufs[0], re.IGNORECASE)
    return f"*{found[0]}*" if found else ggufs[0]


def _list(files: list[str]) -> str:
    more = f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
    return ", ".join(files[:_LISTED]) + more


def _literal(file: str) -> str:
    """A pattern that fits this name only."""
    return re.sub(r"([*?\[])", r"[\1]", file)


def _api() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise EnvironmentFailure(
            "models on a hub need the huggingface_hub library; pip install huggingface_hub"
        ) from error
    # Its bars would cut through our own progress.
    utils: Any = importlib.import_module("huggingface_hub.utils")
    utils.disable_progress_bars()
    return huggingface_hub.HfApi(endpoint=endpoint())


def _cached(name: HubName) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name.repo, local_files_only=True))
    except LocalEntryNotFoundError as error:
        # What is there of a repository that was downloaded in part, as one file of many is.
        part = getattr(error, "snapshot_path", None)
        return None if part is None else Path(part)


def _unreachable(error: Exception) -> bool:
    """Whether no answer came at all, rather than one that we did not like."""
    return getattr(error, "response", None) is None


@contextmanager
def _translated(name: HubName) -> Iterator[None]:
    """The border at which errors of the hub and of the network become ours."""
    try:
        yield
    except QuantwiseError:
        raise
    except Exception as error:
        known = _foreign()
        if not isinstance(error, known):
            raise
        raise _complaint(name, error) from error


def _foreign() -> tuple[type[Exception], ...]:
    try:
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        return (httpx.HTTPError, OSError, ValueError)
    # The library stands on httpx or httpx2, by its version; its own error derives from theirs.
    return (HfHubHTTPError.__bases__[0], httpx.HTTPError, OSError, ValueError)


def _complaint(name: HubName, error: Exception) -> QuantwiseError:
    reply = getattr(error, "response", None)
    status = getattr(reply, "status_code", None)
    code = reply.headers.get("x-error-code", "") if reply is not None else ""
    if code == "GatedRepo" or status == httpx.codes.FORBIDDEN:
        return InputError(
            f"{name.repo} is gated; accept its terms at {endpoint()}/{name.repo} and log in with `hf auth login`"
        )
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.NOT_FOUND):
        return InputError(
            f"{name.repo} is no file or folder here and no model on {endpoint()} (or a private one); "
            "check the name, or log in with `hf auth login`"
        )
    if status is not None:
        return EnvironmentFailure(f"{endpoint()} answers {status} about {name.repo}; try again later")
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return EnvironmentFailure(
        f"{name.repo} is no file or folder here, and {endpoint()} cannot be reached ({why}); "
        "check the path or the network"
    )
