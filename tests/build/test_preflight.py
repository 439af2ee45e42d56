"""What a recipe would do to a model, told from headers: names alone say what the module tree says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import CONFIGS, write_tiny

from quantwise.build.architectures import ARCHITECTURES
from quantwise.build.preflight import check_recipes, linear_by_name
from quantwise.build.skeleton import Skeleton
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.formats.safetensors_folder import ModelFolder

MIXTURES = {kind for kind, architecture in ARCHITECTURES.items() if architecture.experts}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write_tiny(folder, "llama", intermediate_size=96)
    return folder


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind in CONFIGS or kind == "llama"])
def test_names_tell_what_the_tree_tells(kind: str, tmp_path: Path) -> None:
    write_tiny(tmp_path, kind)
    source = ModelFolder(tmp_path)
    told = linear_by_name(source.config, source.entries)
    if kind in MIXTURES:
        assert told is None
        return
    skeleton = Skeleton(source)
    tree = {
        skeleton.stored_name(f"{name}.weight").removesuffix(".weight")
        for index in range(len(skeleton.blocks))
        for name in skeleton.linear_layers(index)
    }
    assert told is not None
    assert set(told) == tree
    assert len(told) == len(tree)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"model_type": "qwen9"}])
def test_a_config_of_another_model_is_left_to_the_tree(llama: Path, change: dict[str, object]) -> None:
    source = ModelFolder(llama)
    assert linear_by_name(source.config, source.entries) is not None
    assert linear_by_name(source.config | change, source.entries) is None
    odd = {"model.layers.0.mlp.odd.weight": next(iter(source.entries.values()))}
    assert linear_by_name(source.config, source.entries | odd) is None


def test_layers_that_stay_in_16_bit_are_told_and_idle_recipes_refused(llama: Path) -> None:
    recipes = [parse_recipe(text) for text in ("int4-g64", "int4-g32", "16bit", "gptq:q4_0", "auto:4bpw")]
    assert check_recipes(llama, recipes) == {
        "rtn:int4-g64": "2 of 14 matrices: rows of 96 are no multiple of 64: left in 16 bit"
    }
    with pytest.raises(InputError, match=r"gptq:int4-g128 would change nothing in .*: rows of (64|96) are no multiple"):
        check_recipes(llama, [parse_recipe("gptq:int4-g128")])


def test_an_unknown_family_is_refused_by_the_tree(llama: Path, tmp_path: Path) -> None:
    for file in llama.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((llama / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(InputError, match=r"has no tensor model\.layers\.2.*config.json is of another model"):
        check_recipes(tmp_path, [parse_recipe("int4-g32")])


def test_names_alone_load_no_torch(llama: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom quantwise.core.recipe import parse_recipe\n"
        "from quantwise.build.preflight import check_recipes\n"
        f"check_recipes(Path({str(llama)!r}), [parse_recipe('gptq:int4-g32'), parse_recipe('q4_k_m')])\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
