import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from llm_i2i.errors import ArtifactError, DataError
from llm_i2i.i2i import check_user_items, item_knn, user_items_from_frame

ITEMS = pd.DataFrame({"item_id": ["a", "b", "c"]})


def fused(rows, weight=1.0):
    table = pd.DataFrame(rows, columns=["user_id", "item_id"]).assign(source="real", weight=weight)
    return table.astype({"weight": "float32"})


def test_frame_to_matrix_counts_a_pair_once_and_keeps_items_nobody_took():
    table = fused([("v", "c"), ("u", "a"), ("v", "c"), ("v", "a")])
    result = user_items_from_frame(table, ITEMS)
    assert result.toarray().tolist() == [[1, 0, 0], [1, 0, 1]]
    assert result.data.dtype == np.float32
    assert result.indices.dtype == np.int32


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (fused([]), "holds no rows"),
        (fused([("u", "z")]), "not in the catalogue .first: z."),
        (fused([("u", "a")], weight=0.5), "weight other than 1.0 .first: 0.5."),
        (fused([(None, "a")]), "no user_id"),
        (pd.DataFrame({"user_id": ["u"]}), "item_id.* missing"),
    ],
)
def test_bad_frames(table, message):
    with pytest.raises(ArtifactError, match=message):
        user_items_from_frame(table, ITEMS)


def test_catalogue_with_a_repeated_item():
    with pytest.raises(ArtifactError, match="item a is there twice"):
        user_items_from_frame(fused([("u", "a")]), pd.DataFrame({"item_id": ["a", "a"]}))


def coo(values, rows=(0, 0), columns=(0, 1)):
    return sparse.coo_array((np.array(values), (list(rows), list(columns))), shape=(2, 3))


@pytest.mark.parametrize(
    ("user_items", "message"),
    [
        (sparse.csr_array((3, 4), dtype=np.float32), "is empty: 3 users, 4 items"),
        (sparse.csr_array(np.zeros((2, 2))), "is empty"),
        (coo([1.0, np.nan]), "NaN or infinite .first: nan at user 0, item 1."),
        (coo([1.0, 2.0]), "not binary .first: 2.0"),
        (coo([1, -1]), "not binary .first: -1"),
        (coo([1, 1], columns=(1, 1)), "stored twice .first: user 0, item 1."),
        (np.ones((2, 2)), "is ndarray"),
        (coo([1.0, 1.0]).astype(np.complex128), "dtype complex128"),
    ],
)
def test_bad_matrices(user_items, message):
    with pytest.raises(DataError, match=message):
        check_user_items(user_items)
    with pytest.raises(DataError, match=message):
        item_knn(user_items)


def test_more_items_than_int32_is_an_error():
    with pytest.raises(DataError, match="2,147,483,648 items"):
        check_user_items(sparse.coo_array(([1.0], ([0], [0])), shape=(1, 2**31)))


def test_unsorted_64_bit_and_boolean_input_is_brought_to_form_and_left_alone():
    given = sparse.csr_array((np.ones(3), np.array([2, 0, 1], np.int64), np.array([0, 2, 3], np.int64)), shape=(2, 3))
    result = check_user_items(given)
    assert result.indices.tolist() == [0, 2, 1]
    assert result.indices.dtype == np.int32
    assert given.indices.tolist() == [2, 0, 1]
    assert check_user_items(given.astype(np.bool_)).data.tolist() == [1, 1, 1]
    assert check_user_items(sparse.csr_matrix(given)).toarray().tolist() == given.toarray().tolist()


def test_stored_zeros_mean_no_interaction():
    assert check_user_items(coo([1.0, 0.0])).nnz == 1
