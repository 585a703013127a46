"""docs/results.md: its tables and sentences follow the numbers, whatever points and arms are called."""

import re
from pathlib import Path

import pytest

from llm_i2i.evaluation.experiments import load_experiment
from llm_i2i.params import FuseParams
from llm_i2i.reporting.benchmark import (
    headline,
    judge_tables,
    published_table,
    question_runs,
    reading,
    reference_of,
    runs_table,
    short,
    shown_models,
    verdict,
)
from llm_i2i.reporting.result_pages import render
from llm_i2i.reporting.words import texts

ABOUT = {"dataset": "toys", "profile": "compact", "data_md5": "abc.dir", "revision": "0" * 40}


def run(model: str, arm: str, value: float, *, point: str = "all", low: dict[str, float] | None = None) -> list[dict]:
    """Rows of one run; `low` is where the interval to each comparison begins, 0.004 wide."""
    rows = []
    for part, users in (("overall", 900), ("tail", 300)):
        row = {"point": point, "model": model, "arm": arm, "seeds": 3, "slice": part, "metric": "recall@10",
               "synthetic_kept": 0.0 if arm == "real" else 10.0, "n_users": users, "value": value}  # fmt: skip
        rows.append(row | {"against": ""})
        for against, at in (low or {}).items():
            outcome = "better" if at > 0 else "worse" if at + 0.004 < 0 else "none"
            rows.append(row | {"against": against, "difference": at + 0.002, "low": at, "high": at + 0.004,
                               "outcome": outcome})  # fmt: skip
    return rows


def content(*runs: list[dict], selection: str = "recipe", seeds: tuple[int, ...] = (1, 2, 3)) -> dict:
    rows = [row for rows in runs for row in rows]
    return {
        "name": "backbones",
        "question": "Which models does it help?",
        "seeds": list(seeds),
        "protocol_hash": {str(seed): {"swing": "f" * 64} for seed in seeds},
        "failures": {},
        "rows": rows,
        "selection": {row["point"]: selection for row in rows},
        "benchmark": ABOUT,
    }


def backbones(augmented: float = 0.06, *, low: float = 0.001, selection: str = "recipe") -> dict:
    lows = {"arm real": 0.008, "arm item_knn": low}
    return content(
        run("swing", "real", 0.05),
        run("swing", "item_knn", 0.058, low={"arm real": 0.005}),
        run("swing", "llm_i2i", augmented, low=lows),
        run("bm25_tuned", "real", 0.0884),
        run("bm25_tuned", "llm_i2i", 0.09, low={"arm real": -0.001, "arm item_knn": 0.004}),
        run("bpr", "llm_i2i", 0.02, low={"arm item_knn": -0.01}),
        selection=selection,
    )


def points(*labels: str, selection: str = "custom") -> dict:
    """An experiment whose control follows the point and whose real pairs do not."""
    found = []
    for place, label in enumerate(labels):
        lows = {"arm real": -0.001, "arm item_knn": 0.001 - 0.002 * place, "point x": 0.01}
        found += run("swing", "real", 0.05, point=label, low={"arm item_knn": -0.003})
        found += run("swing", "item_knn", 0.05 + 0.001 * place, point=label, low={"arm real": 0.001})
        found += run("swing", "llm_i2i", 0.06 + 0.001 * place, point=label, low=lows)
    return content(found, selection=selection)


def told(found: dict[str, dict], dataset: str = "toys") -> list[str]:
    return reading(dataset, found, headline(found))


