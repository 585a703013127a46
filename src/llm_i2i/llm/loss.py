"""The long-tail weighted loss (LLM-I2I, arXiv 2512.21595, section 3.2)."""

import torch
from torch.nn import functional

from llm_i2i.llm.trie import TrieOnDevice


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


def among_children(logits: torch.Tensor, nodes: torch.Tensor, trie: TrieOnDevice) -> torch.Tensor:
    """Logits of the tokens that lead on from trie nodes.

    The product of their softmaxes along the way to an item is a distribution over the catalogue.

    Args:
        logits: float32 (n_targets, vocabulary).
        nodes: int64 (n_targets,).
        trie: The catalogue.

    Returns:
        float32 (n_targets, most children of a node): in the order of the node's children, then -inf.
    """
    tokens, _, exists = trie.children(nodes)
    return logits.gather(1, tokens).masked_fill(~exists, float("-inf"))
