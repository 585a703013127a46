"""The long-tail weighted loss (LLM-I2I, arXiv 2512.21595, section 3.2), and the logits that it is computed from."""

from collections.abc import Callable

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from llm_i2i.llm.engine.batches import Batch
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.trie import TrieOnDevice

# Gives the logits, float32 (n_targets, n_classes), of the classes that labels number: from the module, what its
# `states` gives, and the targets' trie nodes, int64 (n_targets,), where there are any.
LogitsFunction = Callable[[TargetLogits, torch.Tensor, torch.Tensor | None], torch.Tensor]
# Logits held at a time, 1 GiB in fp32: beyond that they are computed in chunks, and again in the backward pass.
MOST_LOGITS = 2**28


def logits_over_vocabulary(module: TargetLogits, states: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    """Logits whose classes are all tokens."""
    return module.head(states, None)


def logits_over_tokens(token_ids: torch.Tensor) -> LogitsFunction:
    """Logits whose classes are these tokens, int64 (n_classes,)."""
    return lambda module, states, _: module.head(states, token_ids)


def logits_over_children(trie: TrieOnDevice) -> LogitsFunction:
    """Logits whose classes are the children of each target's trie node.

    The product of their softmaxes along the way to an item is a distribution over the catalogue.
    """

    def logits(module: TargetLogits, states: torch.Tensor, nodes: torch.Tensor | None) -> torch.Tensor:
        if nodes is None:
            raise ValueError("a softmax over children needs sequences with nodes")
        ids, _, exists = trie.children(nodes)
        return module.head(states, None).gather(1, ids).masked_fill(~exists, float("-inf"))

    return logits


def batch_nll(module: TargetLogits, batch: Batch, logits: LogitsFunction, weight_total: float) -> torch.Tensor:
    """`weighted_nll` of a batch's targets, which never holds more than `MOST_LOGITS` logits.

    Args:
        module: The model.
        batch: Sequences with targets.
        logits: The classes.
        weight_total: Sum of the weights over the optimizer step, > 0.

    Returns:
        Scalar.
    """

    def nll(states: torch.Tensor, part: slice) -> torch.Tensor:
        nodes = None if batch.nodes is None else batch.nodes[part]
        return weighted_nll(logits(module, states, nodes), batch.labels[part], batch.weights[part], weight_total)

    states = module.states(batch.inputs, batch.rows, batch.positions)
    size = max(1, MOST_LOGITS // module.lm.get_output_embeddings().weight.shape[0])
    parts = [slice(start, start + size) for start in range(0, len(states), size)]
    if len(parts) <= 1:
        return nll(states, slice(None))
    losses = [checkpoint(nll, states[part], part, use_reentrant=False) for part in parts]
    return torch.stack(losses).sum()


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