def cells(table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_each_arm_once_highest_first_with_its_difference_to_real() -> None:
    shown = cells(runs_table(headline({"backbones": backbones()}), "arm real"))
    assert shown == [
        ["llm_i2i (our recipe)", "10", *["0.0600", "▲ +0.0100 [+0.0080, +0.0120]"] * 2],
        ["item_knn", "10", *["0.0580", "▲ +0.0070 [+0.0050, +0.0090]"] * 2],
        ["real", "–", "0.0500", "–", "0.0500", "–"],
    ]  # fmt: skip


def test_pairs_are_shown_with_the_tails_among_them() -> None:
    rows = run("swing", "llm_i2i", 0.06)
    shown = content([row | {"tail_kept": 4.0} for row in rows])
    assert cells(runs_table(headline({"backbones": shown}), "arm real"))[0][1] == "10 (40.0 % tail)"


def test_the_judge_is_shown_where_one_was_learned() -> None:
    def auc(value: float) -> dict:
        return {"auc": value, "auc_low": value - 0.1, "auc_high": value + 0.1, "n_users": 1234}

    learned = {"judge": {"overall": auc(0.7), "tail": auc(0.6)}, "text": {"overall": auc(0.65)}}
    found = {"threshold": points("a"), "backbones": backbones() | {"judge": {"a": learned, "b": {}}}}
    (table,) = judge_tables(found)
    assert cells(table) == [
        ["judge", "0.700 [0.600, 0.800]", "–", "–", "0.600 [0.500, 0.700]"],
        ["text", "0.650 [0.550, 0.750]", "–", "–", "–"],
    ]
    assert "1,234 users" in table.caption
    assert judge_tables({"threshold": points("a")}) == []


def test_an_arm_comes_from_the_first_experiment_that_has_it_and_each_selection_is_a_row() -> None:
    papers = content(run("swing", "real", 0.02), run("swing", "llm_i2i", 0.03), selection="paper")
    alone = content(run("swing", "real", 0.02), run("generator", "llm_only", 0.07))
    runs = headline({"backbones": backbones(), "b": papers, "c": points("p"), "d": alone})
    values = {name: rows["overall", ""]["value"] for name, rows in runs.items()}
    assert values == {
        "llm_only": 0.07,
        "llm_i2i (our recipe)": 0.06,
        "item_knn": 0.058,
        "real": 0.05,
        "llm_i2i (the paper's selection)": 0.03,
    }
    unrecorded = backbones() | {"selection": {}}
    assert "llm_i2i" in headline({"backbones": unrecorded}), "named by the arm alone"


def test_gain_control_and_best_model() -> None:
    gain, everyone, tail, best = told({"backbones": backbones()})
    assert gain.startswith("Swing's Recall@10 goes from 0.0500 to 0.0600 (+20.00 %) with our recipe;")
    assert gain.endswith("+19.97 %: our recipe, another method, gains as much as the paper states.")
    better = "+0.0030 [+0.0010, +0.0050]: the generator's data is better than the cheap control's."
    assert everyone.endswith(f"on all targets: {better}")
    assert tail.endswith(f"on the tail: {better}")
    assert best == (
        "The best tuned model, BM25 (tuned), has 0.0900 with the same pairs: +0.0010 [−0.0010, +0.0030] against real "
        "pairs, +0.0060 [+0.0040, +0.0080] against item-kNN's."
    )


@pytest.mark.parametrize(
    ("low", "words"),
    [(-0.001, "no difference to the cheap control is shown"), (-0.01, "the cheap control's data is better")],
)
def test_the_control_is_judged_by_its_interval(low: float, words: str) -> None:
    assert told({"backbones": backbones(low=low)})[1].endswith(f": {words}.")


@pytest.mark.parametrize(("augmented", "verdict"), [(0.0599, "less than"), (0.06, "as much as")])
def test_the_papers_gain_is_the_limit(augmented: float, verdict: str) -> None:
    found = told({"backbones": backbones(augmented)})
    assert found[0].endswith(f"gains {verdict} the paper states.")
    assert "reproduced" not in " ".join(found), "another method reproduces nothing"


@pytest.mark.parametrize(("augmented", "verdict"), [(0.0599, "less"), (0.06, "as much")])
def test_only_the_papers_selection_is_compared_as_the_papers(augmented: float, verdict: str) -> None:
    words = "with this generator the selection gains"
    for selection in ("recipe", "most_credible", "custom"):
        assert words not in " ".join(told({"any": backbones(augmented, selection=selection)}))
    line = told({"any": backbones(augmented, selection="paper")})[0]
    assert "with the paper's selection; LLM-I2I" in line
    assert line.endswith(f": {words} {verdict}.")


def test_published_figures_stand_beside_ours_by_recall() -> None:
    rows = cells(published_table("toys", backbones()))
    order = [row[0] for row in rows]
    assert order == [
        "SASRec with sampled softmax", "BM25 (tuned), llm_i2i (our recipe)", "BM25 (tuned), real", "TIGER", "S3-Rec",
        "SASRec", "Swing, llm_i2i (our recipe)", "Swing, item_knn", "Swing, real",
    ]  # fmt: skip
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["TIGER"][3] == "0.0712"
    assert by_name["SASRec with sampled softmax"] == ["arXiv 2508.06450", "–", "–", "0.0970", "–"]
    beauty = {row[0]: row[4] for row in cells(published_table("beauty", backbones()))}
    names = ("SASRec with sampled softmax", "BSARec", "WEARec")
    assert [beauty[name] for name in names] == ["0.0921", "0.1008", "0.1041"]


def test_at_most_two_models_are_shown() -> None:
    assert shown_models(backbones()) == ["swing", "bm25_tuned"]
    assert shown_models(points("a")) == ["swing"]
    alone = content(run("swing", "real", 0.02), run("generator", "llm_only", 0.07), run("bpr", "real", 0.9))
    assert shown_models(alone) == ["swing", "generator"]
    assert list(question_runs(alone)) == ["real", "llm_only"]


def test_points_are_compared_with_the_control_that_follows_them() -> None:
    found = points("a", "b")
    assert reference_of(found) == "arm item_knn"
    table = runs_table(question_runs(found), reference_of(found))
    assert table.header[3] == table.header[5] == "Difference to item_knn"
    assert len(table.header) == 6
    assert [row[:4] for row in cells(table)] == [
        ["real", "–", "0.0500", "–"],
        ["a", "10", "0.0600", "▲ +0.0030 [+0.0010, +0.0050]"],
        ["b", "10", "0.0610", "○ +0.0010 [−0.0010, +0.0030]"],
    ]
    assert verdict(found, question_runs(found)) == (
        "Highest: b with 0.0610; on the tail b with 0.0610. Against item_knn, 1 of 2 are better and 0 worse, "
        "on the tail 1 better and 0 worse; the others show no difference."
    )


def test_an_arm_that_follows_the_point_is_shown_at_each_and_published_from_the_first() -> None:
    found = points("a", "b", selection="recipe")
    for point, kept, value in (("a", 8.0, 0.058), ("b", 9.0, 0.059)):
        rows = run("swing", "no_discriminator", value, point=point, low={"arm item_knn": 0.001})
        found["rows"] += [row | {"synthetic_kept": kept} for row in rows]
    found["rows"] += run("swing", "llm_i2i", 0.06, point="a", low={"arm no_discriminator": 0.001})
    runs = question_runs(found)
    assert list(runs) == ["real", "a, llm_i2i", "b, llm_i2i", "a, no_discriminator", "b, no_discriminator"]
    assert runs["b, no_discriminator"]["overall", ""]["value"] == 0.059
    assert "Against item_knn, 3 of 4 are better" in verdict(found, runs)
    ours = {row[0]: row[4] for row in cells(published_table("toys", found)) if row[1] == "measured here"}
    assert ours["Swing, llm_i2i (our recipe)"] == "0.0600"
    assert ours["Swing, no_discriminator"] == "0.0580"


def test_without_a_control_a_point_is_the_reference_and_else_real() -> None:
    lows = {"arm real": -0.01, "point fuse.a=1": -0.01}
    found = content(
        run("swing", "real", 0.05, point="every point"),
        run("swing", "llm_i2i", 0.06, point="fuse.a=1"),
        run("swing", "llm_i2i", 0.04, point="fuse.a=2", low=lows),
        run("swing", "no_discriminator", 0.06, point="fuse.a=1"),
    )
    assert reference_of(found) == "point fuse.a=1"
    runs = question_runs(found)
    assert list(runs) == ["real", "a=1, llm_i2i", "a=2, llm_i2i", "a=1, no_discriminator"]
    assert runs_table(runs, reference_of(found)).header[3] == "Difference to a=1"
    assert "Against a=1, 0 of 1 are better and 1 worse" in verdict(found, runs)
    assert reference_of(content(run("swing", "llm_i2i", 0.1, low={"arm real": 0.1}))) == "arm real"
    lows = {f"arm {arm}": 0.1 for arm in ("compact", "item_knn_filtered", "item_knn", "real")}
    assert reference_of(content(run("swing", "llm_i2i", 0.1, low=lows | {"point item_knn": 0.1}))) == "arm item_knn"
    bare = content(run("swing", "real", 0.1))
    assert verdict(bare, question_runs(bare)) == "Highest: real with 0.1000; on the tail real with 0.1000."


def test_the_verdict_counts_all_models_but_no_baseline() -> None:
    words = verdict(backbones(), question_runs(backbones()))
    assert "Against item_knn, 2 of 3 are better and 1 worse" in words
    assert words.endswith("That counts all 3 models.")
    assert words.startswith("Highest: BM25 (tuned), llm_i2i with 0.0900;")


def test_labels_lose_the_sections_of_parameters_only() -> None:
    label = "point fuse.custom.mode=a.b, train_generator.tail_weight=1.0"
    assert short(label) == "mode=a.b, tail_weight=1.0"
    assert short("six a tail item, tail weight 1.5") == "six a tail item, tail weight 1.5"


def test_the_document_has_small_tables_and_says_what_differs() -> None:
    one = points("a", "b") | {"seeds": [7], "benchmark": {**ABOUT, "revision": "1" * 40}}
    old = backbones() | {"benchmark": {k: v for k, v in ABOUT.items() if k != "revision"}, "selection": {}}
    old["benchmark"]["device"], old["benchmark"]["torch"] = "one card", "2.0"
    failed = points("a", "fuse.b=1") | {"failures": {"fuse.c=2": "no pair survives (max 0.8); expected one; lower it."}}
    found = {"backbones": backbones(), "controls": one, "volume": old, "threshold": failed}
    pages = render({"toys": found, "beauty": {"backbones": backbones()}}, command="make it")
    text = "\n".join(page for name, page in pages.items() if name.endswith(".md"))
    assert "Made by `make it`" in text
    assert "- Toys: 900 test users, 300 of them with a tail target; profile `compact`, data `abc.dir`." in text
    assert pages["results/backbones.md"].count("\nSeeds 1, 2, 3.\n") == 2
    assert text.count("One seed (7): the intervals do not cover training.") == 1
    assert text.count("Run on one card, torch 2.0.") == 1
    assert "Could not be run: c=2 (no pair survives (max 0.8))." in text
    assert "Arm `llm_i2i` has the pairs of: our recipe." in text
    assert "Arm `llm_i2i` has the pairs that its point chooses." in text
    assert "How the pairs of arm `llm_i2i` were chosen is not recorded." in text
    for dataset in ("toys", "beauty"):
        assert f"[{dataset}-backbones.csv]({dataset}-backbones.csv)" in pages["results/backbones.md"]
        assert f"![Difference in Recall@10 to item_knn]({dataset}-backbones.svg)" in pages["results/backbones.md"]
        # What the picture shows, it says to those who do not see it.
        assert "BM25 (tuned), llm_i2i, all targets: " in pages[f"results/{dataset}-backbones.svg"]
    for name in found:
        assert f"](results/{name}.md)" in pages["results.md"]
    assert "| Toys | controls | 7 | ffffffffffff" in text
    assert "| Toys | volume | 1, 2, 3 | ffffffffffff, ffffffffffff, ffffffffffff | not recorded |" in text
    for line in text.splitlines():
        assert line.count(" | ") <= 5 or not line.startswith("|"), "more than six columns"
    assert max(len(sentence) for sentence in re.split(r"\. |\n", text)) < 400


def test_nothing_measured_is_said() -> None:
    assert "Nothing has been measured yet" in render({}, command="x")["results.md"]


def test_every_selection_and_arm_of_the_experiments_has_its_words() -> None:
    values = set(FuseParams.model_fields["selection"].annotation.__args__)
    assert set(texts()["selections"]) == values - {"custom"} | {"former_recipe"}
    declared = [load_experiment(path) for path in (Path(__file__).parents[3] / "experiments").glob("*.yaml")]
    arms = {arm for experiment in declared for arm in experiment.fixed["fuse.arms"]} - {"llm_i2i"}
    assert arms <= set(texts()["arms"])
    assert {f"llm_i2i ({name})" for name in texts()["selections"].values()} <= set(texts()["arms"])
