import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from llm_i2i.errors import ParamsError, TrainingError
from llm_i2i.i2i import bpr
from llm_i2i.i2i._bpr_kernel import _draw, bpr_epoch
from llm_i2i.i2i.bpr import BprOptions, train_bpr
from llm_i2i.i2i.factors import cosine_top_k
from llm_i2i.i2i.user_items import check_user_items, pointers
from tests.llm_i2i.i2i.matrices import assert_groups, assert_ranked, matrix, two_groups

OPTIONS = {
    "factors": 12, "epochs": 60, "learning_rate": 0.05, "regularization": 0.002, "negative_sampling": "uniform",
    "with_bias": False, "validation_share": 0.0, "patience": 3, "seed": 0,
}  # fmt: skip


def train(**changes):
    return train_bpr(two_groups(), BprOptions(**{**OPTIONS, **changes}))


def test_learns_the_groups_and_leaves_out_items_nobody_took():
    assert_groups(bpr(two_groups(), **OPTIONS, top_k=5))


def test_the_bias_may_count_as_one_more_factor():
    users = two_groups()
    model = train(seed=3)
    found = bpr(users, **{**OPTIONS, "with_bias": True, "seed": 3}, top_k=20).toarray()
    wanted = cosine_similarity(np.column_stack([model.item, model.item_bias])[:20])
    np.fill_diagonal(wanted, 0)
    np.testing.assert_allclose(found[:20, :20], np.maximum(wanted, 0), atol=1e-5)
    assert not np.allclose(found, bpr(users, **{**OPTIONS, "seed": 3}, top_k=20).toarray(), atol=1e-3)


def test_one_step_by_hand():
    user_items = check_user_items(matrix([[0]], n_items=2))  # the only negative is item 1
    bounds, taken = pointers(user_items)
    p, q, r = np.float32([0.5, -1.0]), np.float32([1.0, 0.25]), np.float32([-0.5, 2.0])
    user, item, bias = p[None].copy(), np.stack([q, r]), np.float32([0.2, -0.1])
    state = np.array([77], dtype=np.uint64)
    ordered = bpr_epoch(np.zeros(1, np.int32), bounds, taken, user, item, bias, 0.1, 0.3, False, state)
    margin = 0.2 + 0.1 + p @ (q - r)
    step, keep = 0.1 / (1 + np.exp(margin)), 1 - 0.1 * 0.3
    assert ordered == (margin > 0)
    np.testing.assert_allclose(user[0], keep * p + step * (q - r), rtol=1e-6)
    np.testing.assert_allclose(item, [keep * q + step * p, keep * r - step * p], rtol=1e-6)
    np.testing.assert_allclose(bias, [keep * 0.2 + step, keep * -0.1 - step], rtol=1e-6)


def test_negatives_are_uniform_and_never_taken():
    user_items = check_user_items(matrix([[0, 3], [1], [0, 1, 2, 3, 4]], n_items=5))
    bounds, taken = pointers(user_items)
    user_of = np.repeat(np.arange(3, dtype=np.int32), np.diff(bounds))
    triples = np.empty((80_000, 3), np.int32)
    _draw(user_of, bounds, taken, 5, False, np.array([5], np.uint64), triples)
    first = triples[triples[:, 0] == 0]
    assert set(first[:, 1]) == {0, 3}
    shares = np.bincount(first[:, 2], minlength=5) / len(first)
    np.testing.assert_allclose(shares, [0, 1 / 3, 1 / 3, 0, 1 / 3], atol=0.02)
    assert (triples[:, 0] == -1).mean() == pytest.approx(5 / 8, abs=0.01)  # user 2 took everything


def test_negatives_by_popularity_follow_the_counts_of_items_not_taken():
    rows = [[0], [1, 2], [1, 3], [1, 2, 3], list(range(4))]
    user_items = check_user_items(matrix(rows, n_items=5))
    bounds, taken = pointers(user_items)
    user_of = np.repeat(np.arange(5, dtype=np.int32), np.diff(bounds))
    triples = np.empty((120_000, 3), np.int32)
    _draw(user_of, bounds, taken, 5, True, np.array([5], np.uint64), triples)
    first = triples[triples[:, 0] == 0]
    counts = np.bincount(taken, minlength=5) * np.array([0, 1, 1, 1, 1])  # 4, 3 and 3 users; item 4 has none
    shares = np.bincount(first[:, 2], minlength=5) / len(first)
    np.testing.assert_allclose(shares, counts / counts.sum(), atol=0.02)
    assert (triples[:, 0] == -1).mean() == pytest.approx(4 / 12, abs=0.01)  # user 4 took all that anyone took


def test_early_stopping_trains_the_best_number_of_epochs_on_all_interactions(caplog):
    options = {"epochs": 40, "learning_rate": 0.3, "seed": 1}
    with caplog.at_level("INFO"):
        stopped = train(**options, validation_share=0.3, patience=2)
    (best,) = {int(text.split()[2]) for text in caplog.messages if "ranks the held-out items best" in text}
    checks = [text for text in caplog.messages if "held-out NDCG" in text]
    assert len(checks) == min(40, best + 10) / 5
    whole = train(**{**options, "epochs": best})
    assert np.array_equal(stopped.item, whole.item)


def test_same_bytes_for_two_runs_and_for_one_and_two_threads():
    small = {**OPTIONS, "factors": 20, "epochs": 3, "seed": 7}
    code = (
        "import hashlib, numba, numpy as np; from scipy import sparse; from llm_i2i.i2i import bpr\n"
        "from threadpoolctl import threadpool_limits\n"
        "dense = (np.random.default_rng(0).random((400, 150)) < 0.05).astype(np.float32)\n"
        "for n in (1, 1, 2):\n"
        "    numba.set_num_threads(n)\n"
        f"    with threadpool_limits(n): s = bpr(sparse.csr_array(dense), top_k=100, **{small})\n"
        "    print(hashlib.sha256(s.data.tobytes() + s.indices.tobytes() + s.indptr.tobytes()).hexdigest())\n"
    )
    env = {**os.environ, "NUMBA_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert len(set(done.stdout.split())) == 1


def test_seed_matters():
    one, other = (train(seed=seed).item for seed in (1, 2))
    assert not np.array_equal(one, other)


def test_cosine_top_k_agrees_with_scikit_learn():
    vectors = np.random.default_rng(0).normal(size=(70, 8)).astype(np.float32)
    vectors[3] = 0
    similar = cosine_top_k(vectors, top_k=200)
    expected = cosine_similarity(vectors)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(similar.toarray(), np.maximum(expected, 0), atol=1e-6)
    assert_ranked(similar)
    head = cosine_top_k(vectors, top_k=4)
    for row in range(70):
        assert head[[row]].indices.tolist() == similar[[row]].indices.tolist()[:4]


def test_divergence_and_bad_options_are_errors():
    with pytest.raises(TrainingError, match=r"bpr, epoch \d+ of 30: .*learning rate 30.*diverged.*learning_rate"):
        train(factors=4, epochs=30, learning_rate=30.0, regularization=1.0)
    for name, value in {
        "factors": 0,
        "epochs": 0,
        "learning_rate": 0.0,
        "regularization": -1.0,
        "seed": -1,
        "patience": 0,
        "negative_sampling": "none",
    }.items():
        with pytest.raises(ParamsError, match=f"bpr {name}"):
            bpr(two_groups(), top_k=5, **{**OPTIONS, name: value})
