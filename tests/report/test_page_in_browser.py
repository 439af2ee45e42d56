"""The page in a real browser, from a file and without a network: no errors, its own script runs, strangers' do not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from quantwise.report.page import render
from quantwise.testing.sample_record import specimen, specimen_flips

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip("no /usr/bin/chromium here (Debian: apt-get install chromium)", allow_module_level=True)

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--enable-logging=stderr", "--virtual-time-budget=2000",
]  # fmt: skip
DARK, LIGHT = 0, 1


def dump(page: Path, scheme: int, profile: Path) -> tuple[str, list[str]]:
    """The document after its script has run, and every line on the console."""
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9"]
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, *offline, f"--user-data-dir={profile}",
         f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_no_error_and_the_filter_works(tmp_path: Path, scheme: int) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(specimen(), specimen_flips()), encoding="utf-8")
    dom, console = dump(page, scheme, tmp_path / "profile")
    assert console == []
    assert 'data-ready="yes"' in dom
    assert "12 of the 12 flips on this page" in dom
    assert '<form id="flip-filter">' in dom


def test_the_policy_stops_what_escaping_would_have_missed(tmp_path: Path) -> None:
    html = render(specimen(), specimen_flips()).replace(
        "</main>", "<script>document.documentElement.dataset.owned = 'yes'</script><img src=x onerror=alert(1)></main>"
    )
    page = tmp_path / "report.html"
    page.write_text(html, encoding="utf-8")
    dom, console = dump(page, LIGHT, tmp_path / "profile")
    assert 'data-owned="yes"' not in dom
    assert 'data-ready="yes"' in dom
    assert any("Content Security Policy" in line for line in console)
