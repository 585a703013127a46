"""A version of the index as flat arrays in a folder: memory-mapped, so that all workers share one copy.

VERSION/manifest.json holds each array's SHA-256, the values of the columns to filter on, and the manifest of the index.
VERSION is the hash of that manifest, so a folder's name answers for every byte in it. The arrays, n items:

    id_bounds int64 (n + 1,), id_bytes uint8: the item ids in UTF-8, ascending, so that a search finds one
    index_bounds int64 (n + 1,), index_items int32, index_scores float32: the index, as `i2i.lookup.Neighbours`
    text_bounds, text_items, text_scores: the same, nearest by text, for items without neighbours in the index
    popular_items int32 (n,), popular_counts int64 (n,): most interactions first
    column_NUMBER int32 (n,): which value of a column an item has
"""

import logging
from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.arrays import Array
from llm_i2i.errors import ArtifactError
from llm_i2i.files import file_sha256, json_sha256, read_json, remove, staged, write_json
from llm_i2i.i2i.index import from_index
from llm_i2i.i2i.lookup import Neighbours, own_query
from llm_i2i.schema import ITEM_ID

log = logging.getLogger(__name__)

TEXT_NEIGHBOURS = 100
NO_COLUMNS = (ITEM_ID, "title", "text", "n_train")  # of the catalogue: nobody filters on them
CACHED = 1 << 16
CELLS = 1 << 24  # similarities held at once


class FlatIndex:
    """A version, checked and ready to serve; nothing changes after construction.

    Args:
        folder: STORE/versions/VERSION.

    Raises:
        ArtifactError: A part is missing, or is not what the manifest says.
    """

    def __init__(self, folder: Path) -> None:
        manifest = read_json(folder / "manifest.json", fix="")
        self.version = folder.name
        if json_sha256(manifest)[:16] != self.version:
            raise ArtifactError(str(folder / "manifest.json"), "is damaged", f"the hash {self.version}")
        arrays = {name: _mapped(folder / f"{name}.npy", sha256) for name, sha256 in manifest["files"].items()}
        self.manifest: dict[str, Any] = manifest["index"]
        self.last_m, self.decay = own_query(self.manifest)
        self.index, self.text = (
            Neighbours(_view(arrays[f"{of}_bounds"]), arrays[f"{of}_items"], arrays[f"{of}_scores"])
            for of in ("index", "text")
        )
        self.popular_items, self.popular_counts = arrays["popular_items"], arrays["popular_counts"]
        self.columns = {
            name: ({value: code for code, value in enumerate(values)}, arrays[f"column_{number}"])
            for number, (name, values) in enumerate(manifest["columns"])
        }
        ids = _Ids(_view(arrays["id_bounds"]), _view(arrays["id_bytes"]))
        self.n_items = len(ids)
        # What is often asked for is kept: id by place, and place by id (None if the catalogue does not have it).
        self.item_id = lru_cache(CACHED)(ids.item_id)
        self.place = lru_cache(CACHED)(ids.place)


class _Ids:
    """Item ids, ascending by their UTF-8 bytes, found without an object for each."""

    def __init__(self, bounds: memoryview, ids: memoryview) -> None:
        self._bounds, self._ids = bounds, ids

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def item_id(self, place: int) -> str:
        return str(self._id(place), "utf-8")

    def place(self, item_id: str) -> int | None:
        wanted = item_id.encode("utf-8", "surrogatepass")
        place = bisect_left(range(len(self)), wanted, key=self._id)
        return place if place < len(self) and self._id(place) == wanted else None

    def _id(self, place: int) -> bytes:
        return bytes(self._ids[self._bounds[place] : self._bounds[place + 1]])


