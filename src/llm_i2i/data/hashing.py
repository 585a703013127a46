"""Hashes that are equal on every machine: seeded order keys and content hashes of tables."""

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from llm_i2i.schema import encode, text_bytes, texts_of

Mask = NDArray[np.bool_]
_PART: Final = 1_000_000  # rows whose strings are in memory at a time


def seeded_hash(seed: int, *columns: Iterable[str]) -> NDArray[np.uint64]:
    """Hash rows of strings under a seed: an order that favours no identifier and no file order.

    Args:
        seed: Non-negative; another seed gives an unrelated order.
        columns: One or more equally long columns of strings, shape (n,) each.

    Returns:
        BLAKE2b with 8 bytes of each row, shape (n,), dtype uint64.
    """
    # The key is hashed once; a copy per row is cheaper than a keyed hash per row.
    base = hashlib.blake2b(digest_size=8, key=str(seed).encode())
    digests = bytearray()
    for row in zip(*columns, strict=True):
        state = base.copy()
        # Lengths keep ("ab", "c") and ("a", "bc") apart whatever characters identifiers hold.
        state.update("".join(f"{len(value)}:{value}" for value in row).encode())
        digests += state.digest()
    return np.frombuffer(bytes(digests), dtype="<u8").astype(np.uint64)


def places_by_hash(ties: Mask, seed: int, *columns: pd.Series) -> NDArray[np.int64]:
    """The order of sorted rows in which those that tie follow their seeded hash, and all others stay.

    Args:
        ties: Whether a row ties with the one before it, bool (n,); the first does not.
        seed: Of the hash.
        columns: What is hashed: strings, encoded or not, shape (n,) each. Only rows that tie are, for it is a loop in
            Python.

    Returns:
        Places of the rows, int64 (n,).
    """
    rivals = ties.copy()
    rivals[:-1] |= ties[1:]
    rows = np.flatnonzero(rivals)
    run = np.cumsum(~ties)[rows]
    places = np.arange(len(ties))
    parts = np.array_split(rows, 1 + len(rows) // _PART)
    hashes = [seeded_hash(seed, *(column.iloc[part] for column in columns)) for part in parts]
    places[rows] = rows[np.lexsort((np.concatenate(hashes), run))]
    return places


def content_sha256(table: pd.DataFrame) -> str:
    """SHA-256 of a table's values, independent of file format and library version.

    Args:
        table: Columns of str (encoded or not), integer, float or bool without missing strings; the row and column
            order count.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{len(table)}".encode())
    for name, column in table.items():
        if pd.api.types.is_numeric_dtype(column.dtype):
            digest.update(f"|{name}:{column.dtype}|".encode())
            values = column.to_numpy()
            digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
        else:
            encoded = encode(column)
            digest.update(f"|{name}:{encoded.cat.categories.dtype}|".encode())
            lengths = np.asarray(pc.binary_length(texts_of(encoded))).astype("<i8")
            for part in np.array_split(encoded.cat.codes.to_numpy(), 1 + len(column) // _PART):
                digest.update(lengths[part].tobytes())
            for texts in text_bytes(encoded):
                digest.update(texts)
    return digest.hexdigest()
