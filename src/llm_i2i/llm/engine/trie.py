"""The catalogue as token sequences, and the trie over them, as arrays."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from llm_i2i.arrays import IntArray
from llm_i2i.errors import BaseModelError

_NEW_TOKEN: Final = re.compile(r"<[^<>]+>")


@dataclass(frozen=True)
class Catalogue:
    """Token ids of every item, in item order.

    Attributes:
        tokens: int64 (n_items, max_tokens): an item's ids, `end_id` where `terminated`, then -1.
        lengths: int64 (n_items,): tokens of an item, `end_id` included where `terminated`.
        end_id: From `item_end`; also the id of padding.
        terminated: Whether `end_id` ends every item. It makes words prefix-free: where one item's text begins
            another's, the two still differ. Identifiers of new tokens have one length and need no end.
    """

    tokens: IntArray
    lengths: IntArray
    end_id: int
    terminated: bool = True

    @property
    def single_token(self) -> bool:
        """Whether every item is one token of its own, without `end_id`."""
        return bool(self.tokens.shape[1] == 1)

    def item(self, index: int) -> IntArray:
        """Token ids of one item, `end_id` included where `terminated`."""
        return self.tokens[index, : self.lengths[index]]

    def words(self, index: int) -> IntArray:
        """Token ids of one item, `end_id` left out."""
        return self.tokens[index, : self.lengths[index] - self.terminated]

    def concat(self, indices: IntArray) -> IntArray:
        """Token ids of several items, one after the other."""
        rows = self.tokens[indices]
        return rows[rows >= 0]


def tokenize_catalogue(texts: Sequence[str], tokenizer: Any, new_tokens: Sequence[str] = ()) -> Catalogue:
    """Tokenize item identifiers, each alone.

    Args:
        texts: One line per item, unique. Without `new_tokens` they are words, and special tokens in them are read
            as plain text. With `new_tokens` each is a run of those and nothing else, all runs of one length.
        tokenizer: A Hugging Face tokenizer, `new_tokens` added.
        new_tokens: From stage identify.

    Raises:
        BaseModelError: The tokenizer has nothing to end an item with, maps two texts to the same ids, or one item's
            ids begin another's.
    """
    end_id = item_end(tokenizer)
    if new_tokens:
        encoded = _runs_of(texts, new_tokens, tokenizer)
    else:
        words = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True).input_ids
        encoded = [[*ids, end_id] for ids in words]
    lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
    tokens = np.full((len(texts), int(lengths.max())), -1, dtype=np.int64)
    for row, ids in enumerate(encoded):
        tokens[row, : len(ids)] = ids
    if not new_tokens and (lengths == 1).any():
        raise BaseModelError("tokenizer", f"no tokens for item text {texts[int(lengths.argmin())]!r}")
    catalogue = Catalogue(tokens, lengths, end_id, terminated=not new_tokens)
    _check_prefix_free(catalogue, texts)
    return catalogue


def item_end(tokenizer: Any) -> int:
    """The token id that ends an item's words: the line feed, or where a tokenizer has none the end of a text.

    Raises:
        BaseModelError: It has neither.
    """
    # SentencePiece puts a blank before; the line feed itself is the last id either way. Others read it as a blank, as
    # an unknown word or not at all.
    ids = tokenizer("\n", add_special_tokens=False).input_ids
    if ids and "\n" in tokenizer.decode(ids[-1:], clean_up_tokenization_spaces=False):
        return int(ids[-1])
    if tokenizer.eos_token_id is None:
        found, expected = "has neither a line feed nor an end of text", "one of them, to end an item's words with"
        raise BaseModelError("tokenizer", found, expected, "choose another `base_model`")
    return int(tokenizer.eos_token_id)


def _runs_of(texts: Sequence[str], new_tokens: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Ids of identifiers made of new tokens, looked up by name so that no tokenizer merges or splits them."""
    ids = dict(zip(new_tokens, tokenizer.convert_tokens_to_ids(list(new_tokens)), strict=True))
    runs = [_NEW_TOKEN.findall(text) for text in texts]
    for text, run in zip(texts, runs, strict=True):
        if not run or "".join(run) != text or any(token not in ids for token in run):
            raise BaseModelError(
                "identifiers",
                f"{text!r} is not a run of new tokens",
                "the tokens of tokens.json",
                "run `dvc repro identify`",
            )
    return [[int(ids[token]) for token in run] for run in runs]