def write_version(
    index: pd.DataFrame, manifest: Mapping[str, Any], items: pd.DataFrame, vectors: Array | None, versions: Path
) -> str:
    """Write a version and read it back.

    Args:
        index: `schema.INDEX`.
        manifest: Of the index.
        items: `schema.ITEMS`, sorted by id, with any columns to filter on.
        vectors: float32 (n_items, n_dimensions), rows of unit length or zero; None = no recommendations by text.
        versions: Folder of all versions.

    Returns:
        The version's name.

    Raises:
        ArtifactError: The index and the catalogue do not fit each other, or the copy is not what was written.
    """
    if not items[ITEM_ID].is_monotonic_increasing:
        raise ArtifactError("items", "are not sorted by item_id", fix="run `dvc repro tag`")
    similar = from_index(index, items)
    ids = [item.encode() for item in items[ITEM_ID]]
    popular = np.argsort(-items["n_train"].to_numpy(), kind="stable")
    names = [name for name in items.columns if name not in NO_COLUMNS]
    coded = [pd.factorize(items[name].astype("str")) for name in names]
    arrays: dict[str, Array] = {
        "id_bounds": np.cumsum([0, *map(len, ids)], dtype=np.int64),
        "id_bytes": np.frombuffer(b"".join(ids), np.uint8),
        "index_bounds": similar.indptr.astype(np.int64),
        "index_items": similar.indices.astype(np.int32),
        "index_scores": similar.data,
        **_nearest_by_text(np.flatnonzero(np.diff(similar.indptr) == 0), len(items), vectors),
        "popular_items": popular.astype(np.int32),
        "popular_counts": items["n_train"].to_numpy(dtype=np.int64)[popular],
        **{f"column_{n}": codes.astype(np.int32) for n, (codes, _) in enumerate(coded)},
    }
    written = versions / "next"
    with staged(written) as out:
        for name, array in arrays.items():
            np.save(out / f"{name}.npy", array, allow_pickle=False)
        description = {
            "files": {name: file_sha256(out / f"{name}.npy") for name in arrays},
            "columns": [[name, values.tolist()] for name, (_, values) in zip(names, coded, strict=True)],
            "index": dict(manifest),
        }
        write_json(description, out / "manifest.json")
    final = versions / json_sha256(description)[:16]
    remove(final)
    written.replace(final)
    FlatIndex(final)
    log.info("serve: version %s, %s neighbours of %s items", final.name, f"{len(index):,}", f"{len(items):,}")
    return final.name


def _nearest_by_text(rows: Array, n_items: int, vectors: Array | None) -> dict[str, Array]:
    """The nearest items by text of some items: positive cosines, best first, ties by place."""
    sizes = np.zeros(n_items, np.int64)
    items, scores = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    step = max(1, CELLS // max(1, n_items))
    for start in range(0, len(rows) if vectors is not None else 0, step):
        part = rows[start : start + step]
        similarities = vectors[part] @ vectors.T  # type: ignore[index, union-attr]
        similarities[np.arange(len(part)), part] = 0
        for row, cosines in zip(part, similarities, strict=True):
            found = np.flatnonzero(cosines > 0)
            found = found[np.argsort(-cosines[found], kind="stable")[:TEXT_NEIGHBOURS]]
            sizes[row] = len(found)
            items.append(found.astype(np.int32))
            scores.append(cosines[found].astype(np.float32))
    return {
        "text_bounds": np.concatenate([[0], np.cumsum(sizes)]),
        "text_items": np.concatenate(items),
        "text_scores": np.concatenate(scores),
    }


def _view(array: Array) -> memoryview:
    """The same numbers: reading single ones through numpy takes several times as long."""
    return memoryview(array)  # type: ignore[arg-type] # numpy's stubs do not know that an array is a buffer


def _mapped(path: Path, sha256: str) -> Array:
    """A file's array, read only where it is used, after its hash has been checked."""
    try:
        if file_sha256(path) != sha256:
            raise ArtifactError(str(path), "is damaged", f"the SHA-256 {sha256}")
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise ArtifactError(str(path), f"unreadable ({error})", "an array") from error
