"""The web page: complete, self-contained, escaped, and honest about what is unknown."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from records import bare, blank, brought, priced, undecided

from quantwise.cli.main import main
from quantwise.report.page import render
from quantwise.stats.compare import compare_differences
from quantwise.stats.differences import Differences
from quantwise.testing.sample_record import TASKS, specimen, specimen_flips

VOID = {"meta", "link", "br", "hr", "img", "input"}
SHAPES = {"line", "rect", "circle", "path"}
LOADS = {"src", "href", "srcset", "action", "formaction", "poster", "data", "xlink:href", "background", "ping"}


class Page(HTMLParser):
    """Tags, attributes, and the text of number cells; complains about what is not nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self._in_number = False
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag == "td" and "num" in (dict(attrs).get("class") or ""):
            self._in_number = True
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHAPES
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag
        if tag == "td":
            self._in_number = False

    def handle_data(self, data: str) -> None:
        if self._in_number:
            self.cells[-1] += data
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(specimen(), specimen_flips()))


def test_the_decision_stands_first(page: Page) -> None:
    decision = specimen()["decision"]
    tags = [tag for tag, _ in page.seen]
    assert tags.count("h1") == 1
    assert decision["headline"] in page.text
    assert page.text.index(decision["headline"]) < page.text.index("Quality and bytes")
    for sentence in [*decision["because"], *decision["unmeasured"], decision["fallback"], decision["rollback"]]:
        assert sentence in page.text
    for row in decision["ruled_out"]:
        assert row["why"] in page.text


def test_every_verdict_appears_with_mark_and_word(page: Page) -> None:
    record = specimen()
    for verdict, mark in (("PASS", "✓"), ("FAIL", "✗"), ("UNKNOWN", "?")):
        rows = sum(row["verdict"] == verdict for row in record["verdicts"])
        overall = sum((row["overall"] or {}).get("verdict") == verdict for row in record["candidates"])
        assert page.text.count(f"{mark} {verdict}") == 2 * rows + overall
    for task, summary in TASKS.items():
        assert f"{task} {summary}" in page.text
    assert "about 900 (600 to 1,500) more items" in page.text


def test_every_section_of_the_contents_exists(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in page.seen if tag == "a"]
    assert len(links) >= 7
    assert {str(link)[1:] for link in links} <= set(ids)


def test_checks_degradations_and_machine_are_there(page: Page) -> None:
    for text in ("Cholesky failed; damping raised from 1 % to 10 %", "kept in 16 bit because", "2026.1", "8.00 GiB",
                 specimen()["question_hash"], '"rule": "bonferroni"', "Noise floor", "quantwise measure RUN --more N",
                 "--regressions 1 --improvements 1 --items 256 --margin 0.05"):  # fmt: skip
        assert text in page.text


@pytest.mark.parametrize("make", [specimen, undecided, brought, bare])
def test_nothing_is_requested_from_anywhere(make: object) -> None:
    html = render(make(), specimen_flips())  # type: ignore[operator]
    page = Page(html)
    for tag, attrs in page.seen:
        assert tag not in {"img", "link", "iframe", "object", "embed", "video", "audio", "base", "use", "image"}
        for name, value in attrs.items():
            assert name not in LOADS or str(value).startswith("#"), (tag, name, value)
            assert name != "style"
            assert not name.startswith("on")
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    script = re.search(r"<script>(.*?)</script>", html, re.S)
    assert style is not None
    assert script is not None
    assert not re.search(r"url\(|@import|https?:", style[1])
    assert not re.search(r"fetch|XMLHttp|import\(|https?:|innerHTML|eval", script[1])
    assert "default-src 'none'" in html


def test_without_urls_of_the_user_there_is_no_url_at_all() -> None:
    assert not re.search(r"https?://", render(specimen(), specimen_flips()))


