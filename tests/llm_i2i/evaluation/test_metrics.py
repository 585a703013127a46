import os
import socket

import evaluate
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from llm_i2i.catalogue import Histories
from llm_i2i.evaluation import METRIC_MODULES, ndcg_at_k, per_user_metric, recall_at_k
from llm_i2i.evaluation.metrics import accuracy, list_metrics, ranks_in_lists
from llm_i2i.i2i import recommend
from llm_i2i.measures import gini, mrr_at_k

RANKS = np.array([1, 2, 5, 6, 0])


def test_by_hand():
    assert recall_at_k(RANKS, 5).tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_allclose(ndcg_at_k(RANKS, 5), [1, 1 / np.log2(3), 1 / np.log2(6), 0, 0])
    np.testing.assert_allclose(mrr_at_k(RANKS, 5), [1, 0.5, 0.2, 0, 0])
    assert accuracy(RANKS, [5])["hit_rate@5"] == 0.6
    np.testing.assert_allclose(per_user_metric("mrr@10", RANKS), [1, 0.5, 0.2, 1 / 6, 0])
    with pytest.raises(KeyError):
        per_user_metric("auc@10", RANKS)


@settings(max_examples=50, deadline=None)
@given(ranks=st.lists(st.integers(0, 60), min_size=1, max_size=40), k=st.integers(1, 50))
def test_metrics_are_ordered_and_grow_with_k(ranks, k):
    values, wider = accuracy(np.array(ranks), [k]), accuracy(np.array(ranks), [k + 1])
    assert values[f"mrr@{k}"] <= values[f"ndcg@{k}"] <= values[f"recall@{k}"] <= 1
    for name, value in values.items():
        assert value <= wider[name.replace(f"@{k}", f"@{k + 1}")]


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_trec_eval_on_random_similarities_with_many_ties(seed):
    generator = np.random.default_rng(seed)
    n_items, n_users = 40, 60
    dense = generator.integers(0, 4, (n_items, n_items)).astype(np.float32) / 2  # few values: many ties
    np.fill_diagonal(dense, 0)
    taken = [generator.choice(n_items, generator.integers(1, 6), replace=False) for _ in range(n_users)]
    targets = np.array([generator.choice(np.setdiff1d(np.arange(n_items), items)) for items in taken])
    histories = Histories(np.cumsum([0, *map(len, taken)]), np.concatenate(taken))
    found = recommend(sparse.csr_array(dense), histories, top_k=20, targets=targets)
    run: dict[str, dict[str, float]] = {}
    for user, items in enumerate(taken):
        score = dense[items].sum(axis=0).astype(np.float64)
        score[items] = 0
        # Scores are multiples of 1/2: a shift below that puts ties in order of the item index.
        run[f"u{user}"] = {f"i{j}": score[j] - 1e-4 * j for j in range(n_items) if score[j] > 0} or {"none": 1.0}
    qrels = {f"u{user}": {f"i{target}": 1} for user, target in enumerate(targets)}
    for k in (5, 10, 20, 50):
        cut = {user: dict(sorted(found_.items(), key=lambda pair: -pair[1])[:k]) for user, found_ in run.items()}
        measures = {f"recall.{k}", f"ndcg_cut.{k}", f"success.{k}", "recip_rank", f"map_cut.{k}"}
        theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(cut)
        ours = accuracy(found.ranks, [k])
        names = {"recall": f"recall_{k}", "ndcg": f"ndcg_cut_{k}", "hit_rate": f"success_{k}", "mrr": "recip_rank"}
        for name, their_name in (names | {"map": f"map_cut_{k}"}).items():
            mean = np.mean([theirs[f"u{user}"][their_name] for user in range(n_users)])
            assert ours[f"{name}@{k}"] == pytest.approx(mean, abs=1e-9)


def test_list_metrics_by_hand():
    lists = np.array([[0, 1], [0, -1]])
    n_train = np.array([4, 2, 2, 0])
    tail, long_tail = np.array([False, True, True, False]), np.array([False, True, False, False])
    values = list_metrics(lists, n_train=n_train, tail=tail, long_tail=long_tail)
    assert values["coverage@2"] == 0.5
    assert values["average_popularity@2"] == pytest.approx((4 + 4 + 2) / 3)
    assert values["tail_exposure@2"] == values["long_tail_exposure@2"] == pytest.approx(1 / 3)
    assert values["novelty@2"] == pytest.approx((1 + 1 + 2) / 3)
    assert values["gini@2"] == pytest.approx(gini(np.array([2, 1, 0, 0])))
    nothing = list_metrics(np.full((2, 2), -1), n_train=n_train, tail=tail, long_tail=long_tail)
    assert nothing == {"coverage@2": 0.0, "gini@2": 0.0}


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_gini_is_the_mean_difference_over_twice_the_mean(counts):
    values = np.array(counts, dtype=float)
    expected = np.abs(values[:, None] - values).mean() / (2 * values.mean()) if values.any() else 0.0
    assert gini(np.array(counts)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("name", "ours"), [("recall_at_k", recall_at_k), ("ndcg_at_k", ndcg_at_k)])
def test_evaluate_modules_load_offline_and_agree(name, ours, tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    metric = evaluate.load(str(METRIC_MODULES / name), cache_dir=str(tmp_path))
    lists = [["a", "b", "c"], ["c", "a"], ["b"], []]
    targets = ["b", "c", "z", "a"]
    ranks = ranks_in_lists(lists, targets)
    assert ranks.tolist() == [2, 1, 0, 0]
    for k in (1, 2, 10):
        assert metric.compute(predictions=lists, references=targets, k=k)[name] == ours(ranks, k).mean()
