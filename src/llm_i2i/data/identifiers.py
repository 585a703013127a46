"""Item identifiers: how an LLM names an item.

- `title`: the item's words, unique (`item_text`);
- `id`: the item id as text, as the paper does;
- `token`: one new token per item;
- `code`: a semantic code, residual k-means over text and co-occurrence, as in TIGER (Rajput et al. 2023, section 3.1)
  with k-means in place of its RQ-VAE: near items share their first tokens.
"""

import logging

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.data.item_text import numbered, one_line
from llm_i2i.params import IdentifyParams
from llm_i2i.schema import ITEM_ID, USER_ID

log = logging.getLogger(__name__)
FEATURES = 64  # dimensions of each of the two views


def identify_items(
    items: pd.DataFrame, train: pd.DataFrame, *, text: FloatArray, params: IdentifyParams, seed: int
) -> tuple[list[str], list[str]]:
    """Name every item.

    Args:
        items: schema.ITEMS.
        train: Training interactions (schema.INTERACTIONS); only `code` reads them, and `text`.
        text: float (n_items, n_dimensions), the items' text vectors.
        params: Section identify.
        seed: Of decompositions and clusterings.

    Returns:
        One identifier per item, unique, in item order; the new tokens they consist of, empty for words.
    """
    if params.identifier == "title":
        return items["text"].tolist(), []
    if params.identifier == "id":
        ids = [str(item_id) for item_id in items[ITEM_ID]]
        numbers = [str(row) for row in range(len(ids))]
        texts = [one_line(item_id) or number for item_id, number in zip(ids, numbers, strict=True)]
        return numbered(texts, numbers), []
    if params.identifier == "token":
        tokens = [f"<item_{row}>" for row in range(len(items))]
        return tokens, list(tokens)
    codes = semantic_codes(
        item_features(items, train, text=text, seed=seed), levels=params.code_levels, size=params.code_size, seed=seed
    )
    return _spelled(codes)


def item_features(
    items: pd.DataFrame,
    train: pd.DataFrame,
    *,
    text: FloatArray,
    seed: int,
    sizes: tuple[int, int] = (FEATURES, FEATURES),
) -> FloatArray:
    """What an item is called beside who took it, each view of unit length, or zero where it says nothing.

    Interactions: the item's users, each weighted by the inverse root of how much it took. Both views are reduced by
    truncated SVD.

    Args:
        items: schema.ITEMS.
        train: schema.INTERACTIONS, of items in the catalogue.
        text: float (n_items, n_dimensions), the items' text vectors.
        seed: Of the randomized decompositions.
        sizes: Dimensions of the text and of the interactions.

    Returns:
        float64 (n_items, at most sum(sizes)).
    """
    users, columns = np.unique(train[USER_ID].to_numpy(dtype=object).astype(str), return_inverse=True)
    rows = pd.Index(items[ITEM_ID]).get_indexer(pd.Index(train[ITEM_ID]))
    taken = sparse.csr_array((np.ones(len(train)), (rows, columns)), shape=(len(items), len(users)))
    taken.data[:] = 1.0
    taken = taken @ sparse.diags_array(1.0 / np.sqrt(taken.sum(axis=0)))
    return np.hstack([reduced(text, sizes[0], seed=seed), reduced(taken, sizes[1], seed=seed)])


def reduced(matrix: sparse.csr_array | FloatArray, size: int, *, seed: int) -> FloatArray:
    """Truncated SVD of the rows, each of unit length or zero.

    Args:
        matrix: (n_rows, n_columns).
        size: Dimensions; fewer where the matrix has no more.
        seed: Of the randomized decomposition.

    Returns:
        float64 (n_rows, at most size).
    """
    size = min(size, min(matrix.shape) - 1)
    if size < 1:
        return np.zeros((matrix.shape[0], 0))
    # One thread: the order of sums, and with it the last bits, would depend on their number.
    with threadpool_limits(1):
        found: FloatArray = normalize(TruncatedSVD(size, random_state=seed).fit_transform(matrix))
    return found


def semantic_codes(features: FloatArray, *, levels: int, size: int, seed: int) -> IntArray:
    """Residual k-means: each level clusters what the levels before left over; a last number tells equal codes apart.

    Args:
        features: float64 (n_items, n_features).
        levels: Clusterings.
        size: Centroids per level; fewer where fewer distinct residuals are left.
        seed: Of the clusterings.

    Returns:
        int64 (n_items, levels + 1), rows unique: centroids in [0, size), then the item's place, in item order,
        among those of the same centroids.
    """
    residual = features.copy()
    codes = np.zeros((len(features), levels + 1), dtype=np.int64)
    for level in range(levels):
        distinct = len(np.unique(residual, axis=0))
        clusters = KMeans(min(size, distinct), n_init=1, random_state=seed + level)
        with threadpool_limits(1):
            codes[:, level] = clusters.fit_predict(residual)
        residual -= clusters.cluster_centers_[codes[:, level]]
    groups = pd.DataFrame(codes[:, :levels]).groupby(list(range(levels)), sort=False)
    codes[:, levels] = groups.cumcount()
    log.info(
        "identify: %d codes for %d items, at most %d items per code, squared error left %.3f",
        groups.ngroups,
        len(codes),
        codes[:, levels].max() + 1,
        (residual**2).sum() / max((features**2).sum(), 1e-12),
    )
    return codes


def _spelled(codes: IntArray) -> tuple[list[str], list[str]]:
    """Codes as runs of new tokens, a set of its own for each level: `<c0_5><c1_17><c2_3><c3_0>`."""
    names = [[f"<c{level}_{value}>" for value in codes[:, level]] for level in range(codes.shape[1])]
    used = [f"<c{level}_{value}>" for level, column in enumerate(codes.T) for value in np.unique(column)]
    return ["".join(parts) for parts in zip(*names, strict=True)], used
