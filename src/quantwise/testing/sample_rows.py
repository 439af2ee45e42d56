"""What the specimen record is made of. No model was run; not one number here is a result."""

from __future__ import annotations

SPECIMEN = "SPECIMEN, numbers invented for tests"

TASKS = {
    "json_output": "write exactly the JSON object that is described",
    "extraction": "copy the named fields out of a record",
    "classification": "tell apart classes that differ in one detail",
    "arithmetic": "sums with rare digit patterns",
    "code": "expressions whose value is checked",
    "recall": "a fact from at least 300 tokens ago",
    "instructions": "several steps in the order given",
    "multilingual": "word lists in non-Latin scripts",
}
TRANSFORMERS_BASELINE, LLAMACPP_BASELINE = "16bit@transformers", "bf16@llamacpp"
ITEMS = 512
ACCURACY = (0.97, 0.95, 0.91, 0.82, 0.88, 0.93, 0.90, 0.84)

# source, runtime, role, bytes, bits per weight, seconds per item
CANDIDATES: tuple[tuple[str, str, str, int, float | None, float | None], ...] = (
    ("16bit", "transformers", "baseline", 8_912_896, 16.0, 0.061),
    ("rtn:int8-channel", "transformers", "quality", 4_526_080, 8.06, None),
    ("rtn:int4-g64", "transformers", "quality", 2_431_488, 4.25, None),
    ("gptq:int4-g64", "transformers", "quality", 2_431_744, 4.25, None),
    ("rtn:int4-tensor", "transformers", "control", 2_297_856, 4.0, None),
    ("bf16", "llamacpp", "baseline", 9_019_392, 16.0, 0.034),
    ("q8_0", "llamacpp", "", 4_915_200, 8.5, 0.021),
    ("q4_0", "llamacpp", "", 2_686_976, 4.5, 0.019),
)

# Per candidate and task: items, regressions, improvements, verdict, reason.
_Q8 = ((256, 1, 1), (256, 2, 1), (288, 3, 3), (352, 5, 4), (288, 2, 2), (256, 1, 2), (288, 2, 1), (352, 4, 5))
VERDICTS: dict[str, tuple[tuple[int, int, int, str, str], ...]] = {
    "rtn:int8-channel@transformers": tuple((n, r, i, "PASS", "") for n, r, i in _Q8),
    "rtn:int4-g64@transformers": (
        (352, 9, 2, "PASS", ""),
        (512, 21, 6, "UNKNOWN", "items_exhausted"),
        (448, 15, 9, "PASS", ""),
        (224, 44, 7, "FAIL", ""),
        (512, 24, 9, "UNKNOWN", "need_n"),
        (320, 6, 3, "PASS", ""),
        (512, 23, 11, "UNKNOWN", "need_n"),
        (192, 38, 6, "FAIL", ""),
    ),
    "gptq:int4-g64@transformers": (
        (288, 4, 2, "PASS", ""),
        (320, 7, 4, "PASS", ""),
        (352, 9, 7, "PASS", ""),
        (512, 29, 12, "UNKNOWN", "need_n"),
        (384, 10, 6, "PASS", ""),
        (288, 3, 3, "PASS", ""),
        (384, 11, 6, "PASS", ""),
        (512, 30, 13, "UNKNOWN", "margin_unreachable"),
    ),
    "rtn:int4-tensor@transformers": (
        (64, 41, 0, "FAIL", ""),
        (64, 46, 0, "FAIL", ""),
        (64, 37, 2, "FAIL", ""),
        (64, 47, 0, "FAIL", ""),
        (64, 44, 1, "FAIL", ""),
        (64, 52, 0, "FAIL", ""),
        (64, 40, 1, "FAIL", ""),
        (64, 45, 0, "FAIL", ""),
    ),
    "q8_0@llamacpp": tuple((n, r, i, "PASS", "") for n, r, i in _Q8),
    "q4_0@llamacpp": (
        (352, 8, 3, "PASS", ""),
        (448, 14, 6, "PASS", ""),
        (416, 13, 9, "PASS", ""),
        (288, 46, 9, "FAIL", ""),
        (512, 22, 8, "UNKNOWN", "need_n"),
        (320, 5, 3, "PASS", ""),
        (416, 14, 8, "PASS", ""),
        (512, 31, 12, "UNKNOWN", "budget"),
    ),
}
FLIPS = (
    ("arithmetic", "q4_0@llamacpp", "417 + 388 =", "805", "805", "795", 1.0, 0.0),
    ("arithmetic", "q4_0@llamacpp", "9009 - 999 =", "8010", "8010", "8,010", 1.0, 0.0),
    ("arithmetic", "q8_0@llamacpp", "77 * 11 =", "847", "837", "847", 0.0, 1.0),
    ("json_output", "q4_0@llamacpp", 'Write JSON: name "Ida", age 41.', '{"name": "Ida", "age": 41}',
     '{"name": "Ida", "age": 41}', '{"name": "Ida", "age": 41', 1.0, 0.0),
    ("json_output", "rtn:int4-tensor@transformers", 'Write JSON: name "Bo", tag "<b>".', '{"name": "Bo", "tag": "<b>"}',
     '{"name": "Bo", "tag": "<b>"}', "<script>alert('flip')</script>", 1.0, 0.0),
    ("multilingual", "q4_0@llamacpp", "Переведи слово: вода", "water", "water", "winter", 1.0, 0.0),
    ("multilingual", "q8_0@llamacpp", "ترجم: كتاب", "book", "look", "book", 0.0, 1.0),
    ("code", "q4_0@llamacpp", "x = [3, 1, 2]\nprint(sorted(x)[0] + len(x))", "4", "4", "5", 1.0, 0.0),
    ("instructions", "gptq:int4-g64@transformers", "First write A. Then write B twice. Then stop.", "A B B",
     "A B B", "A B B B", 1.0, 0.0),
    ("recall", "rtn:int4-g64@transformers", "The key of the blue box is 7. " + 40 * "The rain went on. "
     + "What is the key of the blue box?", "7", "7", "", 1.0, 0.0),
    ("extraction", "rtn:int4-g64@transformers", "name: Ada; town: Ulm; year: 1871\nTown?", "Ulm", "Ulm", "Ada",
     1.0, 0.0),
    ("classification", "gptq:int4-g64@transformers", "ship or sheep: 'the sh--p sails'", "ship", "sheep", "ship",
     0.0, 1.0),
)  # fmt: skip
