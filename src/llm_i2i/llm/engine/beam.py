"""Beam search and sampling over the catalogue's trie.

Only catalogue items outside a row's excluded set can come out, each at most once. All beams of a row share one
encoded prompt: instead of copying the key/value cache for every beam and reordering it at every step, each step
appends the beams' new tokens to the cache and an attention mask lets a beam see the prompt and its own ancestors.
What all prompts begin with is encoded once for all rows. Where tokens that follow of themselves cost nothing (softmax
over the catalogue), a step goes from fork to fork of the trie: an item is found as soon as no other shares its
beginning, and what leads to the next fork is fed at once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from llm_i2i.arrays import IntArray
from llm_i2i.errors import GenerationError
from llm_i2i.llm.engine.models import TargetLogits
from llm_i2i.llm.engine.sampling import Sampling, perturb
from llm_i2i.llm.engine.trie import Trie, TrieOnDevice, blocked_leaves
from llm_i2i.params import Softmax

_NEVER = float("-inf")


@dataclass(frozen=True)
class Generated:
    """Items of each row, best (beam search) or first drawn (sampling) first.

    Attributes:
        items: int64 (n_rows, n), -1 where fewer than n items were found.
        logprobs: float32 (n_rows, n): natural log of P(item | prompt), -inf with -1.
        log_q: float64 (n_rows, n): log-probability in the distribution that was drawn from (see `sampling`), -inf
            with -1; in beam search `logprobs` again.
    """

    items: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float32]
    log_q: npt.NDArray[np.float64]


@dataclass
class _Nodes:
    """Trie nodes of all rows, best first; all shapes (n_rows, n_nodes).

    Attributes:
        parent: int64: the beam a node came from.
        node: int64.
        score: float64: what is maximised, -inf = not there. The log-probability, perturbed in sampling.
        logprob: float64.
        log_q: float64.
    """

    parent: torch.Tensor
    node: torch.Tensor
    score: torch.Tensor
    logprob: torch.Tensor
    log_q: torch.Tensor

    @classmethod
    def root(cls, n_rows: int, device: torch.device) -> "_Nodes":
        """The root of every row."""
        whole = torch.zeros((n_rows, 1), dtype=torch.long, device=device)
        value = torch.zeros((n_rows, 1), dtype=torch.float64, device=device)
        return cls(whole, whole, value, value, value)

    def best(self, score: torch.Tensor, size: int) -> "_Nodes":
        """The `size` nodes of highest `score`, which takes the place of their own."""
        score, order = score.topk(min(size, score.shape[1]), dim=1)
        return _Nodes(
            self.parent.gather(1, order),
            self.node.gather(1, order),
            score,
            self.logprob.gather(1, order),
            self.log_q.gather(1, order),
        )

    def first(self, n: int) -> "_Nodes":
        """The first `n` nodes of each row."""
        return _Nodes(*(values[:, :n] for values in _values(self)))

    def joined(self, other: "_Nodes") -> "_Nodes":
        """These nodes and `other`'s."""
        return _Nodes(*(torch.cat([a, b], dim=1) for a, b in zip(_values(self), _values(other), strict=True)))


