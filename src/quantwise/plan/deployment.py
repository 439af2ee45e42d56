"""What is planned: one way to serve a model at a site, and the versions of runtimes that it is planned for."""

from __future__ import annotations

from dataclasses import dataclass

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder
from quantwise.plan.constants import VLLM_0_32, VLLM_0_32_CPU, XLLAMACPP_2026_10, LlamacppBuild, VllmVersion
from quantwise.plan.model import Model
from quantwise.plan.refit import llamacpp_build, load_refits, vllm_version
from quantwise.plan.serving_settings import RUNTIMES, ServingSettings
from quantwise.plan.terms import Device
from quantwise.plan.what_if import Demand
from quantwise.scenarios.site import Site


@dataclass(frozen=True, slots=True)
class Deployment(ServingSettings):
    """What is planned. ``scheme`` is a recipe, a scheme, or ``stored``: the files as they are."""

    model: Model
    site: Site
    scheme: str

    @property
    def decoder(self) -> Decoder:
        """The model's."""
        return self.model.decoder

    @property
    def computed(self) -> Decoder:
        """The decoder as the runtime computes it."""
        return self.model.in_gguf if self.runtime == "llamacpp" else self.decoder

    def __post_init__(self) -> None:
        for name in ("context", "concurrency", "ubatch", "tensor_parallel", "pipeline_parallel"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {getattr(self, name)}")
        if self.runtime not in RUNTIMES:
            raise InputError(f"unknown runtime {self.runtime!r:.40}; planned are: {', '.join(RUNTIMES)}")
        if self.devices > 1:
            self._check_devices()

    def _check_devices(self) -> None:
        if self.site.kind != "gpu":
            raise InputError(f"{self.site.name} is no GPU, so nothing is split over several; name a --site that is one")
        if 1 < self.site.devices < self.devices:
            raise InputError(f"{self.site.name} has {self.site.devices} devices, not {self.devices}; take fewer")
        if self.is_partial or self.gpu_layers == 0:
            raise InputError("several GPUs are planned for models wholly on them; leave --gpu-layers and "
                             "--experts-on-cpu away")  # fmt: skip
        if self.runtime == "llamacpp" and self.tensor_parallel > 1:
            raise InputError("for llama.cpp a split by layers is planned; take --pipeline-parallel "
                             f"{self.devices}, or --runtime vllm")  # fmt: skip

    @property
    def devices(self) -> int:
        """How many of the site's devices serve together."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def is_partial(self) -> bool:
        """Whether a GPU holds some of the weights and its host the others."""
        if not self.on_gpu or self.runtime != "llamacpp":
            return False
        return self.layers_behind > 0 or self.mixtures_behind > 0

    @property
    def layers_behind(self) -> int:
        """Layers that llama.cpp leaves to the processor: the first ones, since the output counts as the last."""
        most = len(self.decoder.layers) + 1
        return 0 if self.gpu_layers is None else max(0, min(most - 1, most - self.gpu_layers))

    @property
    def mixtures_behind(self) -> int:
        """Layers on the GPU whose experts alone lie with the processor."""
        return sum(layer.experts > 0 for layer in self.decoder.layers[self.layers_behind : self.experts_on_cpu])

    @property
    def name(self) -> str:
        """As a candidate is written."""
        return f"{self.scheme}@{self.runtime}" + (f",kv={self.cache}" if self.cache != "f16" else "")

    @property
    def limit(self) -> int | None:
        """Bytes of the memory that binds."""
        if self.on_host and (self.host is not None or self.limit_bytes is None):
            return None if self.host is None else self.host.limit_bytes
        return self.site.limit_bytes if self.limit_bytes is None else self.limit_bytes

    @property
    def on_host(self) -> bool:
        """Whether there is a GPU and nothing of the model on it."""
        return self.site.kind == "gpu" and self.runtime == "llamacpp" and self.gpu_layers == 0

    @property
    def demand(self) -> Demand:
        """What the cache depends on."""
        return Demand(self.context, self.concurrency, self.cache)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU's memory is what binds."""
        return self.site.kind == "gpu" and self.gpu_layers != 0

    @property
    def device(self) -> Device:
        """The one whose memory binds."""
        return "gpu" if self.on_gpu else "cpu"


@dataclass(frozen=True, slots=True)
class Constants:
    """The versions of the runtimes that are planned for, or a user's own as refitted."""

    llamacpp: LlamacppBuild = XLLAMACPP_2026_10
    vllm: VllmVersion = VLLM_0_32

    def vllm_on(self, asked: Deployment) -> VllmVersion:
        """The vLLM that a deployment would run in: with the batches of its device, or the build for processors."""
        site = asked.site
        return self.vllm.on(site.limit_bytes, site.name) if asked.on_gpu else VLLM_0_32_CPU


CONSTANTS = Constants()


def own_constants() -> Constants:
    """The runtimes' figures, as refitted from this user's own logs. Raises InputError where their file is damaged."""
    found = load_refits()
    return Constants(llamacpp_build(found), vllm_version(found))