def test_strangers_text_is_only_ever_text() -> None:
    evil = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x00\x1b\u202e\ud800"
    flips = [{key: evil if isinstance(value, str) else value for key, value in specimen_flips()[0].items()}]

    def poison(value: object) -> object:
        if isinstance(value, dict):
            return {key: poison(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [poison(inner) for inner in value]
        return value + evil if isinstance(value, str) and value not in ("PASS", "FAIL", "UNKNOWN") else value

    html = render(poison(specimen()), flips)  # type: ignore[arg-type]
    page = Page(html)
    assert [tag for tag, _ in page.seen].count("script") == 1
    assert not [tag for tag, attrs in page.seen if tag == "img" or any(name.startswith("on") for name in attrs)]
    assert not re.search("[\x00\x1b\u202e]", html)
    html.encode("utf-8")
    assert "<script>alert(1)</script>" in page.text


def test_what_is_unknown_is_never_a_zero() -> None:
    page = Page(render(blank(specimen()), []))
    assert len(page.cells) > 300
    stray = {cell.strip() for cell in page.cells} - {"unknown", "unknown, unknown", "–"}
    assert not stray
    assert "unknown generations" in page.text


def test_unknown_does_not_hide_what_is_zero() -> None:
    record = specimen()
    record["noise"] = [
        {"runtime": "r", "task": "t", "n": 64, "flips": 0},
        {"runtime": "r", "task": "u", "n": 0, "flips": None},
    ]
    cells = [cell.strip() for cell in Page(render(record, [])).cells]
    start = cells.index("64", len(cells) - 60)
    assert cells[start : start + 4] == ["64", "0", "0", "unknown"]


@pytest.mark.parametrize("make", [undecided, brought, bare])
def test_poor_records_still_give_a_page(make: object) -> None:
    record = make()  # type: ignore[operator]
    page = Page(render(record))
    assert record["decision"]["headline"] in page.text
    assert "No flip was recorded." in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.lower().replace("finance", "")


def test_what_would_settle_it_comes_before_the_numbers() -> None:
    text = Page(render(undecided())).text
    assert text.index("What would settle it") < text.index("Figure 1.")


def test_flips_beyond_the_limit_are_counted_out_loud() -> None:
    flips = [dict(specimen_flips()[k % 12], item=str(k)) for k in range(1000)]
    page = Page(render(specimen(), flips))
    assert sum(tag == "article" for tag, _ in page.seen) == 400
    assert "carries 400 of 1,000" in page.text
    assert "600 were left out" in page.text


def test_a_new_verdict_task_is_not_hidden() -> None:
    record = specimen()
    record["verdicts"].append(dict(record["verdicts"][0], task="surprise"))
    assert "surprise" in Page(render(record)).text


def test_reports_change_nothing() -> None:
    record = specimen()
    render(record, specimen_flips())
    assert record == specimen()


def test_what_a_solved_item_costs_stands_in_a_table_of_its_own(page: Page) -> None:
    found = Page(render(priced()))
    assert found.open == []
    assert "Table 6. Cost of a solved item, in EUR: an hour of the machine costs 3.6" in found.text
    assert "asked again up to 2 times; of what is left 25.0 % goes to a person at 0.6 each" in found.text
    for text in ("0.00131", "0.0012 to 0.0014", "1.31", "1.22 to 1.41", "30.0 %", "Energy is unknown."):
        assert text in found.text
    assert "Cost of a solved item" not in page.text


def test_the_command_that_checks_a_row_gives_its_e_values(capsys: pytest.CaptureFixture[str]) -> None:
    """Right-or-wrong items count alike in any order, so that the counts of the row say it all."""
    record = specimen()
    seen = compare_differences(Differences.of_counts(12, 8, 1000), 0.01)
    record["verdicts"] = [
        {**record["verdicts"][0], "regressions": 12, "improvements": 8, "n": 1000, "margin": 0.01, "z": seen.z,
         "e_pass": seen.e_pass, "e_fail": seen.e_fail, "missing": 0}
    ]  # fmt: skip
    found = re.search(r"<code>quantwise (verdict [^<]*)</code>", render(record))
    assert found is not None
    assert main([*found[1].split(), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["e_pass"], told["e_fail"]) == (seen.e_pass, seen.e_fail)
    assert told["pass_threshold"] == record["question"]["multiplicity"]["m"] / 0.05
    for unclear in ({"z": None}, {"missing": 3}):  # graded scores, lost items: counts do not say it all
        record["verdicts"][0] |= unclear
        assert "quantwise verdict" not in render(record)


def test_requests_that_failed_are_on_the_page() -> None:
    faults = {"asked": 300, "lost": 7, "refused": 2, "retried": 0, "example": "<b>status 503</b>"}
    record = specimen() | {"faults": [{"candidate": "q4_0@llamacpp"} | faults]}
    shown = Page(render(record)).text
    assert "Requests that failed" in shown
    assert "q4_0@llamacpp 300 7 2 0 <b>status 503</b>" in shown
    calm = specimen() | {"faults": [{"candidate": "x"} | faults | {"lost": 0, "refused": 0}]}
    assert "None of 300 did" in Page(render(calm)).text
    assert "no request was recorded" in Page(render(specimen() | {"faults": []})).text


def test_whose_energy_it_is_stands_above_the_joules() -> None:
    told = Page(render(specimen() | {"energy_meters": ["gpu"]})).text
    assert "Joules are those of NVIDIA GPUs of this machine alone: its processors told nothing." in told
    assert "Joules are unknown: they are metered where" in Page(render(specimen())).text


def test_a_tail_without_end_is_told_from_an_unknown_one() -> None:
    record = specimen()
    row = next(cost for cost in record["costs"] if cost["candidate"] == "q4_0@llamacpp")
    row |= {"p50_seconds": 0.25, "p95_seconds": 1.5, "p99_seconds": None, "p99_seconds_infinite": True}
    row |= {"p50_first_token_seconds": 0.031, "p95_first_token_seconds": None}
    record["question"]["scenario"]["max_p95_seconds"] = 20
    found = Page(render(record))
    assert "q4_0@llamacpp 250 ms 1.50 s ∞ 31 ms unknown" in found.text
    assert "The scenario allows a p95 of 20.0 s." in found.text
    row |= {"p99_over_p50": None, "p99_over_p50_infinite": True}
    assert Page(render(record)).cells.count("∞") == found.cells.count("∞") + 1


def test_what_a_server_counted_of_its_cache_is_on_the_page() -> None:
    record = specimen()
    use = {"blocks": 64, "block_tokens": 16, "most_blocks_seen": 8, "prefix_caching": False, "preemptions": 0}
    record["candidates"][1]["cache_use"] = use | {"prefix_cache_hit_rate": None}
    said = "at most 8 of 64 blocks of 16 tokens seen in use, prefix caching off, requests preempted 0."
    assert f"Paged cache of {record['candidates'][1]['name']} : {said}" in Page(render(record)).text
    assert "Paged cache" not in Page(render(specimen())).text
