"""docs/results.md: its sentences follow the numbers."""

from pathlib import Path

import pandas as pd
import pytest

from llm_i2i.reporting.benchmark import PAPERS_POINT, SELECTIONS, named, reading, render

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
        "Toys: our recipe changes plain Swing's Recall@10 from 0.0500 to 0.0600 (+20.00 %)"
    )
    assert lines[0].endswith(": our recipe, another method, gains as much as the paper states.")
    assert lines[1].endswith(
        "+0.0030 [+0.0010, +0.0050]: the generator's data is better than the cheap control's."
    )
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


@pytest.mark.parametrize(("augmented", "verdict"), [(0.0599, "less than"), (0.06, "as much as")])
def test_the_papers_gain_is_the_limit(augmented: float, verdict: str) -> None:
    values = VALUES | {("swing", "llm_i2i"): augmented}
    found = reading("toys", {"backbones": content(rows(values))})
    assert found[0].endswith(f"gains {verdict} the paper states.")
    assert "reproduced" not in " ".join(found), "another method reproduces nothing"


@pytest.mark.parametrize(("augmented", "verdict"), [(0.0599, "less"), (0.06, "as much")])
def test_only_the_papers_selection_is_compared_as_the_papers(augmented: float, verdict: str) -> None:
    entries = rows(VALUES | {("swing", "llm_i2i"): augmented})
    ours, papers = ([row | {"point": point} for row in entries] for point in ("six a tail item", "paper"))
    told = "with this generator the selection gains"
    assert not any(told in line for line in reading("toys", {"recipe": content(ours)}))
    line = next(line for line in reading("toys", {"recipe": content(ours + papers)}) if told in line)
    assert line.startswith("Toys: the paper's selection changes")
    assert line.endswith(f": {told} {verdict}.")


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
    assert "Recall@10 on all targets is highest, 0.0884, for BM25 (tuned) on arm real (all)" in text
    assert r"Swing, llm\_i2i (our recipe)" in text
    assert r"Swing, llm\_i2i |" not in text


def test_nothing_measured_is_said() -> None:
    assert "Nothing has been measured yet" in render({}, command="x")


def test_each_recipe_is_told_with_both_volumes() -> None:
    (line,) = reading("toys", {"recipe": content(rows(VALUES))})
    assert line.startswith(
        "Toys, point all: Swing on 10 generated pairs has Recall@10 overall 0.0600 (+0.0030"
    )
    assert "[+0.0010, +0.0050] against 10 pairs of item-kNN), tail 0.0600" in line


def test_fewer_seeds_and_other_revisions_are_told_under_the_table() -> None:
    one = content(rows(VALUES)) | {"seeds": [1], "benchmark": ABOUT | {"revision": "1" * 40}}
    old = content(rows(VALUES)) | {
        "benchmark": {key: value for key, value in ABOUT.items() if key != "revision"}
    }
    text = render({"toys": {"backbones": content(rows(VALUES)), "controls": one, "volume": old}}, command="x")
    assert "they come from 3 revisions and have 1 or 3 seeds" in text
    lines = [line for line in text.splitlines() if line.startswith("Seeds ")]
    assert lines[0].endswith("revision `000000000000`.")
    assert "(fewer than the 3 of other tables: the intervals do not cover training)" in lines[1]
    assert lines[1].endswith("revision `111111111111` (another than that of Backbones).")
    assert lines[2].endswith("revision not recorded (another than that of Backbones).")
    assert "not all made at once" not in render({"toys": {"backbones": content(rows(VALUES))}}, command="x")


def test_every_declared_experiment_says_what_chose_its_pairs() -> None:
    declared = {path.stem for path in (Path(__file__).parents[3] / "experiments").glob("*.yaml")}
    assert set(SELECTIONS) | {PAPERS_POINT[0]} >= declared - {"prompt"}, "prompt is not part of the benchmark"
    table = pd.DataFrame({"point": ["paper", "x"], "arm": ["llm_i2i", "real"]})
    assert named("recipe", table)["arm"].tolist() == ["llm_i2i (the paper's selection)", "real"]
    assert named("unheard_of", table)["arm"].tolist() == ["llm_i2i (selection not recorded)", "real"]
