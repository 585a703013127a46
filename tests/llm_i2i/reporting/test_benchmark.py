"""docs/results.md: its sentences follow the numbers."""

import pytest

from llm_i2i.reporting.benchmark import reading, render

ABOUT = {"dataset": "toys", "profile": "compact", "data_md5": "abc.dir", "revision": "0" * 40}


def rows(values: dict[tuple[str, str], float], *, low: float = 0.001) -> list[dict]:
    """Rows of models and arms; llm_i2i is compared with item_knn with an interval that begins at `low`."""
    found = []
    for (model, arm), value in values.items():
        for part in ("overall", "tail"):
            row = {"point": "all", "model": model, "arm": arm, "seeds": 3, "synthetic_kept": 10.0, "slice": part,
                   "metric": "recall@10", "n_users": 900, "value": value, "against": ""}  # fmt: skip
            found.append(row)
            if arm == "llm_i2i":
                outcome = "better" if low > 0 else "none"
                found.append(row | {"against": "arm item_knn", "difference": low + 0.002, "low": low,
                                    "high": low + 0.004, "outcome": outcome})  # fmt: skip
    return found


def content(entries: list[dict]) -> dict:
    return {
        "name": "backbones",
        "question": "Which models does it help?",
        "paragraph": "It shows this.",
        "seeds": [1, 2, 3],
        "protocol_hash": {"1": {"swing": "f" * 64}},
        "failures": {},
        "rows": entries,
        "benchmark": ABOUT,
    }


VALUES = {
    ("swing", "real"): 0.05,
    ("swing", "item_knn"): 0.058,
    ("swing", "llm_i2i"): 0.06,
    ("bm25_tuned", "real"): 0.0884,
}


def test_gain_control_and_best_model() -> None:
    lines = reading("toys", {"backbones": content(rows(VALUES))})
    assert lines[0].startswith(
        "Toys: LLM-I2I changes plain Swing's Recall@10 from 0.0500 to 0.0600 (+20.00 %)"
    )
    assert lines[0].endswith(": reproduced.")
    assert lines[1].endswith("+0.0030 [+0.0010, +0.0050]: the LLM's data is better than the cheap control's.")
    assert "0.0600, not above the best without augmentation" in lines[3]
    assert "0.0884" in lines[3]


def test_the_experiment_of_more_seeds_is_read() -> None:
    one_seed = content(rows({("swing", "real"): 0.05, ("swing", "llm_i2i"): 0.09})) | {"seeds": [1]}
    for order in (("controls", "backbones"), ("backbones", "controls")):
        found = dict(zip(order, (one_seed, content(rows(VALUES))), strict=True))
        assert "to 0.0600 (+20.00 %)" in reading("toys", found)[0]


def test_the_same_best_model_with_and_without_is_compared_user_by_user() -> None:
    entries = rows({("swing", "real"): 0.05, ("bm25_tuned", "real"): 0.08, ("bm25_tuned", "llm_i2i"): 0.09})
    best = [
        row for row in entries if (row["model"], row["arm"], row["against"]) == ("bm25_tuned", "llm_i2i", "")
    ]
    entries += [
        row | {"against": "arm real", "difference": 0.01, "low": 0.004, "high": 0.016} for row in best
    ]
    assert reading("toys", {"backbones": content(entries)})[-1].endswith(
        "0.0800 (+0.0100 [+0.0040, +0.0160])."
    )


@pytest.mark.parametrize(("augmented", "verdict"), [(0.0599, "not reproduced"), (0.06, "reproduced")])
def test_the_papers_gain_is_the_limit(augmented: float, verdict: str) -> None:
    values = VALUES | {("swing", "llm_i2i"): augmented}
    assert reading("toys", {"backbones": content(rows(values))})[0].endswith(f": {verdict}.")


def test_an_interval_with_0_in_it_shows_no_difference() -> None:
    lines = reading("beauty", {"backbones": content(rows(VALUES, low=-0.001))})
    assert lines[1].endswith("no difference to the cheap control is shown.")


def test_the_document_sets_published_figures_beside_ours() -> None:
    text = render({"toys": {"backbones": content(rows(VALUES))}}, command="make bench-ard ARD=PATH")
    assert "## Toys" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    order = [line.split(" | ")[0] for line in table if "measured here" in line or "TIGER, arXiv" in line]
    assert order[0].startswith("| BM25") or "bm25" in order[0]
    assert [name for name in order if name in ("| TIGER", "| SASRec")] == ["| TIGER", "| SASRec"]
    assert "0.0712" in text
    assert "protocol `ffffffffffff`" in text
    assert "It shows this." in text


def test_nothing_measured_is_said() -> None:
    assert "Nothing has been measured yet" in render({}, command="x")


def test_each_recipe_is_told_with_both_volumes() -> None:
    (line,) = reading("toys", {"recipe": content(rows(VALUES))})
    assert line.startswith("Toys, all: Swing on 10 generated pairs has Recall@10 overall 0.0600 (+0.0030")
    assert "[+0.0010, +0.0050] to 10 of item-kNN), tail 0.0600" in line
