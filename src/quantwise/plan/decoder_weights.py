"""What a decoder's weights take in a scheme: the nominal figure that everybody quotes, and the bytes that are there.

raw        parameters * bits of a code / 8: the folklore (7B in 4 bit: 3.5 GB)
effective  every tensor as stored: codes, scales, zero points, padding, and what stays in 16 or 32 bit
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from quantwise.models.decoder import Decoder
from quantwise.models.tensor_table import TensorTable
from quantwise.plan.gguf_names import GgufTable
from quantwise.plan.weight_scheme import WeightScheme, parse_weight_scheme
from quantwise.plan.weight_table import StoredTensor, in_gguf, known_layout, weight_table

_EMBEDDINGS = ("token_embd.weight", "embed_tokens.weight", "embed_in.weight", "word_embeddings.weight",
               "embeddings.weight")  # fmt: skip
# Tables of which a token reads one row besides.
_POSITIONS = ("embed_positions.weight", "position_embd.weight", "embed_tokens_per_layer.weight",
              "per_layer_token_embd.weight")  # fmt: skip
_UNQUANTIZED = ("f32", "f16", "bf16", "16bit")


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes, and counts of parameters. ``raw`` and ``effective`` as above (``raw`` None where files say no bits).

    ``unquantized`` is what of ``effective`` stays in 16 or 32 bit. ``active_parameters`` are those that a token passes
    through, ``active`` the bytes that decoding one token reads: of experts those used, of an embedding a row.
    ``second_copy`` is what llama.cpp keeps besides when the output matrix is the embedding and its layers are
    offloaded: the matrix again, on the device that computes the output (src/llama-model.cpp, 2026). ``exact`` tells
    whether names and types were held against files of the tool that writes the format; ``source`` says what is counted.
    """

    scheme: str
    parameters: int
    active_parameters: int
    raw: int | None
    effective: int
    unquantized: int
    active: int
    second_copy: int
    exact: bool
    source: str

    @property
    def bits_per_weight(self) -> float:
        """Of ``effective``."""
        return 8 * self.effective / max(self.parameters, 1)


def raw_bytes(parameters: int, bits: float) -> int:
    """Bytes of ``parameters`` codes of ``bits`` bits and nothing else, rounded up."""
    return math.ceil(parameters * Fraction(bits).limit_denominator(1000) / 8)


def decoder_weights(
    decoder: Decoder,
    scheme: str | WeightScheme,
    *,
    rope_factors: int = 0,
    names: GgufTable | None = None,
    table: Sequence[StoredTensor] | None = None,
) -> Weights:
    """The weights of a decoder in a scheme; ``names`` and errors as of ``weight_table``, whose ``table`` is spared
    where it is known.
    """
    wanted = parse_weight_scheme(scheme) if isinstance(scheme, str) else scheme
    table = weight_table(decoder, wanted, rope_factors=rope_factors, names=names) if table is None else table
    in_file = in_gguf(wanted)
    tensors = TensorTable.of(decoder.tensors)
    parameters = tensors.numbers
    embedding = next((t for t in table if t.name.endswith(_EMBEDDINGS)), None)
    in_ggml = in_file or any(tensor.name.startswith("blk.") for tensor in table)
    second = embedding.bytes if embedding is not None and decoder.tied and in_ggml else 0
    return Weights(
        scheme=wanted.name,
        parameters=parameters,
        active_parameters=_active(decoder, [(row.name, row.shape, row.numbers) for row in tensors.rows]),
        raw=None if wanted.kind == "as stored" else raw_bytes(parameters, wanted.bits),
        effective=sum(tensor.bytes for tensor in table),
        unquantized=sum(tensor.bytes for tensor in table if tensor.type in _UNQUANTIZED),
        active=_active(decoder, [(tensor.name, tensor.shape, tensor.bytes) for tensor in table]),
        second_copy=second,
        exact=_exact(decoder, wanted),
        source=_source(wanted, in_file=in_file),
    )


def _exact(decoder: Decoder, wanted: WeightScheme) -> bool:
    if wanted.kind == "mix" or (wanted.recipe is not None and wanted.recipe.scheme.name != "16bit"):
        return known_layout(decoder)
    return wanted.kind != "uniform"


def _active(decoder: Decoder, table: Sequence[tuple[str, tuple[int, ...], int]]) -> int:
    """The sum over what one token reads of names, shapes, and amounts: bytes, or parameters."""
    whole = experts = 0
    rows = Fraction(0)
    for name, shape, amount in table:
        if _of_expert(name):
            experts += amount
        elif name.endswith(_POSITIONS) or (name.endswith(_EMBEDDINGS) and not decoder.tied):
            rows += Fraction(amount, max(shape[0], 1))
        else:
            whole += amount
    mixed = next((layer for layer in decoder.layers if layer.experts), None)
    share = Fraction(mixed.experts_used, mixed.experts) if mixed is not None else Fraction(1)
    return whole + math.ceil(rows + share * experts)


def _of_expert(name: str) -> bool:
    return ".experts." in name or "_exps." in name or ("block_sparse_moe." in name and "_linear." in name)


def _source(wanted: WeightScheme, *, in_file: bool) -> str:
    if wanted.kind == "as stored":
        return "headers of the files"
    if wanted.kind == "uniform":
        return (
            f"one ggml type for all matrices ({wanted.ggml}, ggml-common.h); files of llama-quantize mix and are larger"
        )
    if in_file:
        return "types as llama-quantize assigns them (src/llama-quant.cpp, 2026), vectors in f32"
    if wanted.kind == "mxfp4-experts":
        return "experts in OCP MXFP4, 17 bytes for 32 weights, the rest in 16 bit"
    if wanted.recipe is not None and wanted.recipe.scheme.kind != "float":
        return f"the layout of {wanted.recipe.scheme.format}; embeddings, output matrix, norms and routers in 16 bit"
    return "every tensor in one type"
