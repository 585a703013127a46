import numpy as np
import pandas as pd
import pytest

from llm_i2i.catalogue import Histories
from llm_i2i.errors import DataError
from llm_i2i.i2i.export import export_redis
from llm_i2i.i2i.index import from_index
from llm_i2i.i2i.lookup import Lookup
from llm_i2i.i2i.recommend import recommend
from llm_i2i.serving.chain import answer
from llm_i2i.serving.messages import Query
from tests.llm_i2i.serving.conftest import CATEGORIES, N_ITEMS, N_NEW, NAMES, an_index

NEW = NAMES[-1]  # of the last category


@pytest.fixture
def served(open_shop):
    return open_shop.opened()


def ids(found) -> list[str]:
    return [item["item_id"] for item in found["items"]]


def sources(found) -> list[str]:
    return [item["source"] for item in found["items"]]


@pytest.mark.parametrize(("kind", "last_m", "decay"), [("folder", 0, 1.0), ("redis", 3, 0.8)])
def test_1000_users_get_the_offline_ranking(shop, kind, last_m, decay, request):
    index = an_index()
    shop.write_index(index, last_m=last_m, decay=decay)
    if kind == "redis":
        shop.redis = request.getfixturevalue("redis_url")
        facts = {"model": "swing", "params": {"swing": {"last_m": last_m, "decay": decay}}}
        export_redis(index, facts, shop.redis, prefix="p")
    served = shop.build()
    rng = np.random.default_rng(7)
    taken = [rng.permutation(N_ITEMS)[: rng.integers(1, 30)] for _ in range(1_000)]
    items = pd.DataFrame({"item_id": NAMES}).astype("str")
    histories = Histories(np.cumsum([0, *map(len, taken)]), np.concatenate(taken).astype(np.int32))
    offline = recommend(from_index(index, items), histories, top_k=20, last_m=last_m, decay=decay).lists
    lookup = Lookup(index)
    for row, history in zip(offline, taken, strict=True):
        names = [NAMES[item] for item in history]
        found = answer(served, Query(history=names, k=20))
        ranked = [(item["item_id"], item["score"]) for item in found["items"] if item["source"] == "index"]
        assert [item for item, _ in ranked] == [NAMES[item] for item in row if item >= 0]
        assert ranked == lookup.recommend(names, top_k=20, last_m=last_m, decay=decay)  # every bit
        assert len(found["items"]) == 20


def test_a_new_item_has_neighbours_of_its_category_by_text(served):
    found = answer(served, Query(history=[NEW]))
    assert sources(found) == ["text"] * 10
    assert NEW not in ids(found)
    column = served.columns["category"][1]
    assert {int(column[served.place(item)]) for item in ids(found)} == {N_ITEMS % len(CATEGORIES) + 3}
    assert [item["score"] for item in found["items"]] == sorted(
        (item["score"] for item in found["items"]), reverse=True
    )


def test_each_link_fills_what_the_one_before_leaves_open(served):
    found = answer(served, Query(history=[NAMES[0], NEW], k=100, filters={"category": ["trains", "dolls"]}))
    told = sources(found)
    assert told == sorted(told, key=["index", "text", "popularity"].index)
    assert set(told) == {"index", "text", "popularity"}
    assert len(set(ids(found))) == len(found["items"]) == 100
    assert {item[2:5] for item in ids(found)} <= {f"{n:03d}" for n in range(N_ITEMS) if n % 4 in (1, 2)}
    every = answer(served, Query(history=[NAMES[0], NEW], k=100))
    assert set(sources(every)) == {"index", "text"}
    assert len(set(ids(every))) == 100


@pytest.mark.parametrize("history", [[], ["unheard of", "\ud800"]])
def test_without_a_known_history_the_most_popular(served, history):
    found = answer(served, Query.model_construct(history=history, k=3, exclude=[], filters={}, explain=False))
    assert [(item["item_id"], item["score"], item["source"]) for item in found["items"]] == [
        (NAMES[n], 50.0, "popularity") for n in (49, 99, 149)
    ]
    assert (found["reason"], found["version"]) == (None, served.version)


def test_no_link_recommends_what_is_excluded_or_in_the_history(served):
    first = answer(served, Query(history=[NAMES[5], NEW], k=100))
    exclude = [*ids(first)[::2], "unheard of"]
    second = answer(served, Query(history=[NAMES[5], NEW], k=100, exclude=exclude))
    assert not {*exclude, NAMES[5], NEW} & set(ids(second))
    assert len(second["items"]) == 100
    assert ids(first)[1] in ids(second)


def test_fewer_than_k_come_with_the_reason(served):
    every = [name for n, name in enumerate(NAMES) if n % 4 == 0]
    query = Query(history=every[:1], exclude=every[3:], filters={"category": ["blocks"]})
    found = answer(served, query)
    assert sorted(ids(found)) == every[1:3]
    assert found["reason"] == "2 of 400 items pass the filters and are neither excluded nor in the history"
    nothing = answer(served, Query(history=every[:1], filters={"category": ["no such"]}))
    assert nothing["items"] == []
    assert nothing["reason"].startswith("0 of 400 items")
    assert answer(served, Query(filters={"category": []}))["items"] == []


def test_all_filters_must_hold(served):
    assert answer(served, Query(filters={"bucket": ["mid"], "category": ["dolls"]}))["reason"] is None
    assert answer(served, Query(filters={"bucket": ["head"], "category": ["dolls"]}))["items"] == []


def test_a_column_that_the_catalogue_lacks_is_an_error(served):
    with pytest.raises(DataError, match="no column 'colour'; expected one of bucket, is_long_tail, category"):
        answer(served, Query(filters={"colour": ["red"]}))


def test_the_popular_are_found_beyond_the_first_part(served):
    found = answer(served, Query(k=N_NEW, exclude=NAMES[:-N_NEW]))
    assert ids(found) == NAMES[-N_NEW:]
