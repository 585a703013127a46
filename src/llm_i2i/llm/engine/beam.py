"""Beam search and sampling over the catalogue's trie.

Only catalogue items outside a row's excluded set can come out, each at most once. All beams of a row share one
encoded prompt: instead of copying the key/value cache for every beam and reordering it at every step, each step
appends the beams' new tokens to the cache, and an attention mask lets a beam see the prompt and its own ancestors.
The common beginning of all prompts is encoded once for all rows. With the softmax over the catalogue, a token without
an alternative has probability 1: a step then goes from fork to fork of the trie, an item is found as soon as no other
shares its beginning, and the tokens that lead to the next fork are fed together.

Tensors are as large as what is alive. The host reads that size at every step, on a GPU too: bounds that the trie gives
beforehand would let the GPU run on, but feed more tokens and one step more. On an H100 that was slower for titles and
made no difference for codes (benchmarks/results/gpu.json).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from transformers import DynamicCache

from llm_i2i.arrays import IntArray
from llm_i2i.errors import GenerationError, TrainingError
from llm_i2i.llm.engine.batches import Sequence, collate
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.sampling import Sampling, perturb
from llm_i2i.llm.engine.trie import Catalogue, TrieOnDevice, build_trie, closed_nodes
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


class NextItems:
    """Ranks the catalogue: from the logits where every item is one token, else by beam search over the trie."""

    def __init__(self, module: TargetLogits, catalogue: Catalogue, device: torch.device, *, softmax: Softmax) -> None:
        """A causal LM on `device` and the catalogue whose items it names; the softmax as in training.

        With "vocabulary" an item's score is its log-probability as text under the model. With "catalogue" each
        step's softmax is over the tokens that continue some item, excluded or not: the score is the item's
        log-probability among the items.
        """
        self.module, self.catalogue, self.device, self.softmax = module, catalogue, device, softmax
        self.trie = build_trie(catalogue)
        self.on_device = TrieOnDevice.of(self.trie, device)
        # Where a step leads from a node: with the softmax over the catalogue to the next fork.
        ends = self.trie.fork if softmax == "catalogue" else np.arange(len(self.trie.fork))
        self.ends = torch.from_numpy(ends).to(device)

    def top(
        self,
        prompts: list[IntArray],
        excluded: list[IntArray],
        *,
        n: int,
        num_beams: int,
        sampling: Sampling | None = None,
    ) -> Generated:
        """As `beam_search`; where every item is one token and none is drawn, read off the logits.

        This is exact; the log-probabilities are then those among the catalogue's tokens, as trained.
        """
        if sampling is not None or not self.catalogue.single_token:
            return beam_search(self, prompts, excluded, n=n, num_beams=num_beams, sampling=sampling)
        self.check_open(excluded)
        return self._read_off(prompts, excluded, n)

    def check_open(self, excluded: list[IntArray]) -> None:
        """Raise GenerationError where a row excludes the whole catalogue."""
        if any(len(items) >= len(self.catalogue.lengths) for items in excluded):
            raise GenerationError(
                "next items", "a user's history covers the whole catalogue", "at least one other item"
            )

    @torch.no_grad()
    def _read_off(self, prompts: list[IntArray], excluded: list[IntArray], n: int) -> Generated:
        # Labels and weights are not used.
        one, weight = np.zeros(1, dtype=np.int64), np.ones(1)
        last_read = [Sequence(p, np.zeros_like(p), one + len(p) - 1, one, weight) for p in prompts]
        batch = collate(last_read, self.catalogue.end_id).to(self.device)
        columns = torch.from_numpy(self.catalogue.tokens[:, 0]).to(self.device)
        log_p = self.module(batch.inputs, batch.rows, batch.positions, columns).log_softmax(dim=-1)
        rows = np.repeat(np.arange(len(excluded)), [len(items) for items in excluded])
        log_p[torch.from_numpy(rows), torch.from_numpy(np.concatenate(excluded))] = _NEVER
        scores, items = log_p.topk(min(n, log_p.shape[1]), dim=1)
        return _padded(items, scores, scores.double(), scores > _NEVER, n)


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
    model: NextItems,
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
    model.check_open(excluded)
    on_device, ends, device = model.on_device, model.ends, model.device
    closed = torch.from_numpy(closed_nodes(model.trie, excluded)).to(device)
    cache, log_probs, seen = _encode_prompts(model, prompts, device)
    beams = _Nodes.root(len(prompts), device)
    finished = beams.first(0)
    while True:
        children = _expand(model, beams, log_probs, closed, sampling)
        # Twice the width, so that enough beams live on even when every second candidate ends an item.
        children = children.best(children.score, 2 * num_beams)
        is_item = on_device.leaf_item[ends[children.node]] >= 0
        ended = children.best(children.score.masked_fill(~is_item, _NEVER), n)
        finished = finished.joined(ended)
        finished = finished.best(finished.score, n)
        beams = children.best(children.score.masked_fill(is_item, _NEVER), num_beams)
        if finished.score.shape[1] == n:
            # Scores only fall: a beam below the n-th finished item cannot enter the best n any more.
            beaten = beams.score <= finished.score[:, -1:]
            beams = beams._replace(score=beams.score.masked_fill(beaten, _NEVER))
        alive = beams.score > _NEVER
        # Best first, so a row's dead beams are its last: keep as many columns as the row with most live beams has.
        width, broken = torch.stack([alive.sum(dim=1).max(), beams.score.isnan().sum()]).tolist()
        _check(broken == 0)
        if width == 0:
            break
        beams, alive = beams.first(width), alive[:, :width]
        tokens, there = on_device.runs(beams.node, ends[beams.node])
        seen = seen.gather(1, beams.parent[:, :, None].expand(-1, -1, seen.shape[2]))
        logits, seen = _feed(model.module, cache, tokens, there & alive[:, :, None], seen)
        log_probs = logits.log_softmax(dim=-1)
        beams = beams._replace(node=ends[beams.node])
    items = on_device.leaf_item[ends[finished.node]]
    return _padded(items, finished.logprob, finished.log_q, finished.score > _NEVER, n)


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


def _check(finite: bool) -> None:
    """Stop where the model's probabilities are no numbers: no item would come out, which looks like a result."""
    if not finite:
        raise TrainingError(
            "next items",
            "the generator gives probabilities that are not numbers",
            "a model whose training has not diverged",
            "lower the learning rate that it was trained with, or choose another base model",
        )


