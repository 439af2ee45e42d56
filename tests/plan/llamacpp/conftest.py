from __future__ import annotations

import sys
from pathlib import Path

# The program that makes docs/plan-llamacpp.md, whose cases are tested here.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