def _check_prefix_free(catalogue: Catalogue, texts: Sequence[str]) -> None:
    """In lexicographic order an item whose ids begin another's stands right before such an item."""
    # -1 after an item's end sorts before every token.
    order = np.lexsort(catalogue.tokens.T[::-1])
    first, second = catalogue.tokens[order[:-1]], catalogue.tokens[order[1:]]
    begins = ((first == second) | (first < 0)).all(axis=1)
    if begins.any():
        at = int(begins.argmax())
        one, other = texts[order[at]], texts[order[at + 1]]
        same = bool((first[at] == second[at]).all())
        raise BaseModelError(
            "tokenizer",
            f"maps two items to the same ids ({one!r}, {other!r})"
            if same
            else f"the ids of item {one!r} begin those of {other!r}",
            "one id sequence per item, none the beginning of another",
        )


@dataclass(frozen=True)
class Trie:
    """A prefix tree in compressed form; node 0 is the root, children of a node are contiguous.

    Attributes:
        child_start: int64 (n_nodes + 1,): children of node v are entries child_start[v]..child_start[v + 1].
        child_token: int64 (n_nodes - 1,): the token that leads to the child.
        child_node: int64 (n_nodes - 1,): the child.
        n_leaves: int64 (n_nodes,): items at or below a node.
        leaf_item: int64 (n_nodes,): the item that ends at a node, else -1.
        fork: int64 (n_nodes,): the first node at or below it that has not exactly one child: a fork or a leaf.
        path: int64 (n_items, max_tokens): nodes an item passes through, -1 after its end.
    """

    child_start: IntArray
    child_token: IntArray
    child_node: IntArray
    n_leaves: IntArray
    leaf_item: IntArray
    fork: IntArray
    path: IntArray

    def choices(self, item: int, length: int) -> tuple[IntArray, IntArray, IntArray]:
        """Where the path to an item forks.

        Args:
            item: Item index.
            length: Number of its tokens.

        Returns:
            For the tokens that have an alternative, each int64: the token's place in the item, the node at which it
            is chosen, and its number among that node's children.
        """
        to = self.path[item, :length]
        at = np.concatenate(([0], to[:-1]))
        places = np.flatnonzero(self.child_start[at + 1] - self.child_start[at] > 1)
        # Entry e of the children leads to node e + 1.
        return places, at[places], to[places] - 1 - self.child_start[at[places]]


