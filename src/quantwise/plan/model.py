"""A model that many questions are asked about: what they share is counted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from quantwise.core.artifact import FormatName
from quantwise.core.errors import InputError
from quantwise.formats.gguf.header import GgufHeader, read_gguf_header
from quantwise.models.decoder import Decoder
from quantwise.models.tensor_table import TensorTable
from quantwise.plan.constants import LlamacppBuild
from quantwise.plan.decoder_weights import Weights, decoder_weights
from quantwise.plan.described import stored_form
from quantwise.plan.gguf_names import GgufTable, gguf_table
from quantwise.plan.llamacpp.cache import layer_caches
from quantwise.plan.llamacpp.compute import LlamacppCompute, llamacpp_compute
from quantwise.plan.llamacpp.file import FileTensor
from quantwise.plan.llamacpp.model import Blocks, as_llamacpp
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.llamacpp.tally import FileTally, tally
from quantwise.plan.loaded_weights import loaded_tensors
from quantwise.plan.model_source import decoder_of_headers, read_source
from quantwise.plan.parallel import DeviceSplit, split_devices
from quantwise.plan.stored_tensors import Bytes
from quantwise.plan.terms import Device
from quantwise.plan.weight_scheme import parse_weight_scheme
from quantwise.plan.weight_table import StoredTensor, weight_table
from quantwise.plan.work import Work, work_of


class Model:
    """A decoder, and the tensors of its file, in the file's order, where it is a .gguf that is there.

    ``rope_factors`` numbers are stored beside the weights of a GGUF file that is made of it. ``loaded`` is what
    Transformers holds of the files as they are, by device (``plan.stored_tensors``), ``quantization`` what config.json
    says of how they are quantized.
    """

    def __init__(
        self,
        decoder: Decoder,
        file: Sequence[FileTensor] = (),
        rope_factors: int = 0,
        loaded: Mapping[Device, Bytes | None] | None = None,
        quantization: Mapping[str, Any] | None = None,
    ) -> None:
        self.decoder = replace(decoder, tensors=TensorTable.of(decoder.tensors))
        self.quantization = quantization or {}
        self.file, self._rope_factors = tuple(file), rope_factors
        self._loaded_as_stored = loaded or {}
        self._loaded: dict[tuple[str, Device], Bytes] = {}
        self._weights: dict[tuple[str, bool], Weights] = {}
        self._tensors: dict[str, Sequence[StoredTensor]] = {}
        self._stored: dict[tuple[str, bool], Mapping[str, int]] = {}
        self._splits: dict[tuple[str, tuple[int, int], bool, Device | None], DeviceSplit] = {}
        self._tallies: dict[tuple[str, LlamacppBuild], FileTally] = {}
        self._kept: dict[LlamacppSettings, Sequence[int]] = {}
        self._compute: dict[tuple[LlamacppSettings, LlamacppBuild, bool], LlamacppCompute] = {}

    @property
    def is_file(self) -> bool:
        """Whether it can only be taken as it is: a GGUF file is not quantized again."""
        return "token_embd.weight" in self.decoder.tensors

    @property
    def form(self) -> FormatName | None:
        """How its own files are stored; None for a quantization that no runtime's table has."""
        return "gguf" if self.is_file else stored_form(self.quantization)

    @property
    def is_quantized(self) -> bool:
        """Whether it is a quantized folder that can only be taken as it is, as a GGUF file can."""
        return self.form not in ("gguf", "safetensors", None)

    @cached_property
    def work(self) -> Work:
        """Its weights by what a token does with them."""
        return work_of(self.decoder)

    @cached_property
    def _names(self) -> GgufTable:
        return gguf_table(self.decoder)

    @cached_property
    def in_gguf(self) -> Decoder:
        """The decoder as llama.cpp computes it."""
        return as_llamacpp(self.decoder)

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.in_gguf)

    def weights(self, scheme: str, *, in_gguf: bool) -> Weights:
        """Its weights in a scheme. Raises InputError as ``decoder_weights`` does, where llama.cpp runs no such, and for
        any but ``stored`` of a GGUF file.
        """
        if self.is_file and scheme != "stored":
            raise InputError(
                f"{self.decoder.name} is a GGUF file, planned as it is and not in {scheme}: leave --scheme away, or "
                "plan the folder that it was made of"
            )
        if in_gguf and self._in_gguf(scheme) is None:
            raise InputError(f"llama.cpp does not run {scheme}; take a GGUF type such as q4_k_m, or another runtime")
        key = scheme, in_gguf
        if key not in self._weights:
            named = self._in_gguf(scheme) if in_gguf else scheme
            table = self._in_file(scheme) if in_gguf else None
            self._weights[key] = decoder_weights(self.decoder, named or scheme, table=table)
        return self._weights[key]

    def tensors(self, scheme: str) -> Sequence[FileTensor]:
        """The tensors of its GGUF file in a scheme: of the file that is there, or of one that is not written yet."""
        return self.file or self._in_file(scheme)

    def _in_file(self, scheme: str) -> Sequence[StoredTensor]:
        if scheme not in self._tensors:
            wanted = self._in_gguf(scheme) or scheme
            self._tensors[scheme] = weight_table(
                self.decoder, wanted, rope_factors=self._rope_factors, names=self._names
            )
        return self._tensors[scheme]

    def loaded(self, scheme: str, device: Device) -> Bytes:
        """Bytes of each tensor as Transformers holds it on a device. Raises InputError as ``weight_table`` does, and
        where a quantized folder does not say how many bits it has.
        """
        key = scheme, device
        if key not in self._loaded:
            found = self._loaded_as_stored.get(device, {}) if scheme == "stored" else {}
            if found is None:
                raise InputError(
                    f"the quantization_config of {self.decoder.name} names no number of bits, so what Transformers "
                    "holds of it is unknown; give the folder in 16 bit"
                )
            self._loaded[key] = found or loaded_tensors(self.decoder, scheme, device)
        return self._loaded[key]

    def stored(self, scheme: str, *, in_gguf: bool) -> Mapping[str, int]:
        """The bytes of each tensor in a GGUF file or a folder of a scheme; of all experts by the first one's name."""
        key = scheme, in_gguf
        if key not in self._stored:
            table = self.tensors(scheme) if in_gguf else weight_table(self.decoder, scheme)
            self._stored[key] = {tensor.name: tensor.bytes for tensor in table}
        return self._stored[key]

    def split(
        self, scheme: str, devices: tuple[int, int], *, in_gguf: bool, loaded: Device | None = None
    ) -> DeviceSplit:
        """Over (tensor, pipeline) parallel devices, as stored or as Transformers has it ``loaded`` there.

        Raises InputError where heads or layers do not split so.
        """
        key = scheme, devices, in_gguf, loaded
        if key not in self._splits:
            decoder = self.in_gguf if in_gguf else self.decoder
            held = self.stored(scheme, in_gguf=in_gguf) if loaded is None else self.loaded(scheme, loaded)
            self._splits[key] = split_devices(decoder, held, *devices)
        return self._splits[key]

    def tally(self, scheme: str, build: LlamacppBuild) -> FileTally:
        """The sums of ``tensors`` by layer."""
        key = scheme, build
        if key not in self._tallies:
            self._tallies[key] = tally(self.in_gguf, self.tensors(scheme), build)
        return self._tallies[key]

    def kept(self, settings: LlamacppSettings) -> Sequence[int]:
        """Bytes of llama.cpp's cache by layer, wherever layers lie. Raises InputError as the cache does."""
        key = replace(settings, gpu_layers=0, experts_on_cpu=0)
        if key not in self._kept:
            self._kept[key] = [sum(layer) for layer in layer_caches(self.in_gguf, key)]
        return self._kept[key]

    def compute(self, settings: LlamacppSettings, build: LlamacppBuild) -> LlamacppCompute:
        """llama.cpp's buffers, which do not depend on how many layers lie where."""
        gpu = settings.gpu_layers > 0
        key = replace(settings, gpu_layers=0, experts_on_cpu=0), build, gpu
        if key not in self._compute:
            self._compute[key] = llamacpp_compute(self.in_gguf, key[0], build, blocks=self._blocks, gpu=gpu)
        return self._compute[key]

    def _in_gguf(self, scheme: str) -> str | None:
        """The name of a scheme in a GGUF file, where 16 bit is f16; None where no such file is made."""
        wanted = parse_weight_scheme("f16" if scheme == "16bit" else scheme)
        if wanted.kind == "recipe" and wanted.recipe is not None and wanted.recipe.scheme.format != "gguf":
            return None
        return None if wanted.kind in ("float32", "mxfp4-experts") else wanted.name


def find_model(text: str) -> Model:
    """Whatever a person calls a model. Raises InputError where it names none or a file is damaged."""
    found = read_source(text)
    if found.file is None:
        return Model(found.decoder, (), found.rope_factors, found.loaded, found.quantization)
    header = read_gguf_header(found.file, part=True)
    # Of a file in parts the tensors of the first alone would be too few.
    return Model(found.decoder, header.tensors if len(header.tensors) == len(found.decoder.tensors) else ())


def model_of_file(header: GgufHeader) -> Model:
    """The model in a .gguf file that is whole. Raises InputError where it is of no decoder."""
    return Model(decoder_of_headers([header], header.path), header.tensors)
