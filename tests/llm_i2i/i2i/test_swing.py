import logging
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.errors import DataError, ParamsError
from llm_i2i.i2i import swing
from llm_i2i.i2i.swing import SwingOptions, rows_of
from llm_i2i.i2i.user_items import check_user_items
from tests.llm_i2i.i2i.matrices import assert_ranked, dense_of, matrices, matrix, naive_swing

OPTIONS = st.fixed_dictionaries(
    {
        "smoothing": st.floats(0, 100),
        "user_exponent": st.floats(-0.5, 1.5),
        "user_shift": st.floats(0, 20),
        "self_pair_weight": st.sampled_from([0.0, 0.0, 1.0, 0.3]),
        "popularity_exponent": st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    }
)


def rows_float64(user_items, *, top_k, **options):
    return rows_of(user_items, SwingOptions(**options), top_k)


@settings(max_examples=200, deadline=None)
@given(user_items=matrices(), options=OPTIONS)
def test_equals_the_naive_double_loop(user_items, options):
    rows = rows_float64(check_user_items(user_items), top_k=1000, **options)
    expected = naive_swing(user_items.toarray(), **options)
    np.testing.assert_allclose(dense_of(rows), expected, rtol=1e-12, atol=0)


def test_equals_the_naive_double_loop_where_local_problems_are_large():
    dense = np.random.default_rng(3).random((150, 60)) < np.linspace(0.02, 0.7, 60)
    user_items = check_user_items(matrix([list(np.flatnonzero(row)) for row in dense], 60))
    options = {"smoothing": 1.0, "user_exponent": 0.5, "user_shift": 0.0}
    rows = rows_float64(user_items, top_k=60, **options)
    np.testing.assert_allclose(dense_of(rows), naive_swing(dense, **options), rtol=1e-12, atol=0)


