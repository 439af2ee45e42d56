"""The Transformers runtime in a process of its own, seen from ours."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path
from typing import Any

import httpx

from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.core.runtime import Ask, Footprint, Reply, RuntimeOptions
from quantwise.runtimes.process import ServerProcess, free_port
from quantwise.runtimes.transformers_device import is_cuda

_HOST = "quantwise.runtimes.transformers_host"


@contextmanager
def open_in_process(artifact: Artifact, options: RuntimeOptions) -> Iterator[TransformersProcessSession]:
    """Load the folder in a new process. Raises RuntimeFailure with the loader's words when it cannot."""
    port, key = free_port(), secrets.token_hex(16)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-P", "-m", _HOST, "--folder", str(Path(artifact.location).resolve())]
    command += ["--format", artifact.format, "--port", str(port), "--options", json.dumps(asdict(options))]
    env = {"QUANTWISE_HOST_KEY": key}
    http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    with ServerProcess(command, url, env=env) as process, http:
        yield TransformersProcessSession(process, http, options)


class TransformersProcessSession:
    """A session like the one in process, answered by the other process."""

    def __init__(self, process: ServerProcess, http: httpx.Client, options: RuntimeOptions) -> None:
        self.process = process
        self._http = http
        self._options = options

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Replies in order. Raises RuntimeFailure when the process ended or stopped answering."""
        batches = ceil(len(asks) / self._options.parallel) + 1
        records = self._post("/ask", {"asks": [asdict(ask) for ask in asks]}, self._options.timeout_s * batches)
        return [Reply(**{**record, "choice_logprobs": tuple(record["choice_logprobs"])}) for record in records]

    def footprint(self) -> Footprint:
        """As in process, and the sum of its processes' peaks; on a GPU the peak of its tensors there."""
        known = (
            Footprint(**self._post("/footprint", {}, self._options.timeout_s)) if self.process.alive() else Footprint()
        )
        return known if is_cuda() else replace(known, peak_process_bytes=self.process.peak_bytes())

    def next_token_logprobs(self, text: str, top: int) -> list[dict[int, float]]:
        """As in process."""
        pairs = self._post("/logprobs", {"text": text, "top": top}, self._options.timeout_s)
        return [{int(token): float(logprob) for token, logprob in position} for position in pairs]

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a raw text."""
        return [int(t) for t in self._post("/tokenize", {"text": text}, self._options.timeout_s)]

    def _post(self, path: str, body: dict[str, Any], timeout_s: float) -> Any:
        try:
            response = self._http.post(path, json=body, timeout=timeout_s)
        except httpx.HTTPError as error:
            word = self.process.gone() or f"{type(error).__name__} {error}".strip()
            raise RuntimeFailure(f"the Transformers process is gone: {word}") from error
        if response.is_client_error:
            raise InputError(str(response.json().get("error")))
        if response.is_error:
            raise RuntimeFailure(f"the Transformers process failed with status {response.status_code}")
        return response.json()
