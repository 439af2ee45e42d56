"""Task suites, scorers and readers: what is asked, and how an answer is scored."""

from __future__ import annotations

from quantwise.tasks import (
    arithmetic,
    classification,
    code,
    extraction,
    instructions,
    json_output,
    multilingual,
    recall,
)
from quantwise.tasks.suite import Suite

SUITES: tuple[Suite, ...] = (
    json_output.SUITE,
    extraction.SUITE,
    classification.SUITE,
    arithmetic.SUITE,
    code.SUITE,
    recall.SUITE,
    instructions.SUITE,
    multilingual.SUITE,
)
