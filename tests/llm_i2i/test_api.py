"""The package from Python, and the tour through it."""

import runpy
import sys

import numpy as np
import pandas as pd
import pytest

from llm_i2i import Held, SimilarItems, hold_out, measure
from llm_i2i.errors import ArtifactError, DataError, ParamsError
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.params import load_params
from llm_i2i.schema import INDEX, read_table
from tests.conftest import ROOT
from tests.llm_i2i.evaluation.tables import random_interactions

# Users 1 and 2 share items 7 and 8 and nothing else; 3 is alone with 9.
TAKEN = pd.DataFrame([(1, 7), (1, 8), (2, 8), (2, 7), (2, 7), (3, 9)], columns=["user_id", "item_id"])
ITEMS = pd.DataFrame({"item_id": [9, 8, 7], "title": ["Nine", "Eight", "Seven"]})


def test_five_lines_from_a_frame_to_titles() -> None:
    found = SimilarItems.fit(TAKEN, ITEMS).similar(7)
    assert found.index.tolist() == [1]
    assert found[["item_id", "title"]].to_numpy().tolist() == [["8", "Eight"]]
    assert found["score"].iloc[0] == pytest.approx(0.5 / 3)  # w = 2 ** -0.5 each, |I_1 ∩ I_2| = 2, smoothing 1
    assert SimilarItems.fit(TAKEN, ITEMS).similar(9).empty


def test_options_and_models_are_handed_on() -> None:
    smoothed = SimilarItems.fit(TAKEN, ITEMS, smoothing=3.0)
    assert smoothed.similar(7)["score"].iloc[0] == pytest.approx(0.5 / 5)
    assert SimilarItems.fit(TAKEN, ITEMS, model="item_knn").similar("8")["title"].tolist() == ["Seven"]
    with pytest.raises(ParamsError, match=r"swing \| bpr"):
        SimilarItems.fit(TAKEN, model="swung")


def test_without_a_catalogue_ids_are_titles() -> None:
    model = SimilarItems.fit(TAKEN)
    assert model.recommend([7])["title"].tolist() == ["8"]
    assert model.titles == {"7": "7", "8": "8", "9": "9"}


def test_saved_and_opened_by_text_or_path(tmp_path) -> None:
    model = SimilarItems.fit(TAKEN, ITEMS)
    model.save(str(tmp_path / "index"))
    pd.testing.assert_frame_equal(read_table(tmp_path / "index/index.parquet", INDEX), model.index)
    for folder in (tmp_path / "index", str(tmp_path / "index")):
        assert SimilarItems.open(folder, catalogue=str(tmp_path / "none")).similar("8")["item_id"].tolist() == ["7"]


@pytest.mark.parametrize(
    ("interactions", "items", "error", "said"),
    [
        (TAKEN[["user_id"]], None, DataError, r"columns \['item_id'\] are missing"),
        (TAKEN.iloc[:0], None, DataError, "no row is there"),
        (TAKEN.assign(item_id=[7, 8, None, 7, 7, 9]), None, DataError, "1 rows lack an id"),
        (TAKEN, ITEMS.iloc[:2], ArtifactError, "not in the catalogue"),
        (TAKEN, pd.concat([ITEMS, ITEMS.iloc[:1]]), DataError, "item 9 is there twice"),
        (TAKEN, ITEMS[["title"]], DataError, "column item_id is missing"),
    ],
)
def test_bad_tables(interactions, items, error, said) -> None:
    with pytest.raises(error, match=said):
        SimilarItems.fit(interactions, items)


def test_an_unknown_item_is_told() -> None:
    with pytest.raises(DataError, match="holds 'x', which the catalogue lacks"):
        SimilarItems.fit(TAKEN, ITEMS).similar("x")
    with pytest.raises(DataError, match="one of timestamp and position"):
        hold_out(TAKEN)


def test_hold_out_and_measure() -> None:
    """Every user walks round a circle of ten items; so the next item is the neighbour of the last."""
    rows = [(u, f"i{(u + step) % 10}", step) for u in range(30) for step in range(5)]
    held = hold_out(pd.DataFrame(rows, columns=["user_id", "item_id", "position"]))
    assert isinstance(held, Held)
    assert (len(held.train), len(held.parts.valid), len(held.parts.test)) == (90, 30, 30)
    test = held.parts.test.set_index("user_id")["item_id"]
    assert test["3"] == "i7"  # the last of five
    metrics = measure(SimilarItems.fit(held.train, held.items), held, ks=(1, 10))
    # Any two users of one start share three training items: each item's neighbours lie up to two places on.
    assert metrics["overall"]["recall@10"] == 1.0
    assert metrics["protocol"]["ks"] == [1, 10]


def test_the_default_protocol_is_the_pipelines() -> None:
    """`Protocol()` says of itself what the default run says, its seed included."""
    assert Protocol() == Protocol.from_params(load_params(ROOT / "params.yaml"))


def test_measured_as_the_pipeline_measures() -> None:
    held = hold_out(random_interactions())
    metrics = measure(SimilarItems.fit(held.train, held.items), held)
    assert metrics["n_users"] == len(held.parts.test)
    assert 0 < metrics["overall"]["recall@20"] < 1
    assert metrics["overall"]["recall@5"] <= metrics["overall"]["recall@20"]


def shop(folder) -> None:
    """Raw tables about as large as those of profile ci: 60 users, 80 items of eight kinds, each user with two kinds."""
    rng = np.random.default_rng(0)
    popularity = 1.0 / (3.0 + rng.permutation(80))
    rows = []
    for user in range(60):
        weight = popularity * np.where(np.isin(np.arange(80) % 8, rng.choice(8, 2, replace=False)), 20.0, 1.0)
        for time, item in enumerate(rng.choice(80, int(rng.integers(5, 20)), replace=False, p=weight / weight.sum())):
            rows.append((f"u{user}", f"i{item}", 1000 + time))
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(folder / "interactions.csv", index=False)
    kinds = ("lamp", "chair", "desk", "shelf", "sofa", "rug", "clock", "vase")
    titles = [(f"i{item}", f"{kinds[item % 8]} number {item}") for item in range(80)]
    pd.DataFrame(titles, columns=["item_id", "title"]).to_csv(folder / "items.csv", index=False)


@pytest.mark.slow
def test_the_tour(tmp_path, monkeypatch, capsys) -> None:
    shop(tmp_path)
    monkeypatch.setattr(sys, "argv", ["docs/tour.py", str(tmp_path), str(tmp_path / "plots")])
    runpy.run_path(str(ROOT / "docs/tour.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert "Pairs that it wrote" in told
    _, _, after = told.partition("after:")
    assert "number" in after  # titles of neighbours
    for name in ("metrics.svg", "neighbours.svg"):
        assert (tmp_path / "plots" / name).stat().st_size > 5_000
