"""How threads wait is the user's choice: it decides how fast they are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

READ = "import quantwise.cli.main, os; print(repr(os.environ.get('OMP_WAIT_POLICY')))"


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_the_command_line_leaves_the_waiting_of_threads_alone(given: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(given)
