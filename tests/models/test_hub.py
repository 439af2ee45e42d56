"""Models on a hub, through the real huggingface_hub client against a server on loopback."""

from __future__ import annotations

import json
import struct
import sys
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import COMMIT, Hub, serve

from quantwise import fetch, stand_in, workbench
from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.progress import Silent
from quantwise.core.recipe import parse_recipe
from quantwise.formats.content_hash import content_hash
from quantwise.formats.gguf.header_end import gguf_header_end
from quantwise.models import hub as client
from quantwise.models import reference
from quantwise.models.hub import HubName, download, first_bytes, hub_name, select
from quantwise.plan.model_source import read_decoder, read_source
from quantwise.planning import PlanRequest, plan
from quantwise.question import pose, propose
from quantwise.question.brought import describe
from quantwise.question.request import Request
from quantwise.tasks.calibration import CalibrationSet

FOLDER, GGUF = "someone/small-model", "someone/small-model-GGUF"
FILE = f"{GGUF}:*Q8_0*"


def fetched(request: Request, tell: fetch.Tell = lambda line: None) -> Request:
    """As the workbench does it."""
    return fetch.fetched(request, stand_in.fits, tell)


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from quantwise.build.walk import build

    made = build(reference.path(), [parse_recipe("q8_0")], [], tmp_path_factory.mktemp("hub"))
    found = Path(made[0].location)
    return next(found.glob("*.gguf")) if found.is_dir() else found


@pytest.fixture
def hub(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    note = tmp_path / "README.md"
    note.write_text("# a card")
    folder = {f.name: f for f in reference.path().iterdir() if f.suffix in (".json", ".safetensors")}
    folder |= {"README.md": note, "pytorch_model.bin": note, "original/consolidated.safetensors": note}
    files = {"model-Q8_0.gguf": gguf, "model-Q4_0.gguf": gguf, "deep/model-Q5_K_M.gguf": gguf, "README.md": note}
    parts = {"big-Q8_0-00001-of-00002.gguf": gguf, "big-Q8_0-00002-of-00002.gguf": gguf}
    repos = {FOLDER: folder, GGUF: files, "someone/big": parts, "someone/pickled": {"config.json": note, "a.bin": note}}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve(Hub(repos)) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def named(text: str) -> HubName:
    found = hub_name(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", HubName("owner/name")),
        ("owner/na.me_1-GGUF:*Q4_K_M*", HubName("owner/na.me_1-GGUF", "*Q4_K_M*")),
        ("owner/name@transformers", HubName("owner/name", None, "@transformers")),
        ("o/n:sub/*q4*.gguf@llamacpp,kv=q8_0", HubName("o/n", "sub/*q4*.gguf", "@llamacpp,kv=q8_0")),
        ("o/n:*q4*,kv=q8_0", HubName("o/n", "*q4*", ",kv=q8_0")),
        ("name", None),
        ("./owner/name", None),
        ("/owner/name", None),
        ("a/b/c", None),
        ("owner/na--me", None),
        ("models/some.gguf", None),
        ("http://host:1/v1", None),
        ("gptq:int4-g64", None),
        ("q8_0@llamacpp,kv=q8_0", None),
    ],
)
def test_a_hub_id_is_told_from_everything_else(text: str, expected: HubName | None) -> None:
    assert hub_name(text) == expected


def test_what_lies_here_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_name("owner/name") is None
    assert hub_name("owner/name@transformers") is None
    assert hub_name("owner/other") is not None


