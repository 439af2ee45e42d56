"""Where the Transformers runtime computes. No machine of ours has a GPU: only the last test wants one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

from quantwise.core.artifact import Artifact
from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.runtime import Ask, Footprint, RuntimeOptions
from quantwise.runtimes import transformers_folder
from quantwise.runtimes.greedy import CausalModel, Row
from quantwise.runtimes.transformers import Transformers
from quantwise.runtimes.transformers_device import VARIABLE, device, peak_bytes
from quantwise.runtimes.transformers_process import TransformersProcessSession


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has torch find so many GPUs."""

    def found(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return found


@pytest.mark.parametrize("said", [None, "", "cpu"])
def test_it_is_the_processor_unless_somebody_names_a_gpu(
    said: str | None, gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(1)
    monkeypatch.delenv(VARIABLE, raising=False)
    if said is not None:
        monkeypatch.setenv(VARIABLE, said)
    assert (device(), peak_bytes()) == ("cpu", None)
    assert Transformers().version().endswith(torch.__version__)


@pytest.mark.parametrize(("said", "there"), [("cuda", 1), ("cuda:0", 1), ("cuda:1", 2)])
def test_a_gpu_that_is_there_is_taken_and_is_part_of_the_build(
    said: str, there: int, gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(there)
    monkeypatch.setenv(VARIABLE, said)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda place: {said: 7}[place])
    assert (device(), peak_bytes()) == (said, 7)
    assert Transformers().version().endswith(f"{torch.__version__}, on cuda")


@pytest.mark.parametrize("said", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:0 ", "mps", "0"])
def test_what_is_no_device_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, said)
    with pytest.raises(InputError, match=rf"^QUANTWISE_DEVICE is '{said}'; allowed: cpu, cuda, cuda:0, .*unset it$"):
        Transformers().version()


@pytest.mark.parametrize(("said", "there", "found"), [("cuda", 0, "none"), ("cuda:1", 1, "1 of them")])
def test_a_gpu_that_is_not_there_is_refused(
    said: str, there: int, found: str, gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, folder: Artifact
) -> None:
    gpus(there)
    monkeypatch.setenv(VARIABLE, said)
    with pytest.raises(EnvironmentFailure, match=f"^QUANTWISE_DEVICE is {said}, .* finds {found}; set it to cpu$"):
        Transformers().version()
    with (
        pytest.raises(EnvironmentFailure, match=f"^QUANTWISE_DEVICE is {said}, .* finds {found}; set it to cpu$"),
        Transformers().open(folder, RuntimeOptions()),
    ):
        pass


class Places(TorchFunctionMode):
    """Notes the device of every tensor that is made of Python's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func is torch.tensor:
            self.told.append((kwargs or {}).get("device"))
        return func(*args, **(kwargs or {}))


def test_every_tensor_is_made_where_the_model_is(folder: Artifact) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder.location).eval()
    causal = CausalModel(model, pad=0, eos=frozenset())
    with Places() as places:
        causal.decode([Row([5, 6, 7], 3), Row([8, 9], 2)], float("inf"))
        causal.continuation_logprobs([[5, 6, 7], [8, 9]], [2, 1], 2)
        causal.distributions([5, 6, 7], 4)
    assert len(places.told) >= 12
    assert set(places.told) == {next(model.parameters()).device}


def test_a_process_on_a_gpu_tells_the_peak_there_and_not_that_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    told = asdict(Footprint(weights_bytes=3, peak_process_bytes=7))
    answer = httpx.MockTransport(lambda _: httpx.Response(200, json=told))
    process: Any = SimpleNamespace(alive=lambda: True, peak_bytes=lambda: 5)
    with httpx.Client(base_url="http://there", transport=answer) as http:
        session = TransformersProcessSession(process, http, RuntimeOptions())
        for there, peak in ((True, 7), (False, 5)):
            monkeypatch.setattr("quantwise.runtimes.transformers_process.is_cuda", lambda there=there: there)
            assert session.footprint() == Footprint(weights_bytes=3, peak_process_bytes=peak)


@pytest.mark.parametrize("method", [None, "gptq", "bitsandbytes"])
def test_a_model_is_put_where_it_is_told(method: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes is told while it loads: its layers of eight bits cannot be moved, and it would take any GPU."""
    settings: dict[str, Any] = {"model_type": "llama"}
    settings |= {"quantization_config": {"quant_method": method}} if method else {}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    told = []

    def loaded(*_: object, **options: Any) -> nn.Module:
        told.append(options.get("device_map"))
        return nn.Linear(1, 1)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loaded)
    monkeypatch.setattr(transformers_folder, "_read_here", loaded)
    places = [next(transformers_folder.model_of(tmp_path, place).parameters()).device.type for place in ("cpu", "meta")]
    assert places == ["cpu", "cpu" if method == "bitsandbytes" else "meta"]
    assert told == ([{"": "cpu"}, {"": "meta"}] if method == "bitsandbytes" else [None, None])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
def test_answers_on_a_gpu_are_those_of_the_processor(
    folder: Artifact, options: RuntimeOptions, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = [*(Ask(text=p, max_tokens=6) for p in prompts), *(Ask(text=p, choices=(" one", " x")) for p in prompts)]
    told = []
    for place in ("cpu", "cuda"):
        monkeypatch.setenv(VARIABLE, place)
        with Transformers().open(folder, options) as session:
            told.append(session.ask(asks))
            assert session.footprint().weights_bytes
    for here, there in zip(*told, strict=True):
        assert (here.text, here.finish, here.error) == (there.text, there.finish, None)
        assert there.choice_logprobs == pytest.approx(here.choice_logprobs, abs=1e-2)
