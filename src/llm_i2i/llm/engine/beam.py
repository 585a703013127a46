"""Beam search and sampling over the catalogue's trie.

Only catalogue items outside a row's excluded set can come out, each at most once. All beams of a row share one
encoded prompt: instead of copying the key/value cache for every beam and reordering it at every step, each step
appends the beams' new tokens to the cache, and an attention mask lets a beam see the prompt and its own ancestors.
The common beginning of all prompts is encoded once for all rows. With the softmax over the catalogue, a token without
an alternative has probability 1: a step then goes from fork to fork of the trie, an item is found as soon as no other
shares its beginning, and the tokens that lead to the next fork are fed together.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from llm_i2i.arrays import IntArray
from llm_i2i.errors import GenerationError
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.sampling import Sampling, perturb
from llm_i2i.llm.engine.trie import Catalogue, Trie, TrieOnDevice, blocked_leaves, build_trie
from llm_i2i.params import Softmax

_NEVER = float("-inf")


@dataclass(frozen=True)
class Generated:
    """Items of each row, the best (beam search) or the first drawn (sampling) first.

    Attributes:
        items: int64 (n_rows, n), -1 where fewer than n items were found.
        logprobs: float32 (n_rows, n): natural log of P(item | prompt), -inf with -1.
        log_q: float64 (n_rows, n): log-probability in the distribution drawn from (see `sampling`), -inf with -1;
            in beam search the same as `logprobs`.
    """

    items: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float32]
    log_q: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ItemModel:
    """A causal LM and the catalogue whose items it names.

    Attributes:
        module: The model.
        trie: The catalogue.
        on_device: The same trie on the model's device.
        pad_id: Token id of padding.
        softmax: As in training. With "vocabulary" an item's score is its log-probability as text under the model.
            With "catalogue" each step's softmax is over the tokens that continue some item, excluded or not: the
            score is the item's log-probability among the items.
    """

    module: TargetLogits
    trie: Trie
    on_device: TrieOnDevice
    pad_id: int
    softmax: Softmax

    @classmethod
    def of(
        cls, module: TargetLogits, catalogue: Catalogue, device: torch.device, *, softmax: Softmax
    ) -> "ItemModel":
        """Build the trie of `catalogue` and copy it to `device`, the model's."""
        trie = build_trie(catalogue)
        return cls(module, trie, TrieOnDevice.of(trie, device), catalogue.end_id, softmax)


class _Nodes(NamedTuple):
    """Trie nodes of all rows, best first; all shapes (n_rows, n_nodes).

    Attributes:
        parent: int64: the beam a node came from.
        node: int64.
        score: float64: what is maximised: the log-probability, perturbed in sampling; -inf = no node.
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
        """The `size` nodes of highest `score`, which replaces their own."""
        score, order = score.topk(min(size, score.shape[1]), dim=1)
        return _Nodes(*(values.gather(1, order) for values in self))._replace(score=score)

    def first(self, n: int) -> "_Nodes":
        """The first `n` nodes of each row."""
        return _Nodes(*(values[:, :n] for values in self))

    def joined(self, other: "_Nodes") -> "_Nodes":
        """These nodes and `other`'s."""
        return _Nodes(*(torch.cat(both, dim=1) for both in zip(self, other, strict=True)))


@torch.no_grad()
def beam_search(
    model: ItemModel,
    prompts: list[IntArray],
    excluded: list[IntArray],
    *,
    n: int,
    num_beams: int,
    sampling: Sampling | None = None,
) -> Generated:
    """The `n` most probable items after each prompt, as beam search finds them; or `n` drawn ones.

    Items are prefix-free and scores only fall, perturbed ones too, so the search ends as soon as no live beam can
    beat the n-th finished item. With `sampling` the same search maximises perturbed log-probabilities, which draws
    exactly (Kool et al. 2019) at any width >= n.

    Args:
        model: The model and its catalogue.
        prompts: Token ids, one array per row.
        excluded: Item indices that a row may not produce, without repeats.
        n: Items per row.
        num_beams: Width, >= n.
        sampling: Draw items without replacement instead (from the open items, with either softmax).

    Raises:
        GenerationError: A row excludes the whole catalogue.
    """
    on_device, softmax = model.on_device, model.softmax
    if any(len(items) >= int(model.trie.n_leaves[0]) for items in excluded):
        raise GenerationError(
            "beam search", "a user's history covers the whole catalogue", "at least one other item"
        )
    device = on_device.child_start.device
    blocked = torch.from_numpy(blocked_leaves(model.trie, excluded)).to(device)
    ends = on_device.fork if softmax == "catalogue" else torch.arange(len(on_device.fork), device=device)
    cache, log_probs, seen = _encode_prompts(model, prompts, device)
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
            # Scores only fall: a beam below the n-th finished item cannot enter the best n any more.
            beaten = beams.score <= finished.score[:, -1:]
            beams = beams._replace(score=beams.score.masked_fill(beaten, _NEVER))
        # Best first, so a row's dead beams are its last: keep as many columns as the row with most live beams has.
        live = int((beams.score > _NEVER).sum(dim=1).max())
        if live == 0:
            break
        beams = beams.first(live)
        tokens, there = on_device.runs(beams.node, ends[beams.node])
        seen = seen.gather(1, beams.parent[:, :, None].expand(-1, -1, seen.shape[2]))
        logits, seen = _feed(model.module, cache, tokens, there & (beams.score > _NEVER)[:, :, None], seen)
        log_probs = logits.log_softmax(dim=-1)
        beams = beams._replace(node=ends[beams.node])
    return _generated(finished._replace(node=ends[finished.node]), on_device, n)


def _feed(
    module: TargetLogits, cache: Any, tokens: torch.Tensor, there: torch.Tensor, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Append a run of tokens to every beam.

    Args:
        module: The model.
        cache: Of the prompts and the tokens fed before.
        tokens: int64 (n_rows, n_beams, n_tokens).
        there: bool, the same shape: whether there is a token; a run's tokens are its first ones.
        seen: bool (n_rows, n_beams, n_cached): which cached tokens each beam sees.

    Returns:
        Logits after each run, float32 (n_rows, n_beams, vocabulary); `seen`, extended by the fed tokens.
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
    mask, places = torch.cat([of_beam, among], dim=2)[:, None], seen.sum(dim=2).gather(1, beam) + at
    logits = module.extend(cache, keep=width, input_ids=ids, attention_mask=mask, position_ids=places)
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
    model: ItemModel, prompts: list[IntArray], device: torch.device
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Cache of the prompts, log-probabilities of the next token (n_rows, 1, vocabulary), mask (n_rows, 1, n_cached).

    The common beginning of the prompts stands first, encoded once; the rests follow, left-padded.
    """
    shared = _common_beginning(prompts)
    length = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), length), model.pad_id, dtype=torch.long)
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
        model.module.extend(
            cache,
            keep=1,
            input_ids=ids[:1, :shared],
            attention_mask=mask[:1, :shared],
            position_ids=places[:1, :shared],
        )
        cache.batch_repeat_interleave(len(prompts))
    logits = model.module.extend(
        cache, keep=1, input_ids=ids[:, shared:], attention_mask=mask, position_ids=places[:, shared:]
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

    `size` is twice the width, so that enough beams live on even when every second candidate ends an item.
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
