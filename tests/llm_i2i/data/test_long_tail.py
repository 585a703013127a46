import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.data.long_tail import long_tail_curve, tag_items
from llm_i2i.errors import DataError
from llm_i2i.schema import ITEMS
from tests.llm_i2i.data.tables import raw_items, tag_params, train_rows


def tagged(counts: dict[str, int], seed: int = 1, **params: float) -> pd.DataFrame:
    train = train_rows(*((f"u{i}", item) for item, n in counts.items() for i in range(n)))
    items = raw_items(item_id=list(counts), title=[f"Title of {item}" for item in counts])
    return tag_items(items, train, params=tag_params(**params), seed=seed).set_index("item_id")


def test_by_hand() -> None:
    items = tagged({"e": 1, "d": 2, "cold": 0, "c": 6, "b": 8, "a": 9}, tail_max_count=2)
    assert items.index.tolist() == ["a", "b", "c", "cold", "d", "e"]
    assert items["n_train"].tolist() == [9, 8, 6, 0, 2, 1]
    # 5 trained items: 20 % is one item at either end
    assert items["bucket"].tolist() == ["head", "mid", "mid", "cold", "tail", "tail"]
    assert items["is_long_tail"].tolist() == [False, False, False, False, False, True]
    assert items.reset_index()[list(ITEMS)].dtypes.astype(str).to_dict() == ITEMS


def test_a_head_item_with_a_tail_count_is_tail() -> None:
    items = tagged({"a": 3, "b": 2}, head_share=1.0, tail_max_count=5)
    assert items["bucket"].tolist() == ["tail", "tail"]


def test_shares_of_nothing_and_of_everything() -> None:
    counts = {"a": 9, "b": 8, "c": 0}
    none = tagged(counts, head_share=0.0, long_tail_share=0.0)
    assert none["bucket"].tolist() == ["mid", "mid", "cold"]
    assert not none["is_long_tail"].any()
    everything = tagged(counts, head_share=1.0, long_tail_share=1.0)
    assert everything["bucket"].tolist() == ["head", "head", "cold"]
    assert everything["is_long_tail"].tolist() == [True, True, False]


def test_ties_are_seeded_not_alphabetical() -> None:
    counts = dict.fromkeys("abcdefghij", 7)
    chosen = {frozenset(t.index[t["is_long_tail"]]) for t in (tagged(counts, seed) for seed in range(8))}
    assert {len(group) for group in chosen} == {2}
    assert len(chosen) > 3
    head = {frozenset(t.index[t["bucket"] == "head"]) for t in (tagged(counts, seed) for seed in range(8))}
    assert {len(group) for group in head} == {2}


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdefghijklmn"), st.integers(0, 9), min_size=1), st.integers(0, 9))
def test_properties(counts: dict[str, int], seed: int) -> None:
    items = tagged(counts, seed)
    assert set(items["bucket"]) <= {"head", "mid", "tail", "cold"}
    assert items["text"].is_unique
    trained = items[items["n_train"] > 0]
    assert (items["bucket"] == "cold").sum() == len(items) - len(trained)
    assert items["is_long_tail"].sum() == int(0.2 * len(trained) + 0.5)
    in_tail, others = trained[trained["is_long_tail"]], trained[~trained["is_long_tail"]]
    if len(in_tail) and len(others):
        assert in_tail["n_train"].max() <= others["n_train"].min()
    shuffled = dict(sorted(counts.items(), reverse=True))
    pd.testing.assert_frame_equal(items, tagged(shuffled, seed))


def test_extra_columns_go_along_as_text() -> None:
    items = raw_items(item_id=["b", "a"], title=[None, "A"], category=["toys", None], shop=["x", "y"])
    table = tag_items(items, train_rows(("u", "a")), params=tag_params(), seed=0)
    assert table["category"].tolist() == ["", "toys"]
    assert table["title"].tolist() == ["A", ""]
    assert table["text"].tolist() == ["A", "toys"]
    assert "shop" not in table


def test_bad_catalogues() -> None:
    train = train_rows(("u", "a"))
    params = tag_params()
    with pytest.raises(DataError, match="catalogue is empty"):
        tag_items(raw_items(item_id=[], title=[]), train, params=params, seed=0)
    with pytest.raises(DataError, match=r"1 item_id occur again \(first: 'a'\)"):
        tag_items(raw_items(item_id=["a", "a"], title=["A", "B"]), train, params=params, seed=0)
    with pytest.raises(DataError, match=r"1 items of train are not in the catalogue \(first: 'a'\)"):
        tag_items(raw_items(item_id=["b"], title=["B"]), train, params=params, seed=0)


def test_curve() -> None:
    counts = {"a": 7, "b": 7, "c": 9, "d": 7, "e": 7, "cold": 0}
    items = tagged(counts).reset_index()
    curve = long_tail_curve(items)
    assert curve["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert curve["n_train"].tolist() == [9, 7, 7, 7, 7, 0]
    assert curve["is_long_tail"].tolist() == [False, False, False, False, True, False]
