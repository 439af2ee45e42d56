"""Fixtures for every room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Loaded machines miss deadlines, and a suite that changes from run to run cannot be believed.
settings.register_profile("quantwise", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("quantwise")
# Nothing here measures speed, and suites share their cores: there, threads that spin while they wait cost most.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data that others made (see its README). Where it is missing a test skips, in CI it fails."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("QUANTWISE_DATA") or root.parent / "shared" / "data")
    if not folder.is_dir():
        reason = f"{folder} is not there; set QUANTWISE_DATA to the folder that holds models/, tasks/ and text/"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
