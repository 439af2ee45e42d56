"""What a recipe says of itself, that it needs texts, is what its parts read: a verb gathers texts by the one alone."""

import pytest

from quantwise.build.storage import storage_for
from quantwise.core.recipe import parse_recipe
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.models import reference
from quantwise.quantize import QUANTIZERS
from quantwise.transform import TRANSFORMS

RECIPES = ["16bit", "rtn:int4-g64", "gptq:int4-g64", "imatrix:int3-g64", "awq+rtn:int4-g64", "smoothquant+rtn:w8a8",
           "w8a8", "w8a8-static", "fp8", "fp8-static", "fp8-weights", "nf4", "nf4-dq", "llm-int8", "gptq:q4_k_m",
           "imatrix:q4_k_m", "awq+rtn:q4_0"]  # fmt: skip


@pytest.mark.parametrize("text", RECIPES)
def test_reads_data(text: str) -> None:
    recipe = parse_recipe(text)
    read: frozenset[str] = frozenset().union(*(TRANSFORMS[name]().needs for name in recipe.transforms))
    if recipe.quantizer is not None:
        storage = storage_for(recipe, ModelFolder(reference.path()))
        read = read.union(QUANTIZERS[recipe.quantizer]().needs, storage.needs)
    assert recipe.reads_data == bool(read)
