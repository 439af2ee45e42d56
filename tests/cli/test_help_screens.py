"""Every help screen on a terminal of 80 columns."""

from __future__ import annotations

import pytest

from quantwise.cli.main import VERBS, main

ASKED = [(verb,) for verb in VERBS] + [("evidence", "export"), ("evidence", "import"), ()]


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_help_fits_80_columns(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []
