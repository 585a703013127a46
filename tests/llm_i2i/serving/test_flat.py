import json

import numpy as np
import pandas as pd
import pytest

from llm_i2i.errors import ArtifactError
from llm_i2i.i2i.export import current_version, export_redis
from llm_i2i.schema import INTERACTIONS, ITEMS, read_table, write_table
from llm_i2i.serving import write
from llm_i2i.serving.build import build
from llm_i2i.serving.chain import answer
from llm_i2i.serving.messages import Query
from tests.llm_i2i.serving.conftest import NAMES, an_index


def test_items_are_found_by_id_and_back(shop):
    served = shop.build()
    assert [served.item_id(n) for n in range(served.n_items)] == NAMES
    assert [served.place(name) for name in NAMES] == list(range(len(NAMES)))
    assert [served.place(name) for name in ("", "i/", "j", NAMES[0] + "a", NAMES[0][:-1])] == [None] * 5


def test_arrays_are_mapped_from_the_files(shop):
    served = shop.build()
    for array in (served.index.items, served.index.scores, served.text.items, served.popular_items):
        assert isinstance(array.base, np.memmap)
    assert served.index.items.dtype == np.int32
    assert served.index.scores.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        served.index.scores[0] = 1


def test_equal_content_has_an_equal_name(shop):
    first = shop.build().version
    shop.write_index(an_index(1))
    second = shop.build().version
    shop.write_index(an_index())
    assert shop.build().version == first != second
    assert {path.name for path in (shop.store / "versions").iterdir()} == {first, second}


def test_an_index_without_neighbours_and_a_shop_without_vectors(shop):
    (shop.vectors).unlink()
    shop.write_index(an_index().iloc[:0])
    served = shop.build()
    assert served.index.items.size == served.text.items.size == 0
    assert served.n_items == len(NAMES)


def test_text_neighbours_in_parts_are_the_same(shop, monkeypatch):
    whole = shop.build()
    monkeypatch.setattr(write, "CELLS", 1_000)  # two items at a time
    parts = shop.build()
    assert list(parts.text.bounds) == list(whole.text.bounds)
    assert np.allclose(parts.text.scores, whole.text.scores)


@pytest.mark.parametrize("name", ["index_scores.npy", "id_bytes.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["byte", "cut", "gone"])
def test_any_damage_is_refused(shop, name, damage):
    version = shop.build().version
    path = shop.store / "versions" / version / name
    content = bytearray(path.read_bytes())
    if damage == "byte":
        content[-10] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-10])
    else:
        path.unlink()
    with pytest.raises(ArtifactError, match=name):
        shop.opened()
    assert shop.build().version == version  # building again repairs it


def test_a_pickle_is_never_read(shop):
    shop.build()
    np.save(shop.vectors, np.array([{}] * len(NAMES)), allow_pickle=True)
    with pytest.raises(ArtifactError, match=r"vectors\.npy: unreadable"):
        shop.build()


def change_manifest(shop):
    path = shop.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"content_sha256": "0"}), encoding="utf-8")


