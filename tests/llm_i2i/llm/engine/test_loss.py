import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from llm_i2i.llm.engine import loss as loss_module
from llm_i2i.llm.engine.batches import Sequence, collate
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.loss import (
    batch_nll,
    logits_over_children,
    logits_over_tokens,
    logits_over_vocabulary,
    weighted_nll,
)
from llm_i2i.llm.engine.models import load_for_inference
from llm_i2i.llm.engine.trie import TrieOnDevice, build_trie, tokenize_catalogue


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


@pytest.mark.parametrize("classes", ["vocabulary", "tokens", "children"])
def test_chunks_give_the_same_loss_and_gradients_and_hold_less(base_model, runtime, tokenizer, classes, monkeypatch):
    module = TargetLogits(load_for_inference(base_model, None, runtime).train())
    trie = build_trie(tokenize_catalogue(["ab", "ac", "b", "cd", "ce"], tokenizer))
    root = np.zeros(6, dtype=np.int64)
    sequence = Sequence(np.arange(10, 22), np.zeros(12, dtype=np.int64), np.arange(4, 10), np.arange(6) % 3,
                        np.arange(1.0, 7.0), root)  # fmt: skip
    batch = collate([sequence, sequence], 0)
    logits = {
        "vocabulary": logits_over_vocabulary,
        "tokens": logits_over_tokens(torch.tensor([70, 71, 75])),
        "children": logits_over_children(TrieOnDevice.of(trie, runtime.device)),
    }[classes]
    sizes = []

    def counted(logits, *arguments):
        sizes.append(len(logits))
        return weighted_nll(logits, *arguments)

    monkeypatch.setattr(loss_module, "weighted_nll", counted)

    def run() -> tuple[float, list[torch.Tensor]]:
        module.zero_grad()
        loss = batch_nll(module, batch, logits, 10.0)
        loss.backward()
        return loss.item(), [p.grad.clone() for p in module.parameters()]

    whole, gradients = run()
    assert sizes == [12]
    monkeypatch.setattr(loss_module, "MOST_LOGITS", 5 * module.lm.config.vocab_size)
    parts, of_parts = run()
    assert sizes[1:] == [5, 5, 2, 2, 5, 5]  # once forward, once more backward
    assert parts == pytest.approx(whole, rel=1e-6)
    for one, other in zip(gradients, of_parts, strict=True):
        torch.testing.assert_close(one, other)