def _padded(items: torch.Tensor, logprobs: torch.Tensor, log_q: torch.Tensor, there: torch.Tensor, n: int) -> Generated:
    """Items, where there is one, in `n` columns."""
    _check(not logprobs.isnan().any())

    def padded(values: torch.Tensor, nothing: float) -> npt.NDArray[Any]:
        found = values.masked_fill(~there, nothing)
        return functional.pad(found, (0, n - found.shape[1]), value=nothing).cpu().numpy()

    return Generated(padded(items, -1), padded(logprobs.float(), _NEVER), padded(log_q, _NEVER))


def _encode_prompts(
    model: NextItems, prompts: list[IntArray], device: torch.device
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Cache of the prompts, log-probabilities of the next token (n_rows, 1, vocabulary), mask (n_rows, 1, n_cached).

    The common beginning of the prompts stands first, encoded once; the rests follow, left-padded.
    """
    shared = _common_beginning(prompts)
    length = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), length), model.catalogue.end_id, dtype=torch.long)
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
    model: NextItems, beams: _Nodes, log_probs: torch.Tensor, closed: torch.Tensor, sampling: Sampling | None
) -> _Nodes:
    """All children of the beams; of score -inf where there is none, it is closed or its beam is dead.

    Args:
        model: The model and its catalogue.
        beams: Where the search is.
        log_probs: float32 (n_rows, n_beams, vocabulary): of the next token.
        closed: From `closed_nodes`.
        sampling: As in `beam_search`.
    """
    n_rows = len(beams.node)
    tokens, nodes, exists = model.on_device.children(beams.node)
    flat_nodes = nodes.view(n_rows, -1)
    place = torch.searchsorted(closed, flat_nodes).clamp(max=closed.shape[1] - 1)
    is_closed = (closed.gather(1, place) == flat_nodes).view(nodes.shape)
    dead = ~exists | is_closed | beams.score.isneginf()[:, :, None]
    steps = log_probs.gather(2, tokens).double().masked_fill(~exists, _NEVER)
    if model.softmax == "catalogue":
        steps = steps.log_softmax(dim=2)
    steps = steps.masked_fill(dead, _NEVER)
    logprob = beams.logprob[:, :, None] + steps
    score, log_q = logprob, logprob
    if sampling is not None:
        noise = sampling.noise.gather(1, flat_nodes).view(nodes.shape)
        score, log_q = perturb(steps, beams.log_q, beams.score, noise, sampling.temperature)
    parent = torch.arange(nodes.shape[1], device=nodes.device)[None, :, None].expand(nodes.shape)
    return _Nodes(*(values.reshape(n_rows, -1) for values in (parent, nodes, score, logprob, log_q)))
