"""The catalogue as token sequences, and the trie over them, as arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llm_i2i.errors import BaseModelError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Catalogue:
    """Token ids of every item, in item order.

    Attributes:
        tokens: int64 (n_items, max_tokens): an item's ids, `end_id`, then -1.
        lengths: int64 (n_items,): tokens of an item, `end_id` included.
        end_id: The line feed that ends every item. It makes the set prefix-free: an item whose text begins
            another's still ends differently.
    """

    tokens: IntArray
    lengths: IntArray
    end_id: int

    def item(self, index: int) -> IntArray:
        """Token ids of one item, `end_id` included."""
        return self.tokens[index, : self.lengths[index]]

    def concat(self, indices: IntArray) -> IntArray:
        """Token ids of several items, one after the other."""
        rows = self.tokens[indices]
        return rows[rows >= 0]


def tokenize_catalogue(texts: list[str], tokenizer: Any) -> Catalogue:
    """Tokenize item texts, each alone, special tokens read as plain text.

    Args:
        texts: One line of text an item, unique.
        tokenizer: A Hugging Face tokenizer.

    Raises:
        BaseModelError: The tokenizer has no single line-feed token, or maps two texts to the same ids.
    """
    newline = tokenizer("\n", add_special_tokens=False).input_ids
    # SentencePiece tokenizers put a blank before; the line feed itself is the last id either way.
    end_id = int(newline[-1])
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids
    lengths = np.array([len(ids) + 1 for ids in encoded], dtype=np.int64)
    tokens = np.full((len(texts), int(lengths.max())), -1, dtype=np.int64)
    for row, ids in enumerate(encoded):
        tokens[row, : len(ids)] = ids
        tokens[row, len(ids)] = end_id
    if (lengths == 1).any():
        raise BaseModelError("tokenizer", f"no tokens for item text {texts[int(lengths.argmin())]!r}")
    _, first, counts = np.unique(tokens, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        text = texts[int(first[counts.argmax()])]
        raise BaseModelError(
            "tokenizer", f"maps two item texts to the same ids (first: {text!r})", "one item an id sequence"
        )
    return Catalogue(tokens, lengths, end_id)


@dataclass(frozen=True)
class Trie:
    """A prefix tree in compressed form; node 0 is the root, children of a node are contiguous.

    Attributes:
        child_start: int64 (n_nodes + 1,): children of node v are entries child_start[v]..child_start[v + 1].
        child_token: int64 (n_nodes - 1,): the token that leads to the child.
        child_node: int64 (n_nodes - 1,): the child.
        n_leaves: int64 (n_nodes,): items at or below a node.
        leaf_item: int64 (n_nodes,): the item that ends at a node, else -1.
        path: int64 (n_items, max_tokens): nodes an item passes through, -1 after its end.
    """

    child_start: IntArray
    child_token: IntArray
    child_node: IntArray
    n_leaves: IntArray
    leaf_item: IntArray
    path: IntArray


def build_trie(catalogue: Catalogue) -> Trie:
    """Build the trie level by level, vectorised over items.

    Nodes are numbered in breadth-first order and, within a level, by (parent, token), so the children of a node
    are contiguous and sorted by token.
    """
    n_items, depth = catalogue.tokens.shape
    path = np.full((n_items, depth), -1, dtype=np.int64)
    parents, tokens = [], []
    current = np.zeros(n_items, dtype=np.int64)
    n_nodes = 1
    for level in range(depth):
        alive = np.flatnonzero(catalogue.tokens[:, level] >= 0)
        pairs = np.stack([current[alive], catalogue.tokens[alive, level]], axis=1)
        unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
        current[alive] = n_nodes + inverse.ravel()
        path[alive, level] = current[alive]
        parents.append(unique[:, 0])
        tokens.append(unique[:, 1])
        n_nodes += len(unique)
    parent = np.concatenate(parents)
    n_leaves = np.bincount(path[path >= 0], minlength=n_nodes).astype(np.int64)
    n_leaves[0] = n_items
    leaf_item = np.full(n_nodes, -1, dtype=np.int64)
    leaf_item[path[np.arange(n_items), catalogue.lengths - 1]] = np.arange(n_items)
    child_start = np.zeros(n_nodes + 1, dtype=np.int64)
    np.cumsum(np.bincount(parent, minlength=n_nodes), out=child_start[1:])
    return Trie(child_start, np.concatenate(tokens), np.arange(1, n_nodes), n_leaves, leaf_item, path)


def blocked_leaves(trie: Trie, excluded: list[IntArray]) -> npt.NDArray[np.int32]:
    """Excluded items at or below every node.

    Args:
        trie: The trie.
        excluded: Item indices a row may not produce, one array a row, without repeats.

    Returns:
        int32 (n_rows, n_nodes). A node is closed for a row where this equals `trie.n_leaves`.
    """
    blocked = np.zeros((len(excluded), len(trie.n_leaves)), dtype=np.int32)
    for row, items in enumerate(excluded):
        nodes = trie.path[items]
        blocked[row] = np.bincount(nodes[nodes >= 0], minlength=len(trie.n_leaves))
        blocked[row, 0] = len(items)
    return blocked