def build_trie(catalogue: Catalogue) -> Trie:
    """Build the trie level by level, vectorised over items.

    Nodes are numbered in breadth-first order and, within a level, by (parent, token), so the children of a node
    are contiguous and sorted by token.
    """
    n_items, depth = catalogue.tokens.shape
    n_tokens = int(catalogue.tokens.max()) + 1
    path = np.full((n_items, depth), -1, dtype=np.int64)
    parents, tokens = [], []
    current = np.zeros(n_items, dtype=np.int64)
    n_nodes = 1
    for level in range(depth):
        alive = np.flatnonzero(catalogue.tokens[:, level] >= 0)
        # Sorted as pairs (parent, token) are, in a tenth of the time.
        unique, inverse = np.unique(current[alive] * n_tokens + catalogue.tokens[alive, level], return_inverse=True)
        current[alive] = n_nodes + inverse
        path[alive, level] = current[alive]
        parents.append(unique // n_tokens)
        tokens.append(unique % n_tokens)
        n_nodes += len(unique)
    parent = np.concatenate(parents)
    n_leaves = np.bincount(path[path >= 0], minlength=n_nodes).astype(np.int64)
    n_leaves[0] = n_items
    leaf_item = np.full(n_nodes, -1, dtype=np.int64)
    leaf_item[path[np.arange(n_items), catalogue.lengths - 1]] = np.arange(n_items)
    child_start = np.zeros(n_nodes + 1, dtype=np.int64)
    np.cumsum(np.bincount(parent, minlength=n_nodes), out=child_start[1:])
    return Trie(
        child_start, np.concatenate(tokens), np.arange(1, n_nodes), n_leaves, leaf_item, _forks(child_start), path
    )


def _forks(child_start: IntArray) -> IntArray:
    """`Trie.fork`: pointers to only children, followed twice as far in each round until none moves."""
    nodes = np.arange(len(child_start) - 1)
    fork = np.where(np.diff(child_start) == 1, child_start[:-1] + 1, nodes)
    while True:
        further = fork[fork]
        if (further == fork).all():
            return fork
        fork = further


def closed_nodes(trie: Trie, excluded: list[IntArray]) -> IntArray:
    """The nodes that a row may not enter, since all items at or below them are excluded.

    Of those on one path only the first is listed: no search gets to the others. So a row needs as many numbers as it
    excludes items, not as many as the trie has nodes.

    Args:
        trie: The trie.
        excluded: Item indices that a row may not produce, one array per row, without repeats; never all items.

    Returns:
        int64 (n_rows, n_closed): sorted, filled up with `n_nodes`; at least one column.
    """
    rows = [_first_closed(trie, items) for items in excluded]
    closed = np.full((len(rows), max(1, *map(len, rows))), len(trie.n_leaves), dtype=np.int64)
    for row, nodes in enumerate(rows):
        closed[row, : len(nodes)] = nodes
    return closed


def _first_closed(trie: Trie, items: IntArray) -> IntArray:
    """The closed node nearest to the root on the way to each of `items`, sorted."""
    path = trie.path[items]
    nodes, place, below = np.unique(path, return_inverse=True, return_counts=True)
    # -1 stands after an item's end, where no node is.
    closed = ((nodes >= 0) & (below == trie.n_leaves[nodes]))[place.reshape(path.shape)]
    return np.unique(path[np.arange(len(path)), closed.argmax(axis=1)])


@dataclass(frozen=True)
class TrieOnDevice:
    """A trie's arrays as tensors on the model's device."""

    child_start: torch.Tensor
    child_token: torch.Tensor
    leaf_item: torch.Tensor
    fork: torch.Tensor

    @classmethod
    def of(cls, trie: Trie, device: torch.device) -> "TrieOnDevice":
        """Copy `trie` to `device`."""
        names = ("child_start", "child_token", "leaf_item", "fork")
        return cls(*(torch.from_numpy(getattr(trie, name)).to(device) for name in names))

    def children(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Children of nodes, in as many columns as the node with the most children has.

        Args:
            nodes: int64, any shape.

        Returns:
            Tokens (int64), nodes (int64) and whether there is a child at all (bool), each with one dimension more
            than `nodes`; values where there is no child are meaningless.
        """
        start = self.child_start[nodes]
        count = self.child_start[nodes + 1] - start
        offsets = torch.arange(max(1, int(count.max())), device=start.device)
        entries = (start[..., None] + offsets).clamp(max=len(self.child_token) - 1)
        # Entry e of the children leads to node e + 1.
        return self.child_token[entries], entries + 1, offsets < count[..., None]

    def runs(self, nodes: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens on the way from the nodes' parents to their `ends`.

        Args:
            nodes: int64, any shape; not the root.
            ends: int64, the same shape: the nodes themselves, or the ends of runs of only children from them.

        Returns:
            Tokens (int64) and whether there is one (bool), each with one dimension more than `nodes`, as long as the
            longest run; values after a run's end are meaningless.
        """
        tokens, there = [], [torch.ones_like(nodes, dtype=torch.bool)]
        while True:
            # Entry v - 1 of the children leads to node v.
            tokens.append(self.child_token[nodes - 1])
            going_on = there[-1] & (nodes != ends)
            if not bool(going_on.any()):
                return torch.stack(tokens, dim=-1), torch.stack(there, dim=-1)
            nodes = torch.where(going_on, self.child_start[nodes] + 1, nodes)
            there.append(going_on)
