"""item_knn, bm25 and popularity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from llm_i2i.errors import ParamsError
from llm_i2i.i2i import bm25, item_knn, popularity
from tests.llm_i2i.i2i.matrices import assert_ranked, matrices, matrix


@settings(max_examples=100, deadline=None)
@given(user_items=matrices())
def test_item_knn_is_the_cosine_of_scikit_learn(user_items):
    similar = item_knn(user_items)
    expected = cosine_similarity(user_items.toarray().T.astype(np.float64))
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(similar.toarray(), expected, rtol=1e-6, atol=0)
    assert_ranked(similar)


@settings(max_examples=100, deadline=None)
@given(user_items=matrices(), k1=st.floats(0, 5), b=st.floats(0, 1))
def test_bm25_is_the_inner_product_of_weighted_vectors(user_items, k1, b):
    dense = user_items.toarray().astype(np.float64).T  # items are documents
    idf = np.log(dense.shape[0]) - np.log1p(dense.sum(axis=0))
    length = 1 - b + b * dense.sum(axis=1) / dense.sum(axis=1).mean()
    weighted = dense * (k1 + 1) / (k1 * length[:, None] + 1) * idf
    expected = weighted @ weighted.T
    np.fill_diagonal(expected, 0.0)
    similar = bm25(user_items, top_k=100, k1=k1, b=b)
    np.testing.assert_allclose(similar.toarray(), expected, rtol=1e-5, atol=1e-30)
    assert_ranked(similar)


def test_item_knn_by_hand_with_ties_and_top_k_beyond_the_catalogue():
    user_items = matrix([[0, 1, 2], [0], [3, 1], [3, 2]])
    similar = item_knn(user_items, top_k=10**9)
    assert similar[[0]].indices.tolist() == [1, 2]
    assert similar[[0]].data == pytest.approx([0.5, 0.5])
    assert item_knn(user_items, top_k=1)[[0]].indices.tolist() == [1]


@settings(max_examples=50, deadline=None)
@given(user_items=matrices(), shrink=st.floats(0, 50))
def test_item_knn_shrinks_pairs_of_rare_items(user_items, shrink):
    dense = user_items.toarray().astype(np.float64)
    taken = np.maximum(dense.sum(axis=0), 1e-12)
    expected = dense.T @ dense / np.sqrt(np.outer(shrink + taken, shrink + taken))
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(item_knn(user_items, shrink=shrink).toarray(), expected, rtol=1e-6, atol=1e-12)


def test_popularity_counts_users():
    assert popularity(matrix([[0, 2], [2]], n_items=4)).tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize("options", [{"b": 1.1}, {"b": -0.1}, {"k1": -1.0}, {"top_k": 0}])
def test_bad_options(options):
    with pytest.raises(ParamsError, match=r"bm25"):
        bm25(matrix([[0, 1]]), **{"top_k": 5, "k1": 1.2, "b": 0.2, **options})
    with pytest.raises(ParamsError, match="item_knn shrink"):
        item_knn(matrix([[0, 1]]), shrink=-1.0)
