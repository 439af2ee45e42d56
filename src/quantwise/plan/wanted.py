"""What was asked of the planner, before a model and a scheme make a deployment of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from quantwise.plan.deployment import Deployment
from quantwise.plan.loadable import not_loaded
from quantwise.plan.model import Model
from quantwise.plan.serving_settings import RuntimeName, ServingSettings
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
    """What is planned of a model where nothing is named: first what it was published in, then of ``SCHEMES`` those that
    the runtime loads and computes on that device.

    A GGUF file is planned as it is, and so is a quantized folder; where it is in a format that other files are made of
    all the same (DeepSeek's FP8, MXFP4), other schemes follow. Transformers keeps MXFP4 packed where triton and the
    package kernels are installed, which is not usual without a GPU, and else expands it to 16 bit (its
    quantizers/quantizer_mxfp4.py).
    """
    if model.is_file or model.is_quantized:
        return ("stored",)
    published = _PUBLISHED.get(model.decoder.architecture, {}).get(runtime)
    own = () if published is None or (runtime == "transformers" and not on_gpu) else (published,)
    if model.form is None and runtime != "llamacpp" and (model.decoder.stored or not own):
        own = ("stored", *own)
    loaded = (s for s in SCHEMES[runtime] if not_loaded(model, s, runtime, on_gpu=on_gpu) is None)
    # Where nothing loads, the first is named, so that its reason is told.
    return (*own, *loaded) or SCHEMES[runtime][:1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted(ServingSettings):
    """What was asked, of any model; ``schemes`` empty takes the usual ones of the runtime.

    ``trace`` is a file of requests, or ``drawn``. ``least_context`` is what members of a family must hold, where that
    was asked for.
    """

    site: Site
    schemes: tuple[str, ...] = ()
    trace: str | None = None
    least_context: int | None = None

    def names(self, model: Model) -> tuple[str, ...]:
        """The schemes that were asked for, or the usual ones of the model."""
        return self.schemes or usual_schemes(model, self.runtime, on_gpu=self.site.kind == "gpu")

    def deployment(self, model: Model, scheme: str) -> Deployment:
        """It, of one model in one scheme."""
        return Deployment(model, self.site, scheme, **{name: getattr(self, name) for name in _SETTINGS})


_SETTINGS = tuple(field.name for field in fields(ServingSettings))
