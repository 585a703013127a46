"""A version of the index as flat arrays in a folder: memory-mapped, so that all workers share one copy.

VERSION/manifest.json holds each array's SHA-256, the values of the columns to filter on, whether the index is arm
real's, and the manifest of the index.
VERSION is the hash of that manifest, so a folder's name answers for every byte in it. The arrays, n items:

    id_bounds int64 (n + 1,), id_bytes uint8: the item ids in UTF-8, ascending, so that a search finds one
    title_bounds, title_bytes: the titles, in the same order
    index_bounds int64 (n + 1,), index_items int32, index_scores float32: the index, as `llm_i2i.neighbours.Neighbours`
    text_bounds, text_items, text_scores: the same, nearest by text, for items without neighbours in the index
    popular_items int32 (n,), popular_scores float64 (n,): most popular first
    search_bounds, search_bytes: the words of the titles, most popular item first, as `write.searchable` makes them
    column_NUMBER int32 (n,): which value of a column an item has

To explain, each where its table was there:

    real_bounds, real_items, real_scores: the same model's index of arm real
    user_bounds int64 (n + 1,), user_numbers int32, user_synthetic bool: who took an item in the table that the index
        was trained on, ascending, and whether only a synthetic pair says so
"""

import re
import unicodedata
from bisect import bisect_left
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.errors import ArtifactError
from llm_i2i.files import file_sha256, json_sha256, read_json
from llm_i2i.neighbours import Neighbours, own_query

if TYPE_CHECKING:
    from llm_i2i.serving.messages import CatalogueItem, Explained

CACHED = 1 << 16


class Takers(NamedTuple):
    """Who took which item: item n was taken by `numbers[bounds[n]:bounds[n + 1]]`, ascending.

    Attributes:
        bounds: n_items + 1 whole numbers.
        numbers: int32 (n,), of the users.
        synthetic: bool (n,), whether only a synthetic pair says so.
    """

    bounds: memoryview
    numbers: Array
    synthetic: Array


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
        self.index, self.text = _neighbours(arrays, "index"), _neighbours(arrays, "text")
        self.real = _neighbours(arrays, "real") if "real_bounds" in arrays else None
        if manifest["is_real"]:
            self.real = self.index
        self.takers = (
            Takers(_view(arrays["user_bounds"]), arrays["user_numbers"], arrays["user_synthetic"])
            if "user_bounds" in arrays
            else None
        )
        known: list[tuple[Explained, object]] = [("users", self.takers), ("real", self.real)]
        self.explains = [name for name, table in known if table]
        self.popular_items, self.popular_scores = arrays["popular_items"], arrays["popular_scores"]
        self.columns = {
            name: ({value: code for code, value in enumerate(values)}, arrays[f"column_{number}"])
            for number, (name, values) in enumerate(manifest["columns"])
        }
        self._values = {name: list(codes) for name, (codes, _) in self.columns.items()}
        self._search = arrays["search_bounds"], arrays["search_bytes"]
        ids, titles = (_Texts(_view(arrays[f"{of}_bounds"]), _view(arrays[f"{of}_bytes"])) for of in ("id", "title"))
        self.n_items = len(ids)
        # What is often asked for is kept: id and title by place, and place by id (None if the catalogue has none).
        self.item_id = lru_cache(CACHED)(ids.text)
        self.title = lru_cache(CACHED)(titles.text)
        self.place = lru_cache(CACHED)(ids.place)

    def item(self, place: int) -> "CatalogueItem":
        """What the catalogue says about an item."""
        value = {name: self._values[name][column[place]] for name, (_, column) in self.columns.items()}
        return {
            "item_id": self.item_id(place),
            "title": self.title(place) or None,
            "category": value.get("category"),
            "bucket": value["bucket"],
            "is_long_tail": value["is_long_tail"] == "True",
        }

    def search(self, words: str, limit: int) -> list[int]:
        """Places of items in whose titles a word begins with each of some words, most popular first.

        Args:
            words: Upper and lower case and accents are the same; without a word every item is found.
            limit: Longest list.
        """
        rarest, *others = sorted((b" " + word for word in searchable(words).split()), key=len, reverse=True) or [b""]
        if not rarest:
            return [int(place) for place in self.popular_items[:limit]]
        bounds, content = self._search
        found: list[int] = []
        pattern, at = re.compile(re.escape(rarest)), 0
        while len(found) < limit and (hit := pattern.search(content.data, bounds[at])):
            at = int(np.searchsorted(bounds, hit.start(), side="right"))  # the next title
            title = bytes(content[bounds[at - 1] : bounds[at]])
            if all(word in title for word in others):
                found.append(int(self.popular_items[at - 1]))
        return found


def searchable(title: str) -> bytes:
    """A title's words without upper case, accents and signs, a blank before each."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", title.casefold()) if not unicodedata.combining(c))
    return "".join(f" {word}" for word in re.findall(r"\w+", plain)).encode()


class _Texts:
    """Texts by place, without an object for each."""

    def __init__(self, bounds: memoryview, content: memoryview) -> None:
        self._bounds, self._content = bounds, content

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def text(self, place: int) -> str:
        return str(self._bytes(place), "utf-8")

    def place(self, text: str) -> int | None:
        """Where a text is, if they ascend by their UTF-8 bytes."""
        wanted = text.encode("utf-8", "surrogatepass")
        place = bisect_left(range(len(self)), wanted, key=self._bytes)
        return place if place < len(self) and self._bytes(place) == wanted else None

    def _bytes(self, place: int) -> bytes:
        return bytes(self._content[self._bounds[place] : self._bounds[place + 1]])


def _neighbours(arrays: dict[str, Array], of: str) -> Neighbours:
    return Neighbours(_view(arrays[f"{of}_bounds"]), arrays[f"{of}_items"], arrays[f"{of}_scores"])


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
