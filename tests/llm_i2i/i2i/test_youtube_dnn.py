import hashlib

import numpy as np
import pytest
import torch

from llm_i2i.errors import DataError, ParamsError, TrainingError
from llm_i2i.i2i import youtube_dnn
from llm_i2i.i2i._tower import sampled_softmax_loss
from llm_i2i.i2i._tower_batches import Batches, TowerOptions
from llm_i2i.i2i.user_items import check_user_items
from tests.llm_i2i.i2i.matrices import assert_groups, matrix, two_groups

SMALL = {
    "factors": 8, "hidden": (8,), "epochs": 15, "batch_size": 64, "negatives": 30, "learning_rate": 0.02,
    "sampling_exponent": 0.75, "temperature": 0.1, "max_history": 50, "validation_share": 0.02, "patience": 3,
    "seed": 0,
}  # fmt: skip
BRIEF = {**SMALL, "epochs": 2, "validation_share": 0.2}


def test_learns_the_groups_and_leaves_out_items_nobody_took():
    assert_groups(youtube_dnn(two_groups(), **SMALL, top_k=5))


def test_same_bytes_for_two_runs_and_for_one_and_two_threads_and_the_outside_is_left_alone():
    digests, threads, state = [], torch.get_num_threads(), torch.get_rng_state()
    try:
        for n in (1, 1, 2):
            torch.set_num_threads(n)
            similar = youtube_dnn(two_groups(), **{**BRIEF, "seed": 5}, top_k=100)
            assert torch.get_num_threads() == n
            digests.append(hashlib.sha256(similar.data.tobytes() + similar.indices.tobytes()).hexdigest())
    finally:
        torch.set_num_threads(threads)
    assert len(set(digests)) == 1
    assert torch.equal(torch.get_rng_state(), state)
    other = youtube_dnn(two_groups(), **{**BRIEF, "seed": 6}, top_k=100)
    assert hashlib.sha256(other.data.tobytes() + other.indices.tobytes()).hexdigest() != digests[0]


def test_histories_are_the_users_other_items_and_every_interaction_is_a_target():
    rows = [[0, 1, 2], [3], [1, 4], list(range(6))]
    user_items = check_user_items(matrix(rows))
    options = TowerOptions(**{**SMALL, "batch_size": 4, "negatives": 7, "max_history": 3})
    batches = Batches(user_items, np.array([1, 0, 1, 1, 1, 1.0]), options)
    targets = []
    for items, offsets, positive, classes in batches:
        ends = [*offsets[1:], len(items)]
        for first, last, target in zip(offsets, ends, positive, strict=True):
            history = items[first:last].tolist()
            assert target not in history
            assert len(set(history)) == len(history)
            assert any({*history, target} <= set(row) and len(history) == min(3, len(row) - 1) for row in rows)
        targets += positive.tolist()
        assert len(classes) == 7
        assert 1 not in classes
    assert sorted(targets) == sorted(item for row in rows if len(row) > 1 for item in row)


def test_sampled_softmax_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    log_expected = torch.log(torch.tensor([0.5, 1.0, 0.25]))
    user, targets, classes = torch.tensor([[2.0, 1.0]]), torch.tensor([0]), torch.tensor([0, 1, 2, 2])
    loss = sampled_softmax_loss(user, lambda items: vectors[items], targets, classes, log_expected)
    right, others = (np.exp(2.0) / 0.5, np.exp(1.0) / 1.0 + 2 * np.exp(3.0) / 0.25)  # class 0 is the target: left out
    assert float(loss) == pytest.approx(-np.log(right / (right + others)), rel=1e-6)


def test_sampled_softmax_estimates_the_full_softmax():
    generator = torch.Generator().manual_seed(0)
    vectors, user = torch.randn(50, 4, generator=generator), torch.randn(6, 4, generator=generator)
    targets = torch.arange(6)
    q = torch.arange(1, 51) / torch.arange(1, 51).sum()
    n = 200_000
    classes = torch.multinomial(q, n, replacement=True, generator=generator)
    loss = sampled_softmax_loss(user, lambda items: vectors[items], targets, classes, torch.log(n * q))
    # The target stands once with weight 1 / (n Q), as any class does on average.
    logits = user @ vectors.T
    right = logits[torch.arange(6), targets] - torch.log(n * q[targets])
    others = torch.logsumexp(logits.masked_fill(torch.eye(6, 50, dtype=torch.bool), -torch.inf), 1)
    expected = -(right - torch.logaddexp(right, others)).mean()
    assert float(loss) == pytest.approx(float(expected), rel=0.01)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("factors", 0), ("hidden", (0,)), ("epochs", 0), ("batch_size", 0), ("negatives", 0), ("top_k", 0),
        ("sampling_exponent", -1.0), ("temperature", 0.0), ("learning_rate", -1.0), ("max_history", 0),
        ("validation_share", 1.0), ("patience", 0), ("seed", -1),
    ],
)  # fmt: skip
def test_bad_options_are_named(name, value):
    with pytest.raises(ParamsError, match=name):
        youtube_dnn(two_groups(20), **{**SMALL, "top_k": 5, name: value})


def test_data_without_a_history_is_an_error():
    with pytest.raises(DataError, match="no user has two items"):
        youtube_dnn(matrix([[0], [1]]), **SMALL, top_k=5)


@pytest.mark.parametrize("change", [{"learning_rate": 1e30}, {"temperature": 1e-38}, {"learning_rate": 1e36}])
def test_divergence_names_epoch_rate_and_fix(change):
    with pytest.raises(TrainingError, match=r"youtube_dnn, .*learning rate .*lower train_i2i.youtube_dnn"):
        youtube_dnn(two_groups(20), **{**BRIEF, **change}, top_k=5)