def test_a_header_is_read_by_growing_ranges_and_nothing_twice(
    hub: Hub, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_FIRST_RANGE", 512)
    header = first_bytes(select(named(FILE)), "model-Q8_0.gguf", gguf_header_end)
    whole = gguf.read_bytes()
    assert whole.startswith(header)
    end = gguf_header_end(whole)
    assert end == len(header)
    assert gguf_header_end(whole[: end - 1]) is None
    assert hub.weight_bytes() < client._GROWTH * len(header) < len(whole) / 4
    hub.ranges = False
    assert first_bytes(select(named(FILE)), "model-Q8_0.gguf", gguf_header_end) == header


def test_the_plan_of_headers_is_that_of_the_files(hub: Hub, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_RANGE", 1 << 16)

    def planned(model: object) -> dict[str, object]:
        record = plan(PlanRequest(models=(str(model),), context=512, memory_bytes=1 << 30))
        return {name: value for name, value in record.items() if name != "model"}

    assert planned(FILE) == planned(gguf)
    assert planned(FOLDER) == planned(reference.path())
    assert hub.weight_bytes() < gguf.stat().st_size / 5


def test_a_download_is_the_files_that_were_listed_and_no_others(hub: Hub, gguf: Path) -> None:
    told: list[str] = []
    request = Request(model=Path(FOLDER), candidates=(f"{FILE}@llamacpp,kv=q8_0", "rtn:int8-channel"), baseline=FOLDER)
    found = fetched(request, told.append)
    assert found.model is not None
    assert found.model.name == COMMIT
    assert {f.name for f in found.model.rglob("*") if f.is_file()} == {
        f.name for f in reference.path().iterdir() if f.suffix in (".json", ".safetensors")
    }
    brought, recipe = (propose.parse(text) for text in found.candidates)
    assert (brought.runtime, brought.cache, recipe.source) == ("llamacpp", "q8_0", "rtn:int8-channel")
    assert content_hash(Path(brought.source)) == content_hash(gguf)
    assert describe(Path(brought.source)).bytes == gguf.stat().st_size
    assert [line.split(":")[0] for line in told] == [FOLDER, GGUF]
    assert found.baseline == str(found.model)
    assert "model-Q4_0.gguf" not in str(hub.sent)


def test_without_the_hub_an_earlier_download_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = download(select(named(FILE)))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    told: list[str] = []
    found = fetched(Request(candidates=(FILE,), baseline=FILE + "@llamacpp,kv=q8_0"), told.append)
    assert found.candidates == (str(first),)
    assert "cannot be reached; using the download" in told[0]
    with pytest.raises(
        EnvironmentFailure, match=r"no file or folder here, and http://127\.0\.0\.1:9 cannot be reached"
    ):
        select(named(FOLDER))
    with pytest.raises(InputError, match=r"no \.gguf file that fits '\*Q4_0\*'; it holds model-Q8_0\.gguf$"):
        select(named(f"{GGUF}:*Q4_0*"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("someone/nobody", "no file or folder here and no model on http://127"),
        (f"{GGUF}:*Q6_K*", r"no \.gguf file that fits '\*Q6_K\*'; it holds deep/model-Q5_K_M.gguf, model-Q4_0.gguf, "),
        (f"{GGUF}:*Q?_0*", r"fits several files of .*: model-Q4_0.gguf, model-Q8_0.gguf; name one"),
        (GGUF, r"holds GGUF files; name one, as in someone/small-model-GGUF:\*Q5_K_M\*: deep/"),
        (f"{FOLDER}:*Q4*", r"it holds no \.gguf file"),
        ("someone/big:*Q8_0*", "split over several files"),
        ("someone/pickled", r"holds no \.safetensors file \(others may run code"),
    ],
)
def test_what_a_name_cannot_mean_is_one_clear_line(hub: Hub, text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        fetched(Request(candidates=(text,)))
    assert "\n" not in str(caught.value)


def test_a_gated_model_and_a_hub_that_fails(hub: Hub) -> None:
    hub.gated = frozenset({FOLDER})
    with pytest.raises(InputError, match=f"{FOLDER} is gated; accept its terms at {hub.url}/{FOLDER} and log in"):
        fetched(Request(candidates=(FOLDER,)))
    hub.failing = 500
    with pytest.raises(EnvironmentFailure, match="answers 500 about someone/small-model-GGUF; try again later"):
        select(named(FILE))


def test_what_has_no_room_is_not_downloaded(hub: Hub, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_RANGE", 1 << 16)
    small, large = f"{gguf},kv=q4_0", f"{gguf}"
    needed = [f.total_bytes or 0 for f in pose.fits_here(Request(candidates=(large,), baseline=small)).values()]
    monkeypatch.setattr("quantwise.plan.candidate_fit.available_bytes", lambda: sum(needed) // 2)
    with pytest.raises(
        EnvironmentFailure, match=r"^someone/small-model-GGUF:\*Q8_0\* needs .* so it was not downloaded"
    ):
        fetched(Request(candidates=(FILE,), baseline=small))
    with pytest.raises(EnvironmentFailure, match=r"^the baseline someone/small-model-GGUF:\*Q8_0\*@llamacpp needs"):
        fetched(Request(candidates=(small,), baseline=FILE))
    assert hub.weight_bytes() < gguf.stat().st_size / 4


@pytest.fixture(scope="session")
def gptq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from quantwise.build.walk import build

    made = build(reference.path(), [parse_recipe("rtn:int4-g64,layout=gptq")], [], tmp_path_factory.mktemp("gptq"))
    return Path(made[0].location)


def test_a_quantized_folder_is_planned_from_its_headers_and_goes_where_it_is_loaded(
    hub: Hub, gptq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_FIRST_RANGE", 1 << 14)
    monkeypatch.setattr("quantwise.plan.candidate_fit.available_bytes", lambda: 1 << 20)
    hub.repos["someone/small-GPTQ"] = {f.name: f for f in gptq.iterdir() if f.name != "quantwise.json"}
    with pytest.raises(EnvironmentFailure, match=r"someone/small-GPTQ needs .* so it was not downloaded"):
        fetched(Request(candidates=("someone/small-GPTQ",), baseline="http://127.0.0.1:9"))
    with pytest.raises(InputError, match="llamacpp loads gguf, not gptq, which runs in transformers or vllm"):
        fetched(Request(candidates=("someone/small-GPTQ@llamacpp",), baseline=FOLDER))
    assert hub.weight_bytes() < (gptq / "model.safetensors").stat().st_size / 4
    monkeypatch.setattr("quantwise.plan.candidate_fit.available_bytes", lambda: 1 << 40)
    found = fetched(Request(candidates=("someone/small-GPTQ",), baseline=FOLDER))
    brought = propose.parse(found.candidates[0])
    assert (brought.runtime, brought.computes_as_stored) == ("transformers", True)
    made = describe(Path(brought.source))
    assert (made.format, made.bytes) == ("gptq", (gptq / "model.safetensors").stat().st_size)


def test_a_quantization_that_nobody_here_reads_is_not_downloaded(hub: Hub, tmp_path: Path) -> None:
    strange = tmp_path / "config.json"
    strange.write_text('{"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "hqq"}}')
    hub.repos["someone/hqq"] = {**hub.repos[FOLDER], "config.json": strange}
    with pytest.raises(InputError, match="someone/hqq is quantized by 'hqq', which is not loaded here"):
        fetched(Request(candidates=("someone/hqq",), baseline=FOLDER))


def test_a_damaged_header_is_named(hub: Hub, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\x03\0\0\0" + b"\xff" * 64)
    hub.repos[GGUF]["model-Q2_K.gguf"] = bad
    with pytest.raises(InputError, match=r"model-Q2_K\.gguf: not a GGUF file that is read here \(it claims"):
        fetched(Request(candidates=(f"{GGUF}:*Q2_K*",)))
    bad.write_bytes(struct.pack("<4sIQQQ", b"GGUF", 3, 1, 1, 60000) + b"a" * 64)
    with pytest.raises(InputError, match=r"model-Q2_K\.gguf is damaged: its header has no end"):
        fetched(Request(candidates=(f"{GGUF}:*Q2_K*",)))
    bad.write_bytes(b"<html>" * 10)
    with pytest.raises(InputError, match=r"model-Q2_K\.gguf: not a GGUF file"):
        fetched(Request(candidates=(f"{GGUF}:*Q2_K*",)))


def test_a_request_without_hub_ids_stays_as_it_is() -> None:
    request = Request(model=reference.path(), candidates=("q8_0",))
    assert fetched(request) is request


def test_a_hub_id_is_a_decoder_by_its_headers_alone(hub: Hub) -> None:
    folder = read_source(FOLDER)
    assert folder.decoder == replace(read_decoder(str(reference.path())), name=FOLDER)
    assert folder.folder is None
    file = read_decoder(f"{GGUF}:*Q8_0*")
    assert file.layers == folder.decoder.layers
    assert all(stored > 0 for stored in file.stored.values())


def test_a_build_checks_recipes_texts_and_room_before_it_downloads(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From headers alone: then the same bytes as from the folder itself."""
    weights = sum(file.stat().st_size for file in reference.path().glob("*.safetensors"))

    def make(recipe: str, **more: CalibrationSet) -> tuple[str, list[str]]:
        told: list[str] = []
        given = {"calibration": None, **more}
        made = workbench.build_recipes(
            Path(FOLDER), [recipe], tmp_path / "out", seed=0, progress=Silent(), tell=told.append, **given
        )
        return made[0].hash, told

    (tmp_path / "opt").mkdir()
    config = json.loads((reference.path() / "config.json").read_text())
    (tmp_path / "opt" / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))
    with pytest.raises(InputError, match="unknown quantizer 'gptk'"):
        make("gptk:int4-g64")
    with pytest.raises(InputError, match=r"nowhere\.txt: No such file"):
        make("gptq:int4-g64", calibration=CalibrationSet(("nowhere.txt",)))
    hub.repos["someone/strange"] = {**hub.repos[FOLDER], "config.json": tmp_path / "opt" / "config.json"}
    with pytest.raises(InputError, match="unheard-of"):
        workbench.source_of(Path("someone/strange"), [parse_recipe("rtn:int4-g64")], tmp_path / "out")
    with monkeypatch.context() as full:
        usage = namedtuple("usage", "total used free")(1, 1, 1000)
        full.setattr("quantwise.build.beforehand.shutil.disk_usage", lambda place: usage)
        with pytest.raises(EnvironmentFailure, match=r"the build needs .* of disk"):
            make("rtn:int4-g64")
    assert hub.weight_bytes() < weights / 2
    made, told = make("rtn:int4-g64")
    assert told[0].startswith(f"{FOLDER}: ")
    assert f"at commit {COMMIT[:12]}" in told[0]
    monkeypatch.setattr(workbench.fetch, "local", lambda model, check, tell: reference.path())
    assert make("rtn:int4-g64")[0] == made


def test_without_the_library_of_the_hub_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    for ask in (
        lambda: plan(PlanRequest(models=(FOLDER,))),
        lambda: fetched(Request(model=Path(FOLDER))),
        lambda: workbench.source_of(Path(FOLDER), [parse_recipe("q8_0")], Path("out")),
    ):
        with pytest.raises(EnvironmentFailure, match="need the huggingface_hub library; pip install huggingface_hub"):
            ask()
