"""How a model is to be served, whichever it is: what a request for a plan and each deployment of it have alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantwise.plan.machine_rates import MachineRates
from quantwise.scenarios.site import Site

RuntimeName = Literal["llamacpp", "transformers", "vllm"]
RUNTIMES: tuple[RuntimeName, ...] = ("llamacpp", "transformers", "vllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """``context`` tokens for each of ``concurrency`` requests. ``gpu_layers`` is llama.cpp's ``-ngl`` (None: all that
    a GPU takes), ``experts_on_cpu`` its ``--n-cpu-moe``. ``limit_bytes`` stands for the site's memory where given.
    ``machine`` is what was measured of this machine, where the site is that. ``tensor_parallel`` devices of the site
    share every layer, in each of ``pipeline_parallel`` runs of layers. ``host`` is the machine that the devices are in.
    """

    runtime: RuntimeName = "llamacpp"
    cache: str = "f16"
    context: int = 4096
    concurrency: int = 1
    ubatch: int = 512
    gpu_layers: int | None = None
    experts_on_cpu: int = 0
    limit_bytes: int | None = None
    machine: MachineRates | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    host: Site | None = None
