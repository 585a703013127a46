"""Beam search over the catalogue's trie.

Only catalogue items outside a row's excluded set can come out, each at most once. All beams of a row share one
encoded prompt: instead of copying the key/value cache for every beam and reordering it at every step, each step
appends the beams' new tokens to the cache and an attention mask lets a beam see the prompt and its own ancestors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from llm_i2i.errors import GenerationError
from llm_i2i.llm.lm import TargetLogits
from llm_i2i.llm.trie import IntArray, Trie, blocked_leaves

_NEVER = float("-inf")


@dataclass(frozen=True)
class TrieOnDevice:
    """A trie's arrays as tensors on the model's device."""

    child_start: torch.Tensor
    child_token: torch.Tensor
    child_node: torch.Tensor
    n_leaves: torch.Tensor
    leaf_item: torch.Tensor

    @classmethod
    def of(cls, trie: Trie, device: torch.device) -> "TrieOnDevice":
        """Copy `trie` to `device`."""
        names = ("child_start", "child_token", "child_node", "n_leaves", "leaf_item")
        return cls(*(torch.from_numpy(getattr(trie, name)).to(device) for name in names))


@dataclass(frozen=True)
class Generated:
    """Items of each row, best first.

    Attributes:
        items: int64 (n_rows, n), -1 where fewer than n items were found.
        logprobs: float32 (n_rows, n): natural log of P(item | prompt), -inf with -1.
    """

    items: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float32]


@dataclass
class _Beams:
    """Live beams of all rows; shapes (n_rows, n_beams), `ancestors` (n_rows, n_beams, n_steps)."""

    nodes: torch.Tensor
    tokens: torch.Tensor
    scores: torch.Tensor
    ancestors: torch.Tensor


@torch.no_grad()
def beam_search(
    module: TargetLogits,
    prompts: list[IntArray],
    trie: Trie,
    on_device: TrieOnDevice,
    excluded: list[IntArray],
    *,
    n: int,
    num_beams: int,
    pad_id: int,
) -> Generated:
    """The `n` most probable items after each prompt, as beam search finds them.

    Token log-probabilities are those of the whole vocabulary (not renormalised over the allowed tokens), so an
    item's score is its log-probability under the model. Items are prefix-free and scores only fall, so the search
    ends as soon as no live beam can beat the n-th finished item.

    Args:
        module: The model.
        prompts: Token ids, one array a row.
        trie: The catalogue.
        on_device: The same trie on the model's device.
        excluded: Item indices a row may not produce, without repeats.
        n: Items a row.
        num_beams: Width, >= n.
        pad_id: Token id of padding.

    Raises:
        GenerationError: A row excludes the whole catalogue.
    """
    if any(len(items) >= int(trie.n_leaves[0]) for items in excluded):
        raise GenerationError(
            "beam search", "a user's history covers the whole catalogue", "at least one other item"
        )
    device = on_device.child_start.device
    blocked = torch.from_numpy(blocked_leaves(trie, excluded)).to(device)
    cache, log_probs, prompt_mask = _encode_prompts(module, prompts, pad_id, device)
    n_rows, length = prompt_mask.shape
    beams = _Beams(
        nodes=torch.zeros((n_rows, 1), dtype=torch.long, device=device),
        tokens=torch.zeros((n_rows, 1), dtype=torch.long, device=device),
        scores=torch.zeros((n_rows, 1), device=device),
        ancestors=torch.zeros((n_rows, 1, 0), dtype=torch.long, device=device),
    )
    best_items = torch.full((n_rows, n), -1, dtype=torch.long, device=device)
    best_scores = torch.full((n_rows, n), _NEVER, device=device)
    positions = prompt_mask.sum(dim=1, keepdim=True)
    while True:
        parent, node, token, score = _expand(beams, log_probs, on_device, blocked, num_beams)
        leaf = on_device.leaf_item[node]
        best_scores, order = torch.cat([best_scores, score.masked_fill(leaf < 0, _NEVER)], dim=1).topk(
            n, dim=1
        )
        best_items = torch.cat([best_items, leaf], dim=1).gather(1, order)
        score = score.masked_fill(leaf >= 0, _NEVER)
        score, keep = score.topk(min(num_beams, score.shape[1]), dim=1)
        # Pruned when even a sure continuation could not enter the best n: scores only fall.
        score = score.masked_fill(score <= best_scores[:, -1:], _NEVER)
        if not bool((score > _NEVER).any()):
            break
        parent, node, token = (values.gather(1, keep) for values in (parent, node, token))
        inherited = beams.ancestors.gather(1, parent[:, :, None].expand(-1, -1, beams.ancestors.shape[2]))
        width = score.shape[1]
        cached = cache.get_seq_length()
        own = (cached + torch.arange(width, device=device)).expand(n_rows, width)[:, :, None]
        beams = _Beams(node, token, score, torch.cat([inherited, own], dim=2))
        mask = torch.zeros((n_rows, width, cached + width), dtype=torch.bool, device=device)
        mask[:, :, :length] = prompt_mask[:, None, :]
        mask.scatter_(2, beams.ancestors, value=True)
        step = beams.ancestors.shape[2] - 1
        log_probs = module.extend(
            cache,
            keep=width,
            input_ids=token,
            attention_mask=mask[:, None],
            position_ids=(positions + step).expand(-1, width),
        ).log_softmax(dim=-1)
    best_items = best_items.masked_fill(best_scores == _NEVER, -1)
    return Generated(best_items.cpu().numpy(), best_scores.cpu().numpy())


def _encode_prompts(
    module: TargetLogits, prompts: list[IntArray], pad_id: int, device: torch.device
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Cache of the left-padded prompts, log-probabilities of the next token (n_rows, 1, vocabulary), prompt mask."""
    length = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), length), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), length), dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, length - len(prompt) :] = True
    ids, mask = ids.to(device), mask.to(device)
    cache = DynamicCache()
    logits = module.extend(
        cache,
        keep=1,
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
    )
    return cache, logits.log_softmax(dim=-1), mask


def _expand(
    beams: _Beams, log_probs: torch.Tensor, trie: TrieOnDevice, blocked: torch.Tensor, num_beams: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """All open children of the live beams, the best 2 * num_beams of each row.

    Twice the width, so that as many beams live on even when every second candidate ends an item.

    Returns:
        Parent beam, node, token (int64) and score (float32), each (n_rows, n_candidates), best first.
    """
    n_rows = len(beams.nodes)
    start = trie.child_start[beams.nodes]
    count = trie.child_start[beams.nodes + 1] - start
    widest = max(1, int(count.max()))
    offsets = torch.arange(widest, device=start.device)
    exists = offsets < count[:, :, None]
    children = (start[:, :, None] + offsets).clamp(max=len(trie.child_token) - 1)
    tokens, nodes = trie.child_token[children], trie.child_node[children]
    flat_nodes = nodes.view(n_rows, -1)
    closed = (blocked.gather(1, flat_nodes) >= trie.n_leaves[flat_nodes]).view(nodes.shape)
    scores = beams.scores[:, :, None] + log_probs.gather(2, tokens)
    scores = scores.masked_fill(~exists | closed, _NEVER).view(n_rows, -1)
    score, order = scores.topk(min(2 * num_beams, scores.shape[1]), dim=1)
    parent = torch.div(order, widest, rounding_mode="floor")
    return parent, flat_nodes.gather(1, order), tokens.view(n_rows, -1).gather(1, order), score
