"""The long-tail weighted loss (LLM-I2I, arXiv 2512.21595, section 3.2), and the logits that it is computed from."""

from collections.abc import Callable

import torch
from torch.nn import functional

from llm_i2i.llm.engine.batches import Batch
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.trie import TrieOnDevice

# Gives the logits, float32 (n_targets, n_classes), of the classes that a batch's labels number.
LogitsFunction = Callable[[TargetLogits, Batch], torch.Tensor]


def logits_over_vocabulary(module: TargetLogits, batch: Batch) -> torch.Tensor:
    """Logits whose classes are all tokens."""
    return module(batch.inputs, batch.rows, batch.positions, None)  # type: ignore[no-any-return]  # of a torch module


def logits_over_tokens(token_ids: torch.Tensor) -> LogitsFunction:
    """Logits whose classes are these tokens, int64 (n_classes,)."""
    return lambda module, batch: module(batch.inputs, batch.rows, batch.positions, token_ids)


def logits_over_children(trie: TrieOnDevice) -> LogitsFunction:
    """Logits whose classes are the children of each target's trie node.

    The product of their softmaxes along the way to an item is a distribution over the catalogue.
    """

    def logits(module: TargetLogits, batch: Batch) -> torch.Tensor:
        if batch.nodes is None:
            raise ValueError("a softmax over children needs sequences with nodes")
        ids, _, exists = trie.children(batch.nodes)
        return logits_over_vocabulary(module, batch).gather(1, ids).masked_fill(~exists, float("-inf"))

    return logits


def weighted_nll(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, weight_total: float
) -> torch.Tensor:
    """Weighted negative log-likelihood of the target tokens.

    sum_t w_t * -log softmax(logits_t)[label_t] / weight_total. `weight_total` is the sum of the weights of the
    *whole optimizer step*, over all its micro-batches: dividing each micro-batch by its own sum and averaging
    would give targets in micro-batches with few or light targets too much weight. With all weights 1 this is
    plain cross-entropy.

    Args:
        logits: float32 (n_targets, n_classes).
        labels: int64 (n_targets,).
        weights: float32 (n_targets,), > 0.
        weight_total: Sum of the weights over the optimizer step, > 0.

    Returns:
        Scalar.
    """
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return (losses * weights).sum() / weight_total
