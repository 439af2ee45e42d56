from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quantwise.core.artifact import Candidate
from quantwise.core.errors import InputError
from quantwise.plan.candidate_fit import Workload, plan_candidate
from quantwise.plan.fit import fit, size
from quantwise.report import notation
from quantwise.scenarios.site import Site

GIB = 1 << 30


@pytest.mark.parametrize(
    ("terms", "limit", "answer"),
    [
        ((4, 2, 1), 10, "yes"),
        ((6, 2, 1), 10, "yes"),
        ((7, 2, 1), 11, "marginal"),
        ((7, 2, 1), 10, "marginal"),
        ((7, 2, 2), 10, "no"),
        ((None, 2, 1), 10, "unknown"),
        ((7, None, None), 10, "unknown"),
        ((7, 2, 1), None, "unknown"),
        ((12, None, None), 10, "no"),
        ((None, None, None), None, "unknown"),
    ],
)
def test_answers(terms: tuple[int | None, ...], limit: int | None, answer: str) -> None:
    found = fit("c", *(None if t is None else t * GIB for t in terms), None if limit is None else limit * GIB)
    assert found.fits == answer
    assert (found.fix is None) == (answer in ("yes", "unknown"))


def test_the_cheapest_fix_comes_first() -> None:
    fixes = {
        "8-bit cache": fit("c", 4 * GIB, 8 * GIB, GIB // 4, 12 * GIB),
        "half the context or half the requests": fit("c", 3 * GIB, 8 * GIB, GIB // 4, 8 * GIB + GIB // 4),
        "take a scheme whose weights are": fit("c", 14 * GIB, GIB, GIB, 12 * GIB),
        "no setting saves enough": fit("c", GIB, GIB, 12 * GIB, 8 * GIB),
    }
    for text, found in fixes.items():
        assert text in (found.fix or ""), found.fix
        assert (found.fix or "").startswith(f"needs {size(found.total_bytes or 0)} of {size(found.limit_bytes or 0)}; ")


def test_the_proposed_weights_would_fit() -> None:
    found = fit("c", 14 * GIB, GIB, GIB, 12 * GIB)
    proposed = re.search(r"weights are ([\d.]+) GiB", found.fix or "")
    assert proposed is not None
    assert fit("c", int(float(proposed[1]) * GIB), GIB, GIB, 12 * GIB).fits in ("yes", "marginal")


def test_sizes() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536 << 20, 200 << 20, 1 << 50, 10236 << 20, 5 << 60, 1 << 71)] == [
        "0 B", "1023 B", "1.00 KiB", "1.50 GiB", "200 MiB", "1.00 PiB", "10.0 GiB", "5.00 EiB", "2,048 EiB",
    ]  # fmt: skip
    # One size is written alike on one screen, whoever writes it.
    assert all(notation.size(n) == size(n) for n in (1, 1 << 33, 7 << 50))


def test_recipes_folders_and_servers(shared_data: Path) -> None:
    model = shared_data / "models" / "stories260K"
    use = Workload(context=512, concurrency=4, site=Site(memory_bytes=16 * GIB))
    fits = {
        c.source: plan_candidate(c, model, use)
        for c in (
            Candidate("16bit", "transformers"),
            Candidate("rtn:int4-g64", "transformers"),
            Candidate("rtn:int3-g64", "transformers", computes_as_stored=False),
            Candidate("16bit", "llamacpp"),
            Candidate("q8_0", "llamacpp"),
            Candidate(str(model), "transformers"),
        )
    }
    assert {f.fits for f in fits.values()} == {"yes"}
    assert fits[str(model)].weights_bytes == 520064
    # Expanded to 16 bit, with 536 scales and 6 shapes (of 7 matrices one does not split) a block.
    assert fits["rtn:int3-g64"].weights_bytes == 520064 + 5 * (536 * 2 + 6 * 16)
    # Packed: 536 rows of 64 weights, filled up to 640, in half a byte each, with a scale and a value at 0 per row.
    assert fits["rtn:int4-g64"].weights_bytes == 520064 + 5 * (-2 * 536 * 64 + 640 * 64 // 2 + 640 * 4)
    # In the file 32 bytes of every layer stand between tensors.
    assert fits["q8_0"].weights_bytes == 329952 + 5 * 32
    assert fits["q8_0"].cache_bytes == 5 * 2 * 32 * 2 * 512 * 4
    server = plan_candidate(Candidate("http://localhost:1", "openai"), None, use)
    assert (server.fits, server.total_bytes) == ("unknown", None)
    small = plan_candidate(Candidate("q8_0", "llamacpp"), model, Workload(512, 4, site=Site(memory_bytes=1 << 20)))
    assert small.fits == "no"
    assert small.fix is not None
    with pytest.raises(InputError, match=r"needs heads of a multiple of 32, this model has 8"):
        plan_candidate(Candidate("q8_0", "llamacpp", cache="q8_0"), model, use)


def test_this_machine_is_the_limit_where_the_site_names_none(shared_data: Path) -> None:
    found = plan_candidate(Candidate("q8_0", "llamacpp"), shared_data / "models" / "stories260K", Workload(512))
    assert found.limit_bytes is not None
    assert found.limit_bytes > 0


def test_a_gguf_file(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from quantwise.build.walk import build
    from quantwise.core.recipe import parse_recipe

    model = shared_data / "models" / "stories260K"
    (made,) = build(model, [parse_recipe("q8_0")], [], tmp_path)
    place = Path(made.location)
    file = place if place.is_file() else next(place.glob("*.gguf"))
    use = Workload(512, 2, Site(memory_bytes=16 * GIB))
    brought = plan_candidate(Candidate(str(file), "llamacpp"), None, use)
    recipe = plan_candidate(Candidate("q8_0", "llamacpp"), model, use)
    assert (brought.weights_bytes, brought.cache_bytes, brought.overhead_bytes) == (
        recipe.weights_bytes, recipe.cache_bytes, recipe.overhead_bytes,
    )  # fmt: skip


def test_what_cannot_be_planned_is_named(tmp_path: Path, shared_data: Path) -> None:
    use = Workload(512)
    with pytest.raises(InputError, match=r"has no model to be applied to"):
        plan_candidate(Candidate("q8_0", "llamacpp"), None, use)
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        plan_candidate(Candidate("q8_0", "llamacpp"), tmp_path / "nowhere", use)
    with pytest.raises(InputError, match=r"nowhere\.gguf does not exist"):
        plan_candidate(Candidate(str(tmp_path / "nowhere.gguf"), "llamacpp"), None, use)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(InputError, match=r"lacks num_attention_heads"):
        plan_candidate(Candidate("q8_0", "llamacpp"), tmp_path, use)
    model = shared_data / "models" / "stories260K"
    with pytest.raises(InputError, match=r"unknown"):
        plan_candidate(Candidate("q9_0", "llamacpp"), model, use)
    with pytest.raises(InputError, match=r"no such integer scheme"):
        plan_candidate(Candidate("rtn:int5-g64", "transformers"), model, use)
    with pytest.raises(InputError, match=r"unknown cache scheme"):
        plan_candidate(Candidate("q8_0", "llamacpp", cache="int4"), model, use)


def test_planning_never_imports_torch() -> None:
    code = (
        "import sys, quantwise.plan.candidate_fit, quantwise.plan.weights, quantwise.tasks.readers, "
        "quantwise.scenarios.reader, quantwise.models.config; "
        "print([m for m in ('torch', 'transformers', 'xllamacpp', 'gguf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
