import numpy as np
import pandas as pd
import pytest

from llm_i2i.monitoring.sketch import SIZE, items_changed, sketch_of, users_gone
from llm_i2i.schema import INDEX, ITEM_ID


def people(first: int, last: int) -> pd.Series:
    return pd.Series([f"u{n}" for n in range(first, last)])


def catalogue(n: int) -> pd.DataFrame:
    ids = pd.Series([f"i{n}" for n in range(n)])
    return pd.DataFrame({ITEM_ID: ids, "title": "thing " + ids, "category": "c"})


def listed(items: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Twelve neighbours of every item by chance, two more than are sketched."""
    ids = items[ITEM_ID].to_numpy()
    rows = [(one, other, 1.0, rank) for one in ids for rank, other in enumerate(rng.choice(ids, 12, replace=False), 1)]
    return pd.DataFrame(rows, columns=list(INDEX)).astype(INDEX)


def sketched(items: pd.DataFrame, rng: np.random.Generator | None = None) -> dict:
    return sketch_of(people(0, 50), items, listed(items, rng) if rng else None)


@pytest.mark.parametrize(("before", "now", "gone"), [((0, 5000), (0, 5100), 0.0), ((0, 5000), (5000, 10_000), 1.0),
                                                     ((0, 5000), (2500, 7500), 0.5), ((0, 5000), (0, 2500), 0.5),
                                                     ((0, 40), (0, 40), 0.0), ((0, 40), (40, 80), 1.0)])  # fmt: skip
def test_users_who_are_gone_are_estimated(before, now, gone):
    one, other = (sketch_of(people(*ends), catalogue(5), None) for ends in (before, now))
    sizes = [last - first for first, last in (before, now)]
    assert users_gone(one, other, *sizes) == pytest.approx(gone, abs=0.08)


def test_no_user_can_be_read_off():
    """A byte each for at most 256 of them."""
    (text,) = sketch_of(people(0, 100_000), catalogue(5), None)["users"]
    assert len(text) == 2 * SIZE


def test_a_sketch_depends_on_the_catalogue_not_on_its_order():
    items, index = catalogue(400), listed(catalogue(400), np.random.default_rng(0))
    shuffled = items.sample(frac=1.0, random_state=0)
    assert sketch_of(people(0, 9), items, index) == sketch_of(people(0, 9), shuffled, index)


def test_items_that_left_are_told_from_those_that_are_not_sampled():
    before, more = sketched(catalogue(500)), sketched(catalogue(5000))
    assert items_changed(before, before) == {"items_gone": 0.0, "texts_changed": 0.0}
    assert items_changed(before, more)["items_gone"] == 0.0  # nine tenths of them left the sample, not the catalogue
    half = sketched(catalogue(500).iloc[::2])
    assert items_changed(before, half)["items_gone"] == pytest.approx(0.5, abs=0.1)


def test_a_missing_column_changes_the_words():
    items = catalogue(100)
    bare = sketched(items.drop(columns="category"))
    assert items_changed(sketched(items), bare)["texts_changed"] == 1.0
    assert items_changed(sketched(items), sketched(items.assign(category=None)))["texts_changed"] == 1.0


def test_more_than_half_of_the_first_ten_must_have_changed():
    items = catalogue(30)
    index = listed(items, np.random.default_rng(0))
    for n_new, changed in ((5, 0.0), (6, 1.0)):
        other = index.copy()
        other.loc[other["rank"] <= n_new, "neighbour_id"] = [f"new{n}" for n in range(n_new * len(items))]
        found = items_changed(sketch_of(people(0, 9), items, index), sketch_of(people(0, 9), items, other))
        assert found["neighbours_changed"] == changed
    deeper = index.assign(neighbour_id=index["neighbour_id"].where(index["rank"] <= 10, "another"))
    found = items_changed(sketch_of(people(0, 9), items, index), sketch_of(people(0, 9), items, deeper))
    assert found["neighbours_changed"] == 0.0


def test_an_item_that_lost_its_list_has_changed():
    items = catalogue(30)
    index = listed(items, np.random.default_rng(0))
    before = sketch_of(people(0, 9), items, index)
    fewer = index[index[ITEM_ID].isin(items[ITEM_ID][:21])]
    assert items_changed(before, sketch_of(people(0, 9), items, fewer))["neighbours_changed"] == pytest.approx(0.3)
    assert "neighbours_changed" not in items_changed(before, sketch_of(people(0, 9), items, None))
