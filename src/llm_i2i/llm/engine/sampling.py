"""Drawing distinct items from the trie: Gumbel-top-k over whole items, not over tokens.

The distribution drawn from is q(item) = product over the item's tokens of
softmax(token log-probabilities / temperature over the children that lead to an open item): a distribution over the
open items, since every node divides its whole mass among its open children. Stochastic beam search (Kool et al.
2019, "Stochastic Beams and Where to Find Them", algorithm 1) gives exactly the items, in the same order, that
successive draws from q without replacement would give.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

_NEVER = float("-inf")


@dataclass(frozen=True)
class Sampling:
    """How items are drawn.

    Attributes:
        temperature: > 0; 1 leaves the model's distribution as it is; near 0 the most probable items are drawn.
        noise: float64 (n_rows, n_nodes): standard Gumbel noise of every row and trie node, from `gumbel_noise`.
    """

    temperature: float
    noise: torch.Tensor


def gumbel_noise(keys: list[str], n_nodes: int, *, seed: int) -> npt.NDArray[np.float64]:
    """Standard Gumbel noise of every node, from one random stream per key.

    A user's items depend on the seed and the user alone: not on the other users of a batch, nor on their order.

    Args:
        keys: One per row, e.g. user ids.
        n_nodes: Nodes of the trie.
        seed: Of the run.

    Returns:
        float64 (len(keys), n_nodes).
    """
    noise = np.empty((len(keys), n_nodes))
    for row, key in enumerate(keys):
        stream = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")
        noise[row] = np.random.default_rng([seed, stream]).gumbel(size=n_nodes)
    return noise


def perturb(
    steps: torch.Tensor, parent_log_q: torch.Tensor, parent_score: torch.Tensor, noise: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Perturbed log-probabilities of all children, their maximum set to the parent's (Kool et al., equation 6).

    Args:
        steps: float64 (n_rows, n_beams, n_children): token log-probabilities, -inf for closed children.
        parent_log_q: float64 (n_rows, n_beams): log q of the parents, -inf for dead ones.
        parent_score: float64 (n_rows, n_beams): perturbed log-probability of the parents.
        noise: float64, as `steps`: standard Gumbel noise of the children.
        temperature: > 0.

    Returns:
        Scores and log q of the children, both as `steps`; -inf for closed ones.
    """
    closed = steps.isneginf() | parent_log_q.isneginf()[:, :, None]
    # The greatest is moved to 0 before the division, so that a tiny temperature does not overflow.
    shifted = steps - steps.amax(dim=2, keepdim=True)
    log_q = parent_log_q[:, :, None] + (shifted / temperature).log_softmax(dim=2)
    perturbed = (log_q + noise).masked_fill(closed, _NEVER)
    gap = perturbed - perturbed.amax(dim=2, keepdim=True)
    # log(1 - exp(gap)), in the form that loses no digits on either side of log 2.
    log_rest = torch.where(gap > -0.6931, (-gap.expm1()).log(), (-gap.exp()).log1p())
    v = parent_score[:, :, None] - perturbed + log_rest
    score = parent_score[:, :, None] - v.clamp(min=0.0) - (-v.abs()).exp().log1p()
    return score.masked_fill(closed, _NEVER), log_q.masked_fill(closed, _NEVER)


def nucleus(log_q: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.bool_]:
    """Which of the found items belong to the nucleus.

    The found items in falling order of q, until they hold `top_p` of the summed q; always at least the first.

    Args:
        log_q: float64 (n_rows, n_found): -inf where nothing was found.
        top_p: In (0, 1]; 1 keeps all.

    Returns:
        bool, as `log_q`.
    """
    found = np.isfinite(log_q)
    if top_p >= 1.0:
        return found
    order = np.argsort(-log_q, axis=1, kind="stable")
    mass = np.exp(np.take_along_axis(log_q, order, axis=1) - log_q.max(axis=1, keepdims=True))
    before = np.cumsum(mass, axis=1) - mass
    inside = np.empty_like(found)
    np.put_along_axis(inside, order, before < top_p * mass.sum(axis=1, keepdims=True), axis=1)
    return inside & found
