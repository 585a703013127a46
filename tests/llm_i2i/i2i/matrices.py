"""Interaction matrices and slow, obvious versions of the models, for the tests of this folder."""

import itertools

import numpy as np
from hypothesis import strategies as st
from scipy import sparse


def matrix(rows: list[list[int]], n_items: int | None = None) -> sparse.csr_array:
    """Build binary CSR from each user's items."""
    n_items = n_items or 1 + max((item for row in rows for item in row), default=0)
    dense = np.zeros((len(rows), n_items), dtype=np.float32)
    for user, row in enumerate(rows):
        dense[user, row] = 1.0
    return sparse.csr_array(dense)


@st.composite
def matrices(draw, max_users: int = 14, max_items: int = 10):
    """Draw binary CSR with at least one interaction."""
    n_users, n_items = draw(st.integers(1, max_users)), draw(st.integers(1, max_items))
    seed, density = draw(st.integers(0, 2**32 - 1)), draw(st.floats(0.05, 0.95))
    dense = np.random.default_rng(seed).random((n_users, n_items)) < density
    dense[draw(st.integers(0, n_users - 1)), draw(st.integers(0, n_items - 1))] = True
    return sparse.csr_array(dense.astype(np.float32))


def naive_swing(
    dense: np.ndarray, *, smoothing, user_exponent, user_shift, self_pair_weight=0.0, popularity_exponent=0.0
) -> np.ndarray:
    """Swing by its definition: a double loop over pairs of users."""
    taken = [set(np.flatnonzero(row)) for row in dense]
    weight = [(user_shift + len(items)) ** -user_exponent if items else 0.0 for items in taken]
    score = np.zeros((dense.shape[1], dense.shape[1]))
    for u, v in itertools.combinations(range(len(taken)), 2):
        both = taken[u] & taken[v]
        for i, j in itertools.permutations(both, 2):
            score[i, j] += weight[u] * weight[v] / (smoothing + len(both))
    for u, items in enumerate(taken):
        for i, j in itertools.permutations(items, 2):
            score[i, j] += self_pair_weight * weight[u] ** 2 / (smoothing + len(items))
    popular = dense.sum(axis=0, dtype=np.float64)
    for i, j in itertools.permutations(range(dense.shape[1]), 2):
        if popular[i] and popular[j]:
            score[i, j] /= (popular[i] * popular[j]) ** popularity_exponent
    return score


def dense_of(rows) -> np.ndarray:
    """Turn (items, scores, sizes) into a dense float64 matrix."""
    items, scores, sizes = rows
    dense = np.zeros((len(sizes), len(sizes)))
    for row, size in enumerate(sizes):
        dense[row, items[row, :size]] = scores[row, :size]
    return dense


def assert_ranked(similar: sparse.csr_array) -> None:
    """Check the order within rows: score descending as float32, ties by item index; no diagonal."""
    assert similar.data.dtype == np.float32
    assert (similar.data > 0).all()
    for row in range(similar.shape[0]):
        part = slice(similar.indptr[row], similar.indptr[row + 1])
        keys = list(zip(-similar.data[part], similar.indices[part], strict=True))
        assert keys == sorted(keys)
        assert row not in similar.indices[part]


def two_groups(n_users: int = 200) -> object:
    """Users of group 0 take items 0..9, users of group 1 take items 10..19: four each."""
    generator = np.random.default_rng(0)
    return matrix([sorted(10 * (u % 2) + generator.choice(10, 4, replace=False)) for u in range(n_users)], 21)


def assert_groups(similar: sparse.csr_array) -> None:
    """Check that a model with five neighbours per row found `two_groups` and left out item 20, which nobody took."""
    assert_ranked(similar)
    for item in range(20):
        neighbours = similar[[item]].indices
        assert len(neighbours) == 5
        assert (neighbours // 10 == item // 10).all()
    assert similar[[20]].nnz == 0
    assert 20 not in similar.indices
