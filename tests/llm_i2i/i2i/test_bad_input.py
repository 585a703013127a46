"""What bad input gets, the same for every model."""

import numpy as np
import pytest
from scipy import sparse

from llm_i2i.errors import DataError, ParamsError
from llm_i2i.i2i import popular_items, popularity, swing
from llm_i2i.i2i.train import MODELS as FUNCTIONS
from llm_i2i.i2i.train import options_of
from llm_i2i.params import load_params
from tests.llm_i2i.i2i.matrices import assert_ranked, matrix

PLAIN = {name: options_of(name, load_params().train_i2i)[1] for name in FUNCTIONS}
PLAIN["bpr"] |= {"epochs": 2, "factors": 4, "seed": 0}
PLAIN["youtube_dnn"] |= {"epochs": 2, "factors": 4, "seed": 0}


def with_plain_options(name):
    return lambda user_items, top_k=100: FUNCTIONS[name](user_items, top_k=top_k, **PLAIN[name])


MODELS = {name: with_plain_options(name) for name in FUNCTIONS}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def coo(values, users, items, dtype=np.float32):
    return sparse.coo_array((np.array(values, dtype), (np.array(users), np.array(items))), shape=(3, 4))


@each_model
@pytest.mark.parametrize(
    ("user_items", "message"),
    [
        (sparse.csr_array((3, 4), dtype=np.float32), "is empty: 3 users, 4 items, 0 interactions"),
        (sparse.csr_array((0, 4), dtype=np.float32), "is empty: 0 users"),
        (coo([1, 1, 1], [0, 0, 1], [2, 2, 0]), "1 pairs are stored twice .first: user 0, item 2"),
        (coo([1, 2, 1], [0, 0, 1], [1, 2, 0]), "1 values are not binary .first: 2.0 at user 0, item 2"),
        (coo([1, np.nan, 1], [0, 0, 1], [1, 2, 0]), "NaN or infinite"),
        (coo([1, -1, 1], [0, 0, 1], [1, 2, 0]), "not binary"),
        (np.ones((3, 4)), "is ndarray; expected a scipy sparse matrix"),
    ],
)
def test_a_bad_matrix_is_a_clear_error(model, user_items, message):
    with pytest.raises(DataError, match=message):
        model(user_items)


@each_model
def test_unsorted_or_repeated_csr_does_not_pass_as_checked(model):
    ones = np.ones(3, np.float32)
    unsorted = sparse.csr_array((ones, np.int32([2, 0, 1]), np.int32([0, 2, 3])), shape=(2, 4))
    ordered = sparse.csr_array((ones, np.int32([0, 2, 1]), np.int32([0, 2, 3])), shape=(2, 4))
    assert (model(unsorted) != model(ordered)).nnz == 0
    with pytest.raises(DataError, match="stored twice"):
        model(sparse.csr_array((ones, np.int32([2, 2, 1]), np.int32([0, 2, 3])), shape=(2, 4)))
    rows_meet = sparse.csr_array((ones, np.int32([0, 2, 1]), np.int32([0, 0, 2, 2, 3])), shape=(4, 4))
    assert model(rows_meet).shape == (4, 4)


@each_model
def test_an_item_nobody_took_is_nobodys_neighbour(model):
    similar = model(matrix([[0, 1, 3], [0, 1, 3], [1, 3]], n_items=5))
    assert similar.shape == (5, 5)
    assert not {2, 4} & set(similar.indices.tolist())
    if model is not MODELS["popularity"]:  # popularity has the same list for every item
        assert similar[[2]].nnz == similar[[4]].nnz == 0


@each_model
def test_top_k_beyond_the_catalogue_means_all_and_below_one_is_an_error(model):
    user_items = matrix([[0, 1, 3], [0, 1, 3], [1, 3]])
    everything, beyond = model(user_items, top_k=3), model(user_items, top_k=2**40)
    assert beyond.indices.tolist() == everything.indices.tolist()
    assert beyond.data.tobytes() == everything.data.tobytes()
    for top_k in (0, -1, 1.5, True):
        with pytest.raises(ParamsError, match="top_k"):
            model(user_items, top_k=top_k)


@each_model
def test_64_bit_indices_give_the_same_as_32_bit_ones(model):
    user_items = matrix([[0, 1, 3], [0, 1, 3], [1, 3]])
    wide = user_items.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    one, other = model(user_items), model(wide)
    assert one.data.tobytes() == other.data.tobytes()
    assert one.indices.tolist() == other.indices.tolist()


def test_more_items_than_int32_is_an_error():
    pair = sparse.coo_array((np.ones(1), (np.array([0]), np.array([2**31 + 5]))), shape=(1, 2**31 + 6))
    for model in MODELS.values():
        with pytest.raises(DataError, match=r"fewer than 2\^31 - 1 items"):
            model(pair)


def test_negative_smoothing_is_an_error():
    with pytest.raises(ParamsError, match=r"swing smoothing: is -0\.5; expected a finite number >= 0"):
        swing(matrix([[0, 1], [0, 1]]), smoothing=-0.5)


def test_popularity_lists_are_the_most_taken_items_ties_by_index():
    user_items = matrix([[0, 1, 3], [1, 3], [3, 4]], n_items=6)
    assert popularity(user_items).tolist() == [1, 2, 0, 3, 1, 0]
    similar = popular_items(user_items, top_k=3)
    assert [similar[[item]].indices.tolist() for item in range(6)] == [
        [3, 1, 4], [3, 0, 4], [3, 1, 0], [1, 0, 4], [3, 1, 0], [3, 1, 0],
    ]  # fmt: skip
    assert similar[[3]].data.tolist() == [2, 1, 1]
    assert_ranked(similar)
