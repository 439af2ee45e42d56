"""The table of cache types on narrow and wide screens."""

from __future__ import annotations

import io
from typing import Any

import pytest

from quantwise.report.cache_table import HEADS, print_options


def option(cache: str, first: bool) -> dict[str, Any]:
    told = {
        "comparison": {"delta": -0.0417},
        "verdict": "UNKNOWN",
        "explanation": "too few texts",
        "n_more": (22, 682, 2000),
    }
    return {
        "name": cache, "cache": cache, "flash_attention": True, "cache_bytes": 1114112, "cache_share": 0.53,
        "as_planned": True, "compute_bytes": 8451522, "recall": 0.625, "verdict": None if first else told,
        "divergence": None if first else {"mean_kl": 1.9e-4, "p99_kl": 4.2e-3, "same_top": 0.996},
        "read_tokens_per_s": 4112.4, "written_tokens_per_s": 343.0, "texts": 8, "lost": 0 if first else 3,
        "read_ratio": None if first else {"value": 0.59, "low": 0.52, "high": 0.66},
        "written_ratio": None if first else {"value": 1.55, "low": 0.94, "high": 2.56},
    }  # fmt: skip


def printed(width: int | None, encoding: str = "utf-8") -> list[str]:
    record = {
        "model": "m.gguf", "context": 1024, "runtime": "llamacpp", "baseline": "f16", "text_tokens": 967.0,
        "questions": 3, "margin": 0.05, "options": [option("f16", True), option("q8_0/q4_0", False)],
    }  # fmt: skip
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_options(record, out, width)
    out.seek(0)
    return out.read().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_no_cell_is_folded_and_every_part_names_its_options(width: int) -> None:
    said = printed(width)
    table = said[1 : said.index(next(line for line in said if line.startswith("8 texts")))]
    assert max(map(len, table)) <= width
    heads = [line for line in table if line.startswith("cache ")]
    assert len(table) == 3 * len(heads)
    assert sum(line.startswith("q8_0/q4_0  flash") for line in table) == len(heads)
    assert "   ".join(heads).count("of the first") == 2
    for head, _ in HEADS:
        assert any(head in line for line in heads)


def test_the_last_line_says_how_many_texts_would_settle_what_is_open() -> None:
    assert printed(160)[-1] == "next: the same command with --documents 688 goes on from here"


def test_all_stands_beside_each_other_where_it_fits() -> None:
    assert sum(line.startswith("cache ") for line in printed(200)) == 1
    assert sum(line.startswith("cache ") for line in printed(80)) > 1


def test_a_file_gets_no_more_columns_than_from_other_verbs() -> None:
    table = [line for line in printed(None) if not line.startswith(("m.gguf", "8 texts", "q8_0/q4_0:"))]
    assert 80 < max(map(len, table)) <= 100


def test_what_an_encoding_lacks_is_written_plainly() -> None:
    assert any("−4.2 pp" in line for line in printed(100))
    assert any("-4.2 pp" in line for line in printed(100, "ascii"))
