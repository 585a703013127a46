import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from llm_i2i.llm.engine.loss import weighted_nll


def test_hand_computed():
    # Two classes, equal logits: every target costs log 2. Weights 4 and 1 of a step that weighs 10.
    loss = weighted_nll(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([4.0, 1.0]), 10.0)
    assert math.isclose(loss.item(), 5 * math.log(2) / 10, rel_tol=1e-6)


@given(st.integers(1, 20), st.integers(2, 9), st.integers(0, 10_000))
@settings(max_examples=50)
def test_weights_of_one_give_plain_cross_entropy(n, classes, seed):
    torch.manual_seed(seed)
    logits, labels = torch.randn(n, classes), torch.randint(classes, (n,))
    expected = functional.cross_entropy(logits, labels)
    torch.testing.assert_close(weighted_nll(logits, labels, torch.ones(n), n), expected)


@given(st.lists(st.integers(1, 7), min_size=4, max_size=4), st.integers(0, 10_000))
@settings(max_examples=50)
def test_four_micro_batches_equal_one(sizes, seed):
    torch.manual_seed(seed)
    n = sum(sizes)
    logits, labels, weights = torch.randn(n, 5), torch.randint(5, (n,)), torch.rand(n) * 4 + 0.1
    total = float(weights.sum())
    whole = weighted_nll(logits, labels, weights, total)
    parts = zip(logits.split(sizes), labels.split(sizes), weights.split(sizes), strict=True)
    torch.testing.assert_close(sum(weighted_nll(*part, total) for part in parts), whole)
