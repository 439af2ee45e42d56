"""What was asked of the planner, before a model and a scheme make a deployment of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantwise.plan.deployment import Deployment, RuntimeName
from quantwise.plan.machine_rates import MachineRates
from quantwise.plan.model import Model
from quantwise.scenarios.site import Site

SCHEMES: Mapping[RuntimeName, tuple[str, ...]] = {
    "llamacpp": ("16bit", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k"),
    "transformers": ("16bit", "int8-channel", "int4-g128", "nf4-dq"),
    "vllm": ("16bit", "fp8", "int8-channel", "int4-g128"),
}
"""What is planned where nothing is named, from more bits to fewer."""
_PUBLISHED: Mapping[str, Mapping[RuntimeName, str]] = {
    "GptOssForCausalLM": {
        "llamacpp": "mxfp4_moe", "transformers": "mxfp4-experts", "vllm": "mxfp4-experts",
    },
}  # fmt: skip
"""By class in Transformers, what a model's own weights are in: what has more bits than they holds no more."""


def usual_schemes(model: Model, runtime: RuntimeName, *, on_gpu: bool = True) -> tuple[str, ...]:
    """What is planned of a model where nothing is named: first what it was published in, then ``SCHEMES``.

    A GGUF file is planned as it is. Transformers keeps MXFP4 packed where triton and the package kernels are installed,
    which is not usual without a GPU, and else expands it to 16 bit (its quantizers/quantizer_mxfp4.py).
    """
    if model.is_file:
        return ("stored",)
    published = _PUBLISHED.get(model.decoder.architecture, {}).get(runtime)
    if published is None or (runtime == "transformers" and not on_gpu):
        return SCHEMES[runtime]
    return (published, *SCHEMES[runtime])


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked: settings as in ``Deployment``; ``schemes`` empty takes the usual ones of the runtime.

    ``machine`` is what was measured of this machine, where the site is that; ``host`` the one that GPUs are in.
    ``trace`` is a file of requests, or ``drawn``. ``least_context`` is what members of a family must hold, where that
    was asked for.
    """

    context: int
    concurrency: int
    site: Site
    runtime: RuntimeName = "llamacpp"
    schemes: tuple[str, ...] = ()
    cache: str = "f16"
    ubatch: int = 512
    gpu_layers: int | None = None
    experts_on_cpu: int = 0
    limit_bytes: int | None = None
    machine: MachineRates | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    host: Site | None = None
    trace: str | None = None
    least_context: int | None = None

    def names(self, model: Model) -> tuple[str, ...]:
        """The schemes that were asked for, or the usual ones of the model."""
        return self.schemes or usual_schemes(model, self.runtime, on_gpu=self.site.kind == "gpu")

    def deployment(self, model: Model, scheme: str) -> Deployment:
        """It, of one model in one scheme."""
        return Deployment(
            model=model,
            site=self.site,
            scheme=scheme,
            runtime=self.runtime,
            cache=self.cache,
            context=self.context,
            concurrency=self.concurrency,
            ubatch=self.ubatch,
            gpu_layers=self.gpu_layers,
            experts_on_cpu=self.experts_on_cpu,
            limit_bytes=self.limit_bytes,
            machine=self.machine,
            tensor_parallel=self.tensor_parallel,
            pipeline_parallel=self.pipeline_parallel,
            host=self.host,
        )
