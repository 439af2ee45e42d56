"""The last screen: everything a decision needs, at 80 and at 100 columns, without colour."""

from __future__ import annotations

import io
import re

import pytest
from records import bare, blank, brought, priced, undecided

from quantwise.report.terminal import print_screen
from quantwise.testing.sample_record import specimen


def shown(record: dict, width: int = 100, report: str | None = "runs/one/report.html") -> str:
    out = io.StringIO()
    print_screen(record, out, report, width)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_everything_is_on_one_screen(width: int) -> None:
    record = specimen()
    text = shown(record, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= (45 if width == 100 else 55)
    assert "\x1b" not in text
    one_line = " ".join(text.split())
    decision = record["decision"]
    for sentence in [decision["headline"], *decision["because"], *decision["unmeasured"]]:
        assert sentence in one_line
    for row in decision["ruled_out"]:
        assert row["candidate"] in one_line
        assert row["why"] in one_line
    for text_ in (decision["fallback"], decision["rollback"], record["question_hash"], "runs/one/report.html"):
        assert text_ in one_line


@pytest.mark.parametrize("width", [80, 100])
def test_the_matrix_says_each_verdict_in_words(width: int) -> None:
    rows = {
        line.split()[1]: line
        for line in shown(specimen(), width).splitlines()
        if re.match(r"(base|quality|control) ", line)
    }
    gptq = rows["gptq:int4-g64"].split()
    assert gptq[2:10] == ["PASS", "PASS", "PASS", "?", "PASS", "PASS", "PASS", "?"]
    assert gptq[10:] == ["27%", "unknown"]
    assert rows["rtn:int4-tensor"].split()[2:10] == ["FAIL"] * 8
    assert rows["bf16"].split()[2:] == ["97%", "95%", "91%", "82%", "88%", "93%", "90%", "84%", "8.6MiB", "0.034"]
    assert "? = UNKNOWN" in " ".join(shown(specimen(), width).split())


def test_the_same_source_of_two_models_is_two_names() -> None:
    record = specimen()
    rows = [row for row in record["candidates"] if row["source"] == "rtn:int4-g64"]
    record["candidates"] += [dict(rows[0], model=model, name=f"{model}:{rows[0]['name']}") for model in ("a", "b")]
    lines = shown(record).splitlines()
    assert [sum(f" {name} " in line for line in lines) for name in ("a:rtn:int4-g64", "b:rtn:int4-g64")] == [1, 1]


def test_the_shipped_candidate_has_its_numbers() -> None:
    row = next(line for line in shown(specimen()).splitlines() if line.startswith("arithmetic"))
    assert row.split() == ["arithmetic", "PASS", "−0.3", "[−3.1,", "+2.5]", "pp", "5", "pp", "5", "4", "352"]


def test_more_tasks_than_columns_are_counted_and_the_bad_ones_named() -> None:
    record = specimen()
    for copy in range(1, 4):
        record["question"]["tasks"] += [dict(t, name=f"{t['name']}_{copy}") for t in record["question"]["tasks"][:8]]
        record["verdicts"] += [dict(v, task=f"{v['task']}_{copy}") for v in record["verdicts"][:48]]
    text = shown(record, 80)
    assert "gptq:int4-g64    PASS 24, UNKNOWN 8 (arithmetic," in text
    assert "multilingual_3)" in text


def test_the_last_line_is_what_to_do_next_and_a_kept_baseline_is_not_called_shipped() -> None:
    record = specimen() | {"folder": "runs/one"}
    assert shown(record).splitlines()[-1].startswith("next        serve ")
    base = next(c["name"] for c in record["candidates"] if c["baseline"])
    record["decision"] = record["decision"] | {"status": "keep", "ship": base}
    text = shown(record)
    assert text.splitlines()[-1].startswith("next        nothing; other candidates")
    assert sum(line.startswith("KEEP ") for line in text.splitlines()) == 2, "the headline and the row"
    assert "SHIP " not in text


def test_several_models_are_named_by_their_names() -> None:
    record = specimen()
    record["question"] |= {"models": [{"name": "large", "source": "/srv/14b"}, {"name": "small", "source": "/srv/8b"}]}
    assert " · large, small · scenario " in shown(record).splitlines()[0]


def test_what_would_settle_it() -> None:
    text = " ".join(shown(undecided()).split())
    assert text.index("UNKNOWN") < text.index("because")
    assert "rtn:int8-channel@transformers on json_output: about 900 (600 to 1,500) more items" in text
    assert "and 44 more, in the report" in text


@pytest.mark.parametrize("width", [80, 100])
def test_unknown_is_never_a_number(width: int) -> None:
    record = blank(specimen())
    text = shown(record, width)
    matrix = [line for line in text.splitlines() if re.match(r"(base|quality|control|SHIP) +\S+:?\S* ", line)]
    assert len(matrix) >= 7
    assert all(line.split()[-2:] == ["?", "unknown"] for line in matrix)
    assert next(line for line in text.splitlines() if line.startswith("recall")).split()[1:] == ["PASS"] + 6 * [
        "unknown"
    ]
    assert "unknown generations" in text


@pytest.mark.parametrize("width", [40, 80, 100])
@pytest.mark.parametrize("make", [bare, brought, undecided])
def test_poor_records_still_give_a_screen(make: object, width: int) -> None:
    record = make()  # type: ignore[operator]
    text = shown(record, width, None)
    assert record["decision"]["headline"] in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width


def test_brought_names_keep_their_ends() -> None:
    matrix = [line for line in shown(brought(), 80).splitlines() if "1.0GiB" in line or "/v1 " in line]
    assert matrix[0].split() == ["base", "/srv/models/a-rather-long-name-f16.gguf", "·", "1.0GiB", "unknown"]
    assert matrix[1].split() == ["http://127.0.0.1:8080/v1", "PASS", "?", "unknown"]
    assert "f16.gguf" in shown(brought(), 60)


def test_foreign_text_cannot_drive_the_terminal() -> None:
    record = specimen()
    record["decision"]["headline"] = "\x1b[2J[bold red]gone[/] :boom:"
    text = shown(record)
    assert "\x1b" not in text
    assert "[bold red]gone[/] :boom:" in text


def test_a_stream_that_knows_only_ascii() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    print_screen(specimen(), out, None, 100)
    out.flush()
    assert b"[-3.1, +2.5] pp" in raw.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_what_a_solved_item_costs_fits_and_unknown_is_said(width: int) -> None:
    lines = shown(priced(), width).splitlines()
    assert max(map(len, lines)) <= width
    known, unknown = (
        next(line.split() for line in lines if line.startswith(f"{name}@llamacpp ") and "0.001" in line)
        for name in ("q8_0", "q4_0")
    )
    assert known == ["q8_0@llamacpp", "0.00131", "0.001", "1.31", "1.22", "to", "1.41", "30", "%", "2", "%"]
    assert unknown == ["q4_0@llamacpp", "unknown", "0.001", *["unknown"] * 4]
    assert "energy is unknown" in lines
    assert "cost of a solved item" not in shown(specimen(), width)


def test_candidates_of_two_models_are_told_apart() -> None:
    record = brought()
    for row, model in zip(record["candidates"], ("big", "small"), strict=True):
        row.update(source="int8-channel", model=model, name=f"{model}:int8-channel@{row['runtime']}")
    text = shown(record)
    assert "big:int8-channel " in text
    assert "small:int8-channel " in text


@pytest.mark.parametrize(
    "why",
    [
        "UNKNOWN on code (about 300 more items, 100 to 900)",
        "UNKNOWN whether at the floor: code, about 90 more items",
        "UNKNOWN what a solved item costs (it takes two blocks of items), and the budget is 0.01 EUR",
        "UNKNOWN whether within the budget: a solved item costs 0.009 EUR (0.008 to 0.011), the budget is 0.01",
        "UNKNOWN whether fast enough: its p95 is unknown",
        "UNKNOWN, because its server is away (refused); run the same command when it answers again",
    ],
)
def test_what_more_items_might_settle_is_not_called_ruled_out(why: str) -> None:
    record = specimen()
    record["decision"]["ruled_out"] = [
        {"candidate": "q4_0@llamacpp", "why": "FAIL on code"},
        {"candidate": "q8_0@llamacpp", "why": why},
    ]
    lines = shown(record).splitlines()
    assert [line for line in lines if line.startswith("ruled out")] == ["ruled out   q4_0@llamacpp  FAIL on code"]
    assert [line.split()[2] for line in lines if line.startswith("still open")] == ["q8_0@llamacpp"]


@pytest.mark.parametrize(
    ("meters", "said"), [(["gpu"], "NVIDIA GPUs of this machine alone"), (["cpu"], "no NVIDIA GPU")]
)
def test_whose_energy_it_is_is_said(meters: list[str], said: str) -> None:
    assert said in " ".join(shown(specimen() | {"energy_meters": meters}).split())
    assert "joules are those of" not in shown(specimen())


def test_what_a_server_counted_of_its_cache_is_said_for_each_arm_that_has_it() -> None:
    record = specimen()
    assert "prefix caching" not in shown(record)
    counted = {"blocks": 4096, "block_tokens": 16, "most_blocks_seen": 812, "prefix_caching": True}
    record["candidates"][0]["cache_use"] = counted | {"prefix_cache_hit_rate": 0.375, "preemptions": 2}
    record["candidates"][1]["cache_use"] = dict.fromkeys(counted) | {"prefix_caching": False}
    told = " ".join(shown(record).split())
    name, other = (row["name"] for row in record["candidates"][:2])
    assert (
        f"cache {name} at most 812 of 4,096 blocks of 16 tokens seen in use, prefix caching on, 37.5 % of prompt "
        "tokens found there, requests preempted 2"
    ) in told
    assert (
        f"{other} at most unknown of unknown blocks of unknown tokens seen in use, prefix caching off, requests "
        "preempted unknown"
    ) in told
