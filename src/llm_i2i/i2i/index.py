"""The index as a table: CSR to neighbours by id and back, and the hash of its content."""

import hashlib

import numpy as np
import pandas as pd
from scipy import sparse

from llm_i2i.arrays import Array
from llm_i2i.catalogue import item_indices
from llm_i2i.errors import ArtifactError
from llm_i2i.i2i._similar import Similar
from llm_i2i.i2i.user_items import row_pointers
from llm_i2i.schema import INDEX, ITEM_ID, encode, text_bytes

WHERE = "index"


def to_index(similar: Similar, items: pd.DataFrame, *, encoded: bool = False) -> pd.DataFrame:
    """Turn similarities into the index table.

    Args:
        similar: CSR (n_items, n_items), each row best first, as of `swing`.
        items: `schema.ITEMS`; the row number is the item index.
        encoded: Whether the identifiers come encoded (schema.encode), in a fifth of the memory.

    Returns:
        `schema.INDEX`, sorted by item index, then rank 1..n.

    Raises:
        ArtifactError: The shapes do not fit.
    """
    if similar.shape != (len(items), len(items)):
        raise ArtifactError(WHERE, f"similarities have shape {similar.shape}", f"({len(items)}, {len(items)})")
    sizes = np.diff(similar.indptr)
    rows = np.repeat(np.arange(len(items)), sizes)
    rank = np.arange(similar.indices.size) - np.repeat(similar.indptr[:-1], sizes) + 1
    ids = pd.Index(items[ITEM_ID], dtype="str")
    pair = {ITEM_ID: rows.astype(np.int32), "neighbour_id": similar.indices}
    table = {
        **{name: encode(pd.Series(pd.Categorical.from_codes(codes, ids))) for name, codes in pair.items()},
        "score": pd.Series(similar.data, dtype=INDEX["score"]),
        "rank": pd.Series(rank, dtype=INDEX["rank"]),
    }
    index = pd.DataFrame(table, copy=False)
    return index if encoded else index.astype(INDEX)


def from_index(index: pd.DataFrame, items: pd.DataFrame) -> Similar:
    """Turn an index table back into similarities; the exact inverse of `to_index`.

    Args:
        index: `schema.INDEX`, in any row order.
        items: `schema.ITEMS`.

    Returns:
        CSR (n_items, n_items), float32, each row by rank.

    Raises:
        ArtifactError: A column is missing, an id is unknown, a score is not finite and positive, an item
            neighbours itself or one item twice, or the ranks of an item are not 1..n by score.
    """
    missing = [name for name in INDEX if name not in index.columns]
    if missing:
        raise ArtifactError(WHERE, f"columns {missing} are missing", str(list(INDEX)))
    rows = item_indices(index[ITEM_ID], items, where=WHERE)
    neighbours = item_indices(index["neighbour_id"], items, where=WHERE)
    scores = index["score"].to_numpy(dtype=np.float32)
    ranks = index["rank"].to_numpy(dtype=np.int64)
    order = np.lexsort((ranks, rows))
    rows, neighbours, scores, ranks = rows[order], neighbours[order], scores[order], ranks[order]
    indptr = row_pointers(np.bincount(rows, minlength=len(items)))
    same_item = np.diff(rows) == 0
    _check("scores are not finite and positive", ~(np.isfinite(scores) & (scores > 0)), index, order)
    _check("items neighbour themselves", rows == neighbours, index, order)
    _check("ranks are not 1..n of their item", ranks != np.arange(ranks.size) - indptr[rows] + 1, index, order)
    rises = np.concatenate([[False], same_item & (np.diff(scores) > 0)])
    _check("scores rise with rank", rises, index, order)
    pairs = rows * len(items) + neighbours
    if (np.diff(np.sort(pairs)) == 0).any():
        _check("neighbours are listed twice", pd.Series(pairs).duplicated().to_numpy(), index, order)
    matrix = sparse.csr_array((scores, neighbours.astype(np.int32), indptr), shape=(len(items), len(items)))
    matrix.has_sorted_indices = False
    return matrix


def index_sha256(index: pd.DataFrame) -> str:
    """Return the SHA-256 of an index's content (ids, scores bit by bit, ranks), whatever file format holds it."""
    digest = hashlib.sha256()
    for name in (ITEM_ID, "neighbour_id"):
        for texts in text_bytes(encode(index[name]), end="\n"):
            digest.update(texts)
        digest.update(b"\n" if len(index) else b"\n\n")
    digest.update(index["score"].to_numpy(dtype="<f4").tobytes())
    digest.update(index["rank"].to_numpy(dtype="<i4").tobytes())
    return digest.hexdigest()


def _check(what: str, wrong: Array, index: pd.DataFrame, order: Array) -> None:
    """Raise ArtifactError naming the first wrong row."""
    if wrong.any():
        first = index.iloc[int(order[np.flatnonzero(wrong)[0]])].to_dict()
        raise ArtifactError(WHERE, f"{int(wrong.sum()):,} {what} (first: {first})", "an index as `to_index` makes it")
