"""A model folder says what it holds without reading it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from quantwise.core.errors import InputError
from quantwise.formats.safetensors_folder import ModelFolder, require_finite


def test_what_is_in_a_folder_is_known_from_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"a.weight": torch.ones(2, 2), "a.bias": torch.ones(2).half()}, tmp_path / "model.safetensors")
    folder = ModelFolder(tmp_path)
    assert folder.is_wider
    monkeypatch.setattr(ModelFolder, "__getitem__", lambda *_: pytest.fail("a tensor was read"))
    assert "a.weight" in folder
    assert "b.weight" not in folder
    assert set(folder) == {"a.weight", "a.bias"}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_none_is_named(value: float) -> None:
    require_finite("whole", torch.tensor([1, 2]))
    require_finite("finite", torch.tensor([1.0, 65504.0]).half())
    with pytest.raises(InputError, match="tensor 'layer' holds NaN or infinite values"):
        require_finite("layer", torch.tensor([1.0, value]).bfloat16())