def test_the_paper_by_hand():
    # Users 0 and 1 share items 0, 1; users 0 and 2 share 0, 1, 2; users 1 and 2 share 0, 1.
    similar = swing(matrix([[0, 1, 2], [0, 1], [0, 1, 2, 3]])).toarray()
    w = np.array([3, 2, 4]) ** -0.5
    s01 = w[0] * w[1] / 3 + w[0] * w[2] / 4 + w[1] * w[2] / 3
    s02 = w[0] * w[2] / 4
    expected = np.array([[0, s01, s02, 0], [s01, 0, s02, 0], [s02, s02, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(similar, expected, rtol=1e-6)


def test_a_negative_exponent_warns_that_it_raises_heavy_users(caplog):
    with caplog.at_level(logging.WARNING):
        similar = swing(matrix([list(range(10)), list(range(11))]), user_exponent=-0.35, user_shift=5.0).toarray()
    assert similar[0, 1] == pytest.approx(15**0.35 * 16**0.35 / 11, rel=1e-6)
    assert "user_exponent -0.35 < 0 raises heavy users" in caplog.text
    assert f"{(105 / 15) ** 0.35:.2f} times" in caplog.text


def test_self_pairs_reach_items_with_a_single_shared_user():
    user_items = matrix([[0, 1], [1, 2]])
    assert swing(user_items).nnz == 0
    similar = swing(user_items, self_pair_weight=1.0).toarray()
    assert similar[0, 1] == pytest.approx(0.5 / 3, rel=1e-6)


def test_ties_go_to_the_lower_item_index_and_top_k_cuts():
    similar = swing(matrix([[0, 3, 1, 2], [2, 0, 1, 3]]), top_k=2)
    assert similar.indices.tolist() == [1, 2, 0, 2, 0, 1, 0, 1]
    assert_ranked(similar)


@settings(max_examples=50, deadline=None)
@given(user_items=matrices(), top_k=st.integers(1, 30))
def test_top_k_is_the_head_of_the_full_ranking(user_items, top_k):
    full, cut = swing(user_items, top_k=10_000), swing(user_items, top_k=top_k)
    assert_ranked(cut)
    for row in range(full.shape[0]):
        head = slice(full.indptr[row], min(full.indptr[row] + top_k, full.indptr[row + 1]))
        part = slice(cut.indptr[row], cut.indptr[row + 1])
        assert full.indices[head].tolist() == cut.indices[part].tolist()
        assert full.data[head].tolist() == cut.data[part].tolist()


@settings(max_examples=30, deadline=None)
@given(user_items=matrices(), seed=st.integers(0, 1000))
def test_user_order_does_not_matter(user_items, seed):
    order = np.random.default_rng(seed).permutation(user_items.shape[0])
    np.testing.assert_allclose(swing(user_items).toarray(), swing(user_items[order]).toarray(), rtol=1e-5, atol=0)


def test_same_bytes_with_one_and_two_threads():
    # Two threads need numba started with at least two: a process of its own.
    code = (
        "import hashlib, numba, numpy as np; from scipy import sparse; from llm_i2i.i2i import swing\n"
        "taken = np.random.default_rng(0).zipf(1.3, (3000, 12)).clip(1, 500) - 1\n"
        "dense = np.zeros((3000, 500), np.float32); np.put_along_axis(dense, taken, 1, axis=1)\n"
        "matrix = sparse.csr_array(dense)\n"
        "for n in (1, 2):\n"
        "    numba.set_num_threads(n); s = swing(matrix, top_k=20)\n"
        "    print(hashlib.sha256(s.data.tobytes() + s.indices.tobytes() + s.indptr.tobytes()).hexdigest())\n"
    )
    env = {**os.environ, "NUMBA_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    one, two = done.stdout.split()
    assert one == two


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smoothing": -1.0}, "swing smoothing: is -1.0; expected a finite number >= 0"),
        ({"smoothing": float("nan")}, "swing smoothing"),
        ({"user_shift": -0.1}, "swing user_shift"),
        ({"user_exponent": float("inf")}, "swing user_exponent"),
        ({"top_k": 0}, "swing top_k: is 0; expected a whole number >= 1"),
        ({"top_k": 2.5}, "swing top_k"),
        ({"self_pair_weight": -1}, "swing self_pair_weight"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ParamsError, match=message):
        swing(matrix([[0, 1], [0, 1]]), **options)


def test_overflow_is_told():
    with pytest.raises(DataError, match=r"overflow|not finite"):
        swing(matrix([[0, 1], [0, 1]]), user_exponent=-2000.0)


def test_items_nobody_took_and_a_single_item_have_empty_rows():
    assert swing(matrix([[0, 2], [0, 2]], n_items=5)).shape == (5, 5)
    assert swing(matrix([[0], [0]])).nnz == 0
    assert numba.get_num_threads() >= 1


def zipf(n_users: int = 400, n_items: int = 90):
    taken = np.random.default_rng(0).zipf(1.3, (n_users, 9)).clip(1, n_items) - 1
    return check_user_items(matrix([sorted(set(row)) for row in taken.tolist()], n_items))


def test_hub_users_beyond_the_table_give_the_same_scores():
    # 600 users of item 0: pairs are counted by position lists, not in a table.
    generator = np.random.default_rng(8)
    dense = generator.random((600, 12)) < 0.3
    dense[:, 0] = True
    options = {"smoothing": 1.0, "user_exponent": 0.5, "user_shift": 0.0}
    rows = rows_float64(check_user_items(matrix([list(np.flatnonzero(r)) for r in dense], 12)), top_k=12, **options)
    np.testing.assert_allclose(dense_of(rows), naive_swing(dense, **options), rtol=1e-12, atol=0)


def test_top_k_beyond_the_catalogue_means_all():
    user_items = zipf(60, 20)
    one, other = swing(user_items, top_k=19), swing(user_items, top_k=10**9)
    assert one.data.tobytes() == other.data.tobytes()
    assert one.indices.tobytes() == other.indices.tobytes()
