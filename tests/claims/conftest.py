"""The reference model with outlier channels."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantwise.testing.outlier_model import write_outlier_model


@pytest.fixture(scope="session")
def outlier_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_outlier_model(tmp_path_factory.mktemp("outlier") / "model")
