"""The decoders whose tensors follow from their config.json, as data.

Names are those of the published folders, which Transformers 5 writes too; sizes and defaults those of its model files
(src/transformers/models/*/). Each family is checked against a folder that Transformers wrote of a tiny model of it.
A vision or audio part beside the decoder is not described here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from quantwise.models.dense_families import DENSE
from quantwise.models.family import Family
from quantwise.models.mixed_families import MIXED
from quantwise.models.stateful_families import STATEFUL

FAMILIES: Mapping[str, Family] = MappingProxyType({**DENSE, **MIXED, **STATEFUL})
