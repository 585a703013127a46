from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from llm_i2i.errors import ArtifactError
from llm_i2i.i2i import from_index, index_sha256, item_knn, to_index, train_index
from llm_i2i.params import Model, load_params
from llm_i2i.schema import INDEX, read_table, write_table
from tests.llm_i2i.i2i.matrices import matrices, matrix

ITEMS = pd.DataFrame({"item_id": ["a", "b", "c"]})


def small_index() -> pd.DataFrame:
    return to_index(item_knn(matrix([[0, 1], [0, 1, 2]])), ITEMS)


def test_table_by_hand():
    index = small_index()
    assert {name: str(dtype) for name, dtype in index.dtypes.items()} == INDEX
    assert index["item_id"].tolist() == ["a", "a", "b", "b", "c", "c"]
    assert index["neighbour_id"].tolist() == ["b", "c", "a", "c", "a", "b"]
    assert index["rank"].tolist() == [1, 2] * 3
    assert index["score"].tolist() == pytest.approx([1, 0.5**0.5] * 2 + [0.5**0.5] * 2)


@settings(max_examples=50, deadline=None)
@given(user_items=matrices())
def test_round_trip_is_exact(user_items):
    similar = item_knn(user_items, top_k=3)
    items = pd.DataFrame({"item_id": [f"i{n:03d}" for n in range(user_items.shape[1])]}).astype("str")
    index = to_index(similar, items)
    shuffled = index.sample(frac=1.0, random_state=0)
    for back in (from_index(index, items), from_index(shuffled, items)):
        assert back.indptr.tolist() == similar.indptr.tolist()
        assert back.indices.tolist() == similar.indices.tolist()
        assert back.data.tobytes() == similar.data.tobytes()
    coded = to_index(similar, items, encoded=True)
    assert index_sha256(coded) == index_sha256(index)
    pd.testing.assert_frame_equal(coded.astype(INDEX), index)


def test_parquet_keeps_the_content_hash(tmp_path):
    index = small_index()
    write_table(index, tmp_path / "index.parquet", INDEX)
    assert index_sha256(read_table(tmp_path / "index.parquet", INDEX)) == index_sha256(index)
    assert index_sha256(index.iloc[:-1]) != index_sha256(index)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("neighbour_id", "z", "not in the catalogue .first: z."),
        ("neighbour_id", "a", "1 items neighbour themselves .first: .*'rank': 1"),
        ("neighbour_id", "c", "1 neighbours are listed twice"),
        ("score", np.nan, "1 scores are not finite and positive"),
        ("score", -1.0, "scores are not finite and positive"),
        ("score", 0.1, "1 scores rise with rank"),
        ("rank", 3, "ranks are not 1..n"),
    ],
)
def test_a_broken_table_is_named(column, value, message):
    index = small_index()
    index.loc[0, column] = value
    with pytest.raises(ArtifactError, match=message):
        from_index(index, ITEMS)


def test_missing_column_and_wrong_shape():
    with pytest.raises(ArtifactError, match=r"columns .'score'. are missing"):
        from_index(small_index().drop(columns="score"), ITEMS)
    with pytest.raises(ArtifactError, match=r"shape \(3, 3\)"):
        to_index(item_knn(matrix([[0, 1], [0, 1, 2]])), ITEMS.iloc[:2])


@pytest.mark.parametrize("model", get_args(Model))
def test_train_index_for_every_model(model):
    rows = [(f"u{u}", "abc"[i]) for u, items in enumerate([[0, 1], [0, 1, 2], [1, 2]]) for i in items]
    fused = pd.DataFrame(rows, columns=["user_id", "item_id"]).assign(source="real", weight=np.float32(1.0))
    index = train_index(model=model, fused=fused, items=ITEMS, params=load_params().train_i2i, seed=1)
    again = train_index(
        model=model, fused=fused.sample(frac=1, random_state=1), items=ITEMS, params=load_params().train_i2i, seed=1
    )
    assert {name: str(dtype) for name, dtype in index.dtypes.items()} == INDEX
    assert index_sha256(index) == index_sha256(again)  # the order of rows means nothing
    from_index(index, ITEMS)


def test_no_neighbour_at_all_is_an_empty_index_not_an_error():
    fused = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "source": ["real"], "weight": np.float32([1])})
    index = train_index(model="swing", fused=fused, items=ITEMS, params=load_params().train_i2i, seed=1)
    assert len(index) == 0
    assert from_index(index, ITEMS).nnz == 0
