"""What Transformers holds of a model's weights in a scheme, tensor by tensor: packed, or expanded to 16 bit."""

from __future__ import annotations

from quantwise.core.scheme import Scheme
from quantwise.models.decoder import Decoder
from quantwise.models.tensor_table import TensorTable
from quantwise.plan.layer_bytes import (
    LayerBytes,
    held_layer_bytes,
    is_packed,
    packed_layer_bytes,
    stored_layer_bytes,
)
from quantwise.plan.stored_tensors import WITH_KERNELS, Bytes
from quantwise.plan.terms import Device
from quantwise.plan.weight_scheme import parse_weight_scheme
from quantwise.plan.weight_table import folder_table, in_gguf, weight_table


def loaded_tensors(decoder: Decoder, scheme: str, device: Device) -> Bytes:
    """Bytes by name; which formats are packed or expanded on which device: ``plan.stored_tensors``.

    Raises InputError as ``weight_table`` does.
    """
    wanted = parse_weight_scheme(scheme)
    if wanted.recipe is None or in_gguf(wanted):
        return {tensor.name: tensor.bytes for tensor in weight_table(decoder, wanted)}
    own = wanted.recipe.scheme
    table = folder_table(TensorTable.of(decoder.tensors).rows, own, layer_held(decoder, own, device))
    return {tensor.name: tensor.bytes for tensor in table}


def layer_held(decoder: Decoder, scheme: Scheme, device: Device) -> LayerBytes:
    """What Transformers holds of each quantized matrix of a scheme on a device."""
    if device == "gpu":
        return stored_layer_bytes if scheme.format in WITH_KERNELS else held_layer_bytes
    mixture = any(layer.experts for layer in decoder.layers)
    return packed_layer_bytes if is_packed(scheme) and not mixture else held_layer_bytes