def other_catalogue(shop, change):
    path = shop.catalogue
    write_table(change(read_table(path, ITEMS)), path, ITEMS)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (change_manifest, "index.parquet: is not what manifest.json says"),
        (lambda shop: (shop.folder / "manifest.json").unlink(), "manifest.json: no such file"),
        (lambda shop: (shop.folder / "index.parquet").write_bytes(b"PAR1"), "index.parquet: unreadable"),
        (lambda shop: other_catalogue(shop, lambda t: t.assign(item_id="a" + t["item_id"])), "not in the cat"),
        (lambda shop: other_catalogue(shop, lambda t: t.iloc[::-1]), "items: are not sorted by item_id"),
        (lambda shop: np.save(shop.vectors, np.zeros((3, 2))), r"shape \(3, 2\)"),
        (lambda shop: setattr(shop, "redis", "redis://127.0.0.1:1/0"), "Redis failed"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(shop, damage, told):
    before = shop.build().version
    damage(shop)
    with pytest.raises(ArtifactError, match=told):
        build(shop.source, shop.store)
    assert shop.opened().version == before


def test_the_stamp_follows_what_counts_in_redis(shop, redis_url):
    shop.redis = redis_url
    assert current_version(redis_url, prefix="p") is None
    empty = shop.source.stamp()
    version = export_redis(an_index(), {}, redis_url, prefix="p")
    assert current_version(redis_url, prefix="p") == version
    assert shop.source.stamp() != empty
    assert shop.source.stamp() == shop.source.stamp()


@pytest.mark.parametrize(
    ("words", "limit", "found"),
    [
        ("star", 9, ["1", "4", "2"]),  # most popular first
        ("STAR Trek", 9, ["4", "2"]),
        ("trek star", 1, ["4"]),
        ("ar", 9, []),  # a word begins so
        ("amelie", 9, ["3"]),
        ("Amélie!", 9, ["3"]),
        ("ii", 9, ["2"]),
        ("wars (1977)", 9, ["1"]),
        ("star missing", 9, []),
        ("star*", 9, ["1", "4", "2"]),
        (" .-", 3, ["1", "0", "4"]),  # no word at all
        ("", 2, ["1", "0"]),
    ],
)
def test_titles_are_searched_by_words(shop, words, limit, found):
    other_catalogue(shop, lambda _: pd.DataFrame({
        "item_id": list("01234"), "title": ["", "Star Wars (1977)", "Star Trek II", "AMÉLIE", "Trek: to the Stars"],
        "text": list("01234"), "n_train": [9, 9, 1, 0, 4], "bucket": "mid", "is_long_tail": False,
    }))  # fmt: skip
    shop.vectors.unlink()
    shop.write_index(an_index().iloc[:0])
    index = shop.build()
    assert [index.item_id(place) for place in index.search(words, limit)] == sorted(
        found, key=lambda item: ([9, 9, 1, 0, 4][int(item)] * -1, item)
    )


def test_what_the_catalogue_says(shop):
    index = shop.build()
    told = {"item_id": NAMES[1], "title": NAMES[1], "category": "dolls", "bucket": "mid", "is_long_tail": False}
    assert index.item(1) == told
    other_catalogue(shop, lambda table: table.drop(columns="category").assign(title="", is_long_tail=True))
    assert shop.build().item(1) == told | {"title": None, "category": None, "is_long_tail": True}


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
def test_popularity_decays_with_time(shop, unit):
    """An interaction of age 0, 90 and 180 days is 1, 1/2 and 1/4; ties go by all interactions, 3, 4, 6 and 9 here."""
    days = {2: [180, 180], 3: [0], 5: [90], 8: [90, 180, 180]}
    ages = [(item, n, age) for item, found in days.items() for n, age in enumerate(found)]
    rows = [(f"u{n}", NAMES[item], (1_600_000_000 - age * 86_400) * unit, n) for item, n, age in ages]
    train = shop.root / "split" / "train.parquet"
    write_table(pd.DataFrame(rows, columns=list(INTERACTIONS)), train, INTERACTIONS)
    popular = answer(shop.build(), Query(k=4))["items"]
    assert [(int(item["item_id"][2:5]), item["score"]) for item in popular] == [(8, 1.0), (3, 1.0), (5, 0.5), (2, 0.5)]
    shop.half_life = 45.0
    assert [item["score"] for item in answer(shop.build(), Query(k=4))["items"]] == [1.0, 0.375, 0.25, 0.125]


def test_positions_are_no_times(shop):
    before = shop.build()
    rows = [("u", NAMES[1], 0, 0), ("u", NAMES[2], 1, 1)]
    write_table(pd.DataFrame(rows, columns=list(INTERACTIONS)), shop.root / "split" / "train.parquet", INTERACTIONS)
    assert shop.build().popular_scores.tolist() == before.popular_scores.tolist()
