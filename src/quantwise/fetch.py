"""Models on a hub become local paths: planned from their headers first, then downloaded, then like any brought file.

``decide`` refuses what has no room here before a byte of weights is downloaded.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.evidence import Fit
from quantwise.models.hub import HubName, Selection, download, hub_name, select
from quantwise.plan.fit import size
from quantwise.plan.hub_headers import stand_in
from quantwise.plan.preflight import needs
from quantwise.question.request import Request

# What the check of recipes reads beside shapes and headers.
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
Tell = Callable[[str], None]
Check = Callable[[Request], dict[str, Fit]]


def fetched(request: Request, check: Check, tell: Tell = lambda line: None) -> Request:
    """The request with every hub id in it replaced by the path of its download; ``tell`` is given a line for each.

    ``check`` gives the fits of a request from headers alone, and raises for what has no room here.

    Raises InputError and EnvironmentFailure, before anything but headers is downloaded, for a name that stands for
    nothing, a header that is damaged, and a model for which this machine has no memory or no disk.
    """
    texts = (request.model, request.baseline, *request.models.values(), *request.candidates)
    names = {n.text: n for text in texts if text is not None and (n := hub_name(str(text))) is not None}
    if not names:
        return request
    chosen = {text: select(name) for text, name in names.items()}
    with tempfile.TemporaryDirectory(prefix="quantwise-headers-") as folder:
        heads = {text: stand_in(s, Path(folder) / str(i), _TOKENIZER) for i, (text, s) in enumerate(chosen.items())}
        for name, fit in _checked(request, heads, check).items():
            source = next((text for text, place in heads.items() if name.startswith(str(place))), None)
            if source is not None and fit.fits == "no":
                raise EnvironmentFailure(f"{source} {needs(fit)}, so it was not downloaded; leave it out")
    return _replaced(request, {text: _downloaded(selection, tell) for text, selection in chosen.items()})


def _checked(request: Request, heads: Mapping[str, Path], check: Check) -> dict[str, Fit]:
    """The quick look at headers."""
    with _named(heads):
        return check(_replaced(request, heads))


@contextmanager
def _named(heads: Mapping[str, Path]) -> Iterator[None]:
    """What is complained about inside is named as the person named it."""
    try:
        yield
    except (InputError, EnvironmentFailure) as error:
        told = str(error)
        for text, place in heads.items():
            told = told.replace(str(place), text)
        raise type(error)(told) from error


def local(model: Path, check: Callable[[Path], None], tell: Tell = lambda line: None) -> Path:
    """The folder of one model: itself, or its download where it is a hub id, once ``check`` lets its headers pass.

    Raises what ``check`` raises, of the name that the person gave, before anything but headers is downloaded.
    """
    name = hub_name(str(model))
    if name is None:
        return model
    selection = select(name)
    with tempfile.TemporaryDirectory(prefix="quantwise-headers-") as folder:
        place = stand_in(selection, Path(folder), _TOKENIZER)
        with _named({name.text: place}):
            check(place)
    return _downloaded(selection, tell)


@contextmanager
def headers(model: Path | None) -> Iterator[Path | None]:
    """The model itself, or for a hub id a stand-in of its headers that lasts as long as the context."""
    name = None if model is None else hub_name(str(model))
    if name is None:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="quantwise-headers-") as folder:
        yield stand_in(select(name), Path(folder))


def _downloaded(selection: Selection, tell: Tell) -> Path:
    if selection.cached is None:
        _require_disk(selection)
        tell(f"{selection.name.text}: {size(selection.bytes)} at commit {selection.commit[:12]}, "
             "downloaded where the cache lacks it")  # fmt: skip
    else:
        tell(f"{selection.name.text}: the hub cannot be reached; using the download of commit {selection.commit[:12]}")
    return download(selection)


def _require_disk(selection: Selection) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE).expanduser()
    there = next(place for place in (cache, *cache.absolute().parents) if place.exists())
    done = cache / f"models--{selection.name.repo.replace('/', '--')}" / "snapshots" / selection.commit
    missing = sum(count for file, count in selection.files.items() if not (done / file).exists())
    if missing > (free := shutil.disk_usage(there).free):
        raise EnvironmentFailure(
            f"{selection.name.text} needs {size(missing)} on disk, {there} has {size(free)}; free some, or set HF_HOME"
        )


def _replaced(request: Request, places: Mapping[str, Path]) -> Request:
    def place(text: str) -> str:
        name: HubName | None = hub_name(text)
        return text if name is None else f"{places[name.text]}{name.rest}"

    return replace(
        request,
        model=None if request.model is None else Path(place(str(request.model))),
        baseline=None if request.baseline is None else place(request.baseline),
        candidates=tuple(map(place, request.candidates)),
        models={name: Path(place(str(model))) for name, model in request.models.items()},
    )
