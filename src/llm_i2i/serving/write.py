"""Write a version: the tables of a run as the flat arrays that flat.py reads."""

import logging
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.arrays import Array
from llm_i2i.catalogue import item_indices
from llm_i2i.data.columns import UNIT_BEGINS
from llm_i2i.errors import ArtifactError
from llm_i2i.files import file_sha256, json_sha256, remove, staged, take, write_array, write_json
from llm_i2i.i2i.index import from_index
from llm_i2i.schema import ITEM_ID, SOURCE_REAL, TIMESTAMP, USER_ID
from llm_i2i.serving.flat import FlatIndex, searchable

log = logging.getLogger(__name__)

TEXT_NEIGHBOURS = 100
HALF_LIFE = 90.0  # days
NO_COLUMNS = (ITEM_ID, "title", "text", "n_train")  # of the catalogue: nobody filters on them
CELLS = 1 << 24  # similarities held at once


@dataclass(frozen=True)
class Content:
    """What a version is made of.

    Attributes:
        index: `schema.INDEX`.
        manifest: Of the index.
        items: `schema.ITEMS`, sorted by id, with any columns to filter on.
        vectors: float32 (n_items, n_dimensions), rows of unit length or zero; None = no recommendations by text.
        fused: `schema.FUSED` that the index was trained on; None = nobody can tell who supports an edge.
        real: `schema.INDEX` of arm real; None = nobody can tell what an edge owes to synthetic pairs.
        train: `schema.INTERACTIONS`; None = nobody can tell when an item was popular.
        half_life: After so many days an interaction counts half as popularity.
    """

    index: pd.DataFrame
    manifest: Mapping[str, Any]
    items: pd.DataFrame
    vectors: Array | None = None
    fused: pd.DataFrame | None = None
    real: pd.DataFrame | None = None
    train: pd.DataFrame | None = None
    half_life: float = HALF_LIFE


def write_version(content: Content, versions: Path) -> str:
    """Write a version and read it back.

    Args:
        content: What is to be served.
        versions: Folder of all versions.

    Returns:
        The version's name.

    Raises:
        ArtifactError: The index and the catalogue do not fit each other, or the copy is not what was written.
    """
    items = content.items
    if not items[ITEM_ID].is_monotonic_increasing:
        raise ArtifactError("items", "are not sorted by item_id", fix="run `dvc repro tag`")
    names = [name for name in items.columns if name not in NO_COLUMNS]
    coded = [pd.factorize(items[name].astype("str")) for name in names]
    arrays = _arrays(content) | {f"column_{n}": codes.astype(np.int32) for n, (codes, _) in enumerate(coded)}
    columns = {name: values.tolist() for name, (_, values) in zip(names, coded, strict=True)}
    name = write_arrays(arrays, columns, content.manifest, versions)
    log.info("serve: version %s, %s neighbours of %s items", name, f"{len(content.index):,}", f"{len(items):,}")
    return name


def write_arrays(
    arrays: Mapping[str, Array], columns: Mapping[str, list[str]], manifest: Mapping[str, Any], versions: Path
) -> str:
    """Write a version and read it back.

    Args:
        arrays: As flat.py names them.
        columns: Values by name of the columns to filter on, in the order of their arrays.
        manifest: Of the index.
        versions: Folder of all versions.

    Returns:
        The version's name.

    Raises:
        ArtifactError: The copy is not what was written.
    """
    written = versions / "next"
    with staged(written) as out:
        for name, array in arrays.items():
            write_array(array, out / f"{name}.npy")
        description = {
            "files": {name: file_sha256(out / f"{name}.npy") for name in arrays},
            "columns": [[name, values] for name, values in columns.items()],
            "is_real": manifest.get("arm") == SOURCE_REAL,
            "index": dict(manifest),
        }
        write_json(description, out / "manifest.json")
    final = versions / json_sha256(description)[:16]
    take(written, final)
    remove(written)  # the damaged one, if there was one
    FlatIndex(final)
    return final.name


def _arrays(content: Content) -> dict[str, Array]:
    """All arrays but the columns, as flat.py names them."""
    items = content.items
    index = _neighbours("index", content.index, items)
    lonely = np.flatnonzero(np.diff(index["index_bounds"]) == 0)
    titles = items["title"].fillna("")
    popularity = _popularity(content)
    popular = np.lexsort((-items["n_train"].to_numpy(), -popularity))
    return {
        **encoded_texts("id", items[ITEM_ID]),
        **encoded_texts("title", titles),
        **encoded_texts("search", [str(searchable(title), "utf-8") for title in titles.take(popular)]),
        **index,
        **_nearest_by_text(lonely, len(items), content.vectors),
        **(_neighbours("real", content.real, items) if content.real is not None else {}),
        **(_takers(content.fused, items) if content.fused is not None else {}),
        "popular_items": popular.astype(np.int32),
        "popular_scores": popularity[popular],
    }


def encoded_texts(name: str, texts: Iterable[str]) -> dict[str, Array]:
    """The two arrays of some texts: where each begins, and all of them in UTF-8."""
    encoded = [text.encode() for text in texts]
    return {
        f"{name}_bounds": np.cumsum([0, *map(len, encoded)], dtype=np.int64),
        f"{name}_bytes": np.frombuffer(b"".join(encoded), np.uint8),
    }


def _neighbours(name: str, index: pd.DataFrame, items: pd.DataFrame) -> dict[str, Array]:
    similar = from_index(index, items)
    return {
        f"{name}_bounds": similar.indptr.astype(np.int64),
        f"{name}_items": similar.indices.astype(np.int32),
        f"{name}_scores": similar.data,
    }


def _popularity(content: Content) -> Array:
    """Each item's training interactions, float64; one that is d days older than the newest counts 0.5^(d / half-life).

    Without times, as where a table holds each user's own order alone, every interaction counts 1.
    """
    train, items = content.train, content.items
    if train is None or train.empty or (latest := int(train[TIMESTAMP].max())) < UNIT_BEGINS[0]:
        return items["n_train"].to_numpy(dtype=np.float64)
    a_day = 86_400 * 1_000 ** (bisect_right(UNIT_BEGINS, latest) - 1)
    ages = (latest - train[TIMESTAMP].to_numpy()) / a_day
    rows = item_indices(train[ITEM_ID], items, where="train.parquet")
    return np.bincount(rows, weights=0.5 ** (ages / content.half_life), minlength=len(items))


def _takers(fused: pd.DataFrame, items: pd.DataFrame) -> dict[str, Array]:
    """Each item's users in ascending order; one of whom both a real and a synthetic pair tell is real."""
    rows = item_indices(fused[ITEM_ID], items, where="fused")
    users = pd.factorize(fused[USER_ID])[0]
    synthetic = (fused["source"] != SOURCE_REAL).to_numpy()
    order = np.lexsort((synthetic, users, rows))
    rows, users, synthetic = rows[order], users[order], synthetic[order]
    first = np.ones(len(rows), np.bool_)
    first[1:] = (np.diff(rows) != 0) | (np.diff(users) != 0)
    return {
        "user_bounds": np.cumsum(np.concatenate([[0], np.bincount(rows[first], minlength=len(items))])),
        "user_numbers": users[first].astype(np.int32),
        "user_synthetic": synthetic[first],
    }


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
