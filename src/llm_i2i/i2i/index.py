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
from llm_i2i.schema import INDEX, ITEM_ID

WHERE = "index"


def to_index(similar: Similar, items: pd.DataFrame) -> pd.DataFrame:
    """Turn similarities into the index table.

    Args:
        similar: CSR (n_items, n_items), each row best first, as of `swing`.
        items: `schema.ITEMS`; the row number is the item index.

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
    ids = items[ITEM_ID].astype("str")
    table = {
        ITEM_ID: ids.take(rows).reset_index(drop=True),
        "neighbour_id": ids.take(similar.indices).reset_index(drop=True),
        "score": similar.data,
        "rank": rank,
    }
    return pd.DataFrame(table).astype(INDEX)


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
    twice = pd.DataFrame({"row": rows, "neighbour": neighbours}).duplicated().to_numpy()
    _check("neighbours are listed twice", twice, index, order)
    matrix = sparse.csr_array((scores, neighbours.astype(np.int32), indptr), shape=(len(items), len(items)))
    matrix.has_sorted_indices = False
    return matrix


def index_sha256(index: pd.DataFrame) -> str:
    """Return the SHA-256 of an index's content (ids, scores bit by bit, ranks), whatever file format holds it."""
    digest = hashlib.sha256()
    for name in (ITEM_ID, "neighbour_id"):
        digest.update("\n".join(index[name]).encode() + b"\n\n")
    digest.update(index["score"].to_numpy(dtype="<f4").tobytes())
    digest.update(index["rank"].to_numpy(dtype="<i4").tobytes())
    return digest.hexdigest()


def _check(what: str, wrong: Array, index: pd.DataFrame, order: Array) -> None:
    """Raise ArtifactError naming the first wrong row."""
    if wrong.any():
        first = index.iloc[int(order[np.flatnonzero(wrong)[0]])].to_dict()
        raise ArtifactError(WHERE, f"{int(wrong.sum()):,} {what} (first: {first})", "an index as `to_index` makes it")
