import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.catalogue import Histories
from llm_i2i.errors import ParamsError
from llm_i2i.i2i import from_index, item_knn, recommend, swing, to_index
from llm_i2i.i2i.export import export_redis, load_redis
from llm_i2i.i2i.lookup import Lookup
from llm_i2i.schema import INDEX, read_table, write_table
from tests.llm_i2i.i2i.matrices import matrices, matrix

BY_HAND = pd.DataFrame(
    [("a", "b", 0.5, 1), ("a", "c", 0.25, 2), ("b", "c", 0.5, 1), ("b", "d", 0.25, 2), ("c", "a", 1.0, 1)],
    columns=list(INDEX),
).astype(INDEX)


def ids(found) -> list[str]:
    return [item for item, _ in found]


def test_sums_by_hand():
    found = Lookup(BY_HAND).recommend(["a", "b"], top_k=5, decay=0.5)
    assert found == [("c", 0.625), ("d", 0.25)]  # c: 1 * .5 from b, .5 * .25 from a


def test_ties_by_item_id():
    index = BY_HAND.assign(score=np.float32(0.5))
    assert ids(Lookup(index).recommend(["b"], top_k=5)) == ["c", "d"]
    assert ids(Lookup(index).recommend(["b"], top_k=1)) == ["c"]


def test_only_the_last_m_count_but_the_whole_history_is_excluded():
    served = Lookup(BY_HAND)
    assert ids(served.recommend(["a", "b"], top_k=5, last_m=1)) == ["c", "d"]
    assert ids(served.recommend(["d", "b"], top_k=5, last_m=1)) == ["c"]


def test_an_unknown_item_takes_a_place_in_the_query():
    served = Lookup(BY_HAND)
    assert served.recommend(["b", "new"], top_k=1, decay=0.5) == [("c", 0.25)]
    assert served.recommend(["b", "new"], top_k=1, last_m=1) == []
    assert served.recommend([], top_k=1) == []


def offline(similar, histories, names, **options) -> list[list[str]]:
    lists = recommend(similar, histories, **options).lists
    return [[names[item] for item in row if item >= 0] for row in lists]


@settings(max_examples=30, deadline=None)
@given(user_items=matrices(), last_m=st.integers(0, 4), decay=st.sampled_from([1.0, 0.8, 0.5]), seed=st.integers(0, 99))
def test_online_is_offline(user_items, last_m, decay, seed):
    names = [f"i{n:03d}" for n in range(user_items.shape[1])]
    similar = item_knn(user_items, top_k=3)
    rng = np.random.default_rng(seed)
    taken = [rng.permutation(len(names))[: rng.integers(0, len(names) + 1)] for _ in range(5)]
    bounds = np.cumsum([0, *map(len, taken)])
    histories = Histories(bounds, np.concatenate(taken).astype(np.int32))
    index = to_index(similar, pd.DataFrame({"item_id": names}).astype("str"))
    expected = offline(similar, histories, names, top_k=4, last_m=last_m, decay=decay)
    served = Lookup(index.sample(frac=1.0, random_state=0))
    for row, items in zip(expected, taken, strict=True):
        found = served.recommend([names[item] for item in items], top_k=4, last_m=last_m, decay=decay)
        assert ids(found) == row


@pytest.mark.parametrize(("last_m", "decay"), [(0, 1.0), (3, 0.8)])
@pytest.mark.parametrize("source", ["parquet", "redis"])
def test_parity_on_1000_users(last_m, decay, source, tmp_path, request):
    """Item-kNN of small counts: full of ties, which must fall the same way."""
    rng = np.random.default_rng(7)
    rows = [sorted(set((300 * rng.random(rng.integers(3, 30)) ** 2).astype(int).tolist())) for _ in range(1_000)]
    names = [f"i{n:03d}" for n in range(300)]
    items = pd.DataFrame({"item_id": names}).astype("str")
    for model in (item_knn, swing):
        index = to_index(model(matrix(rows, 300), top_k=50), items)
        if source == "redis":
            url = request.getfixturevalue("redis_url")
            export_redis(index, {}, url, prefix="p")
            served = Lookup(load_redis(url, prefix="p")[0])
        else:
            write_table(index, tmp_path / "index.parquet", INDEX)
            served = Lookup(read_table(tmp_path / "index.parquet", INDEX))
        taken = [rng.permutation(row) for row in rows]
        histories = Histories(np.cumsum([0, *map(len, taken)]), np.concatenate(taken).astype(np.int32))
        expected = offline(from_index(index, items), histories, names, top_k=20, last_m=last_m, decay=decay)
        online = [
            ids(served.recommend([names[item] for item in row], top_k=20, last_m=last_m, decay=decay)) for row in taken
        ]
        assert online == expected
        assert sum(map(len, expected)) > 10_000


@pytest.mark.parametrize("option", [{"top_k": 0}, {"top_k": 1, "last_m": -1}, {"top_k": 1, "decay": 0.0}])
def test_options_out_of_range(option):
    with pytest.raises(ParamsError, match="lookup"):
        Lookup(BY_HAND).recommend(["a"], **option)


@pytest.mark.parametrize(
    "history", [[5], ["a", 5], [None], [np.int64(5)], [b"a"], "abc", b"abc", [float("nan")], [("a",)]]
)
def test_what_would_be_misread_is_refused(history):
    """Each gave an empty list, as an id that the index does not know does."""
    index = pd.DataFrame([("5", "6", 1.0, 1)], columns=["item_id", "neighbour_id", "score", "rank"]).astype(INDEX)
    lookup = Lookup(index[list(INDEX)])
    with pytest.raises(ParamsError, match="lookup history"):
        lookup.recommend(history, top_k=3)
    assert lookup.recommend([np.str_("5")], top_k=3)[0].item_id == "6"
    assert lookup.recommend([], top_k=3) == []