def _values(nodes: _Nodes) -> tuple[torch.Tensor, ...]:
    return nodes.parent, nodes.node, nodes.score, nodes.logprob, nodes.log_q


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
    sampling: Sampling | None = None,
    softmax: Softmax = "vocabulary",
) -> Generated:
    """The `n` most probable items after each prompt, as beam search finds them; or `n` drawn ones.

    With `softmax="vocabulary"` an item's score is its log-probability as text under the model. With "catalogue" each
    step's softmax is over the tokens that some item goes on with, excluded or not: the score is its log-probability
    among the items, and what follows of itself costs nothing.

    Items are prefix-free and scores only fall, also perturbed ones, so the search ends as soon as no live beam can
    beat the n-th finished item. With `sampling` the same search maximises perturbed log-probabilities, which draws
    exactly (Kool et al. 2019), whatever the width >= n.

    Args:
        module: The model.
        prompts: Token ids, one array a row.
        trie: The catalogue.
        on_device: The same trie on the model's device.
        excluded: Item indices a row may not produce, without repeats.
        n: Items a row.
        num_beams: Width, >= n.
        pad_id: Token id of padding.
        sampling: Draw items without replacement instead (from the open items, with either softmax).
        softmax: As in training.

    Raises:
        GenerationError: A row excludes the whole catalogue.
    """
    if any(len(items) >= int(trie.n_leaves[0]) for items in excluded):
        raise GenerationError(
            "beam search", "a user's history covers the whole catalogue", "at least one other item"
        )
    device = on_device.child_start.device
    blocked = torch.from_numpy(blocked_leaves(trie, excluded)).to(device)
    ends = on_device.fork if softmax == "catalogue" else torch.arange(len(on_device.fork), device=device)
    cache, log_probs, seen = _encode_prompts(module, prompts, pad_id, device)
    beams = _Nodes.root(len(prompts), device)
    finished: _Nodes | None = None
    while True:
        children = _expand(
            beams, log_probs, on_device, blocked, size=2 * num_beams, sampling=sampling, softmax=softmax
        )
        is_item = on_device.leaf_item[ends[children.node]] >= 0
        ended = children.best(children.score.masked_fill(~is_item, _NEVER), n)
        finished = ended if finished is None else finished.joined(ended)
        finished = finished.best(finished.score, n)
        beams = children.best(children.score.masked_fill(is_item, _NEVER), num_beams)
        if finished.score.shape[1] == n:
            # Pruned when even a sure continuation could not enter the best n: scores only fall.
            beams.score = beams.score.masked_fill(beams.score <= finished.score[:, -1:], _NEVER)
        # Best first, so the dead ones of a row are its last: as many columns go on as some row has live beams.
        live = int((beams.score > _NEVER).sum(dim=1).max())
        if live == 0:
            break
        beams = beams.first(live)
        tokens, there = on_device.runs(beams.node, ends[beams.node])
        seen = seen.gather(1, beams.parent[:, :, None].expand(-1, -1, seen.shape[2]))
        logits, seen = _feed(module, cache, tokens, there & (beams.score > _NEVER)[:, :, None], seen)
        log_probs = logits.log_softmax(dim=-1)
        beams.node = ends[beams.node]
    finished.node = ends[finished.node]
    return _generated(finished, on_device, n)


