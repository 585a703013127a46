"""Hashes that are equal on every machine: seeded order keys and content hashes of tables."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray


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


def content_sha256(table: pd.DataFrame) -> str:
    """SHA-256 of a table's values, independent of file format and library version.

    Args:
        table: Columns of str, integer, float or bool without missing strings; the row and column order count.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{len(table)}".encode())
    for name, column in table.items():
        digest.update(f"|{name}:{column.dtype}|".encode())
        if pd.api.types.is_numeric_dtype(column.dtype):
            values = column.to_numpy()
            digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
        else:
            encoded = [value.encode() for value in column]
            digest.update(np.array([len(value) for value in encoded], dtype="<i8").tobytes())
            digest.update(b"".join(encoded))
    return digest.hexdigest()