def _feed(
    module: TargetLogits, cache: Any, tokens: torch.Tensor, there: torch.Tensor, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Append a run of tokens to every beam.

    Args:
        module: The model.
        cache: Of the prompts and what was fed before.
        tokens: int64 (n_rows, n_beams, n_tokens).
        there: bool, the same shape: whether there is a token; a run's tokens are its first ones.
        seen: bool (n_rows, n_beams, n_cached): what each beam sees of the cache.

    Returns:
        Logits after each run, float32 (n_rows, n_beams, vocabulary); `seen` with what was fed.
    """
    n_rows, width, longest = tokens.shape
    last = (there.sum(dim=2) - 1).clamp(min=0)
    place = torch.arange(longest, device=tokens.device)
    # Runs differ in length: all tokens but the last of every run stand first, without gaps, then the last ones.
    before = (there & (place < last[:, :, None])).view(n_rows, -1)
    n_before = int(before.sum(dim=1).max())
    order = before.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :n_before]
    beam = torch.cat([order // longest, torch.arange(width, device=tokens.device).expand(n_rows, -1)], dim=1)
    at = torch.cat([order % longest, last], dim=1)
    real = torch.cat([before.gather(1, order), there[:, :, 0]], dim=1)
    ids = tokens.view(n_rows, -1).gather(1, beam * longest + at)
    own = (beam[:, None, :] == torch.arange(width, device=tokens.device)[:, None]) & real[:, None, :]
    among = (beam[:, :, None] == beam[:, None, :]) & (at[:, None, :] <= at[:, :, None]) & real[:, None, :]
    of_beam = seen.gather(1, beam[:, :, None].expand(-1, -1, seen.shape[2]))
    logits = module.extend(
        cache,
        keep=width,
        input_ids=ids,
        attention_mask=torch.cat([of_beam, among], dim=2)[:, None],
        position_ids=seen.sum(dim=2).gather(1, beam) + at,
    )
    return logits, torch.cat([seen, own], dim=2)


def _generated(finished: _Nodes, trie: TrieOnDevice, n: int) -> Generated:
    """Finished nodes as items, padded to `n` columns."""
    there = (finished.score > _NEVER).cpu().numpy()
    pad = ((0, 0), (0, n - there.shape[1]))
    items = np.where(there, trie.leaf_item[finished.node].cpu().numpy(), -1)
    logprob, log_q = (
        np.where(there, values.cpu().numpy(), _NEVER) for values in (finished.logprob, finished.log_q)
    )
    return Generated(
        np.pad(items, pad, constant_values=-1),
        np.pad(logprob, pad, constant_values=_NEVER).astype(np.float32),
        np.pad(log_q, pad, constant_values=_NEVER),
    )


def _encode_prompts(
    module: TargetLogits, prompts: list[IntArray], pad_id: int, device: torch.device
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Cache of the prompts, log-probabilities of the next token (n_rows, 1, vocabulary), mask (n_rows, 1, n_cached).

    What the prompts share at their beginning stands first, encoded once; the rests follow, left-padded.
    """
    shared = _common_beginning(prompts)
    length = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), length), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), length), dtype=torch.bool)
    ids[:, :shared] = torch.from_numpy(prompts[0][:shared])
    mask[:, :shared] = True
    for row, prompt in enumerate(prompts):
        start = length - (len(prompt) - shared)
        ids[row, start:] = torch.from_numpy(prompt[shared:])
        mask[row, start:] = True
    ids, mask = ids.to(device), mask.to(device)
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache = DynamicCache()
    if shared:
        module.extend(
            cache,
            keep=1,
            input_ids=ids[:1, :shared],
            attention_mask=mask[:1, :shared],
            position_ids=places[:1, :shared],
        )
        cache.batch_repeat_interleave(len(prompts))
    logits = module.extend(
        cache,
        keep=1,
        input_ids=ids[:, shared:],
        attention_mask=mask,
        position_ids=places[:, shared:],
    )
    return cache, logits.log_softmax(dim=-1), mask[:, None]


def _common_beginning(prompts: list[IntArray]) -> int:
    """Tokens that all prompts begin with, at most all but the last of the shortest; 0 for a single prompt."""
    if len(prompts) == 1:
        return 0
    shortest = min(len(prompt) for prompt in prompts) - 1
    same = np.all([prompt[:shortest] == prompts[0][:shortest] for prompt in prompts], axis=0)
    return shortest if same.all() else int(same.argmin())


def _expand(
    beams: _Nodes,
    log_probs: torch.Tensor,
    trie: TrieOnDevice,
    blocked: torch.Tensor,
    *,
    size: int,
    sampling: Sampling | None,
    softmax: Softmax,
) -> _Nodes:
    """All open children of the live beams, the best `size` of each row.

    `size` is twice the width, so that as many beams live on even when every second candidate ends an item.
    """
    n_rows = len(beams.node)
    tokens, nodes, exists = trie.children(beams.node)
    flat_nodes = nodes.view(n_rows, -1)
    closed = (blocked.gather(1, flat_nodes) >= trie.n_leaves[flat_nodes]).view(nodes.shape)
    dead = ~exists | closed | beams.score.isneginf()[:, :, None]
    steps = log_probs.gather(2, tokens).double().masked_fill(~exists, _NEVER)
    if softmax == "catalogue":
        steps = steps.log_softmax(dim=2)
    steps = steps.masked_fill(dead, _NEVER)
    logprob = beams.logprob[:, :, None] + steps
    score, log_q = logprob, logprob
    if sampling is not None:
        noise = sampling.noise.gather(1, flat_nodes).view(nodes.shape)
        score, log_q = perturb(steps, beams.log_q, beams.score, noise, sampling.temperature)
    parent = torch.arange(nodes.shape[1], device=nodes.device)[None, :, None].expand(nodes.shape)
    flat = [values.reshape(n_rows, -1) for values in (parent, nodes, score, logprob, log_q)]
    return _Nodes(*flat).best(flat[2], size)
