"""The package from Python: from a table of interactions to titles of similar items, in five lines.

What a stage of the pipeline reads from files is given here as data frames; what params.yaml must state has the default
of the paper or of the field here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from llm_i2i.data.long_tail import tag_items
from llm_i2i.data.split import Split, split_interactions
from llm_i2i.errors import DataError, needs_extra
from llm_i2i.evaluation.evaluate import evaluate_index
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.i2i.index import to_index
from llm_i2i.i2i.lookup import Lookup
from llm_i2i.i2i.train import train_similar
from llm_i2i.i2i.user_items import user_items_from_frame
from llm_i2i.params import Params, SplitParams, TagParams
from llm_i2i.schema import INDEX, ITEM_ID, POSITION, TIMESTAMP, USER_ID, read_table, write_table


class SimilarItems:
    """An index of similar items that knows their titles; nothing changes after construction.

    Args:
        index: `schema.INDEX`, in any row order.
        items: item_id and, if given, title; one row per item. None: the ids stand for the titles.

    Attributes:
        index: As given.
        titles: Title by item id.
    """

    def __init__(self, index: pd.DataFrame, items: pd.DataFrame | None = None) -> None:
        self.index = index
        catalogue = _catalogue(index.rename(columns={"neighbour_id": "other"}), items)
        self.titles: dict[str, str] = dict(zip(catalogue[ITEM_ID], catalogue["title"], strict=True))
        self._lookup = Lookup(index)

    @classmethod
    def fit(
        cls,
        interactions: pd.DataFrame,
        items: pd.DataFrame | None = None,
        *,
        model: str = "swing",
        top_k: int = 100,
        seed: int = 42,
        **options: Any,
    ) -> "SimilarItems":
        """Train a model on interactions.

        Args:
            interactions: user_id and item_id, one row per interaction; ids of any kind become texts. A pair that
                occurs twice counts once, other columns are left alone.
            items: The catalogue: item_id and, if given, title. None: the items that occur.
            model: swing, item_knn, bm25, bpr, popularity or youtube_dnn (which needs extra `pipeline`).
            top_k: Neighbours per item at most.
            seed: Of what is random in the model.
            **options: The model's own; what is not given is as in its paper (`SwingOptions` and its like).

        Returns:
            The index.

        Raises:
            DataError: A column is missing, no row is there, or an item is in the catalogue twice.
            ArtifactError: An interaction names an item that the catalogue lacks.
            ParamsError: Unknown model, or an option out of range.
        """
        pairs = _pairs(interactions)
        catalogue = _catalogue(pairs, items)
        user_items = user_items_from_frame(pairs, catalogue)
        similar = train_similar(model, user_items, options=options, top_k=top_k, seed=seed)
        return cls(to_index(similar, catalogue), catalogue)

    @classmethod
    def open(cls, folder: str | Path, *, catalogue: str | Path = "artifacts/items/items.parquet") -> "SimilarItems":
        """Read an index that the pipeline has trained, or that `save` has written.

        Args:
            folder: Such as artifacts/i2i/swing-llm_i2i.
            catalogue: items.parquet of the same run; where there is no such file, ids stand for the titles.

        Raises:
            ArtifactError: The index is missing or malformed.
        """
        index = read_table(Path(folder) / "index.parquet", INDEX)
        return cls(index, pd.read_parquet(catalogue) if Path(catalogue).is_file() else None)

    def save(self, folder: str | Path) -> None:
        """Write the index as index.parquet, for `open` and for services."""
        write_table(self.index, Path(folder) / "index.parquet", INDEX)

    def similar(self, item: object, top_k: int = 10) -> pd.DataFrame:
        """The items most like one, best first: rank, item_id, title, score.

        Raises:
            DataError: The catalogue has no such item.
        """
        return self.recommend([item], top_k)

    def recommend(self, history: Iterable[object], top_k: int = 10, *, last_m: int = 0) -> pd.DataFrame:
        """The best items for someone who took these, best first: rank, item_id, title, score.

        Args:
            history: Item ids, oldest first; none of them is recommended.
            top_k: Items at most.
            last_m: How many of the last items count, 0 = all.

        Raises:
            DataError: The catalogue lacks an item of the history.
        """
        ids = [history] if isinstance(history, str) else [str(item) for item in history]
        unknown = [item for item in ids if item not in self.titles]
        if unknown:
            raise DataError("history", f"holds {unknown[0]!r}, which the catalogue lacks", "ids of its items")
        found = self._lookup.recommend(ids, top_k=top_k, last_m=last_m)
        rows = [(rank, item, self.titles[item], score) for rank, (item, score) in enumerate(found, start=1)]
        return pd.DataFrame(rows, columns=["rank", ITEM_ID, "title", "score"]).set_index("rank")


@dataclass(frozen=True)
class Held:
    """Interactions in three parts by time, and the catalogue with the counts of the first.

    Attributes:
        parts: Train, valid and test.
        items: `schema.ITEMS`: title, training interactions, bucket.
    """

    parts: Split
    items: pd.DataFrame

    @property
    def train(self) -> pd.DataFrame:
        """What a model may see: `schema.INTERACTIONS`."""
        return self.parts.train


def hold_out(interactions: pd.DataFrame, items: pd.DataFrame | None = None, *, seed: int = 42) -> Held:
    """Leave each user's last two items out, the last for test, the one before for validation.

    Users with fewer than three items stay in train. Equal times are ordered by a seeded hash.

    Args:
        interactions: user_id, item_id and timestamp (whole numbers), or position where only the order is known.
        items: The catalogue: item_id and, if given, title, category, brand and year.
        seed: Of ties.

    Returns:
        The parts; the tail are items with 1 to 5 training interactions, the long tail the least frequent fifth.

    Raises:
        DataError: A column is missing, or nobody has three items.
    """
    pairs = _pairs(interactions)
    time = next((name for name in (TIMESTAMP, POSITION) if name in interactions), None)
    if time is None:
        raise DataError("interactions", f"columns {list(interactions.columns)}", f"one of {TIMESTAMP} and {POSITION}")
    limits = SplitParams(
        strategy="leave_one_out", test_share=0.1, valid_share=0.1, min_user_items=3, max_users=0, held_out_share=0.0
    )
    timed = pairs.assign(timestamp=interactions[time].to_numpy(dtype="int64"))
    parts = split_interactions(timed, params=limits, seed=seed)
    tail = TagParams(long_tail_share=0.2, tail_max_count=5, head_share=0.2)
    return Held(parts, tag_items(_catalogue(pairs, items), parts.train, params=tail, seed=seed))


def measure(model: SimilarItems, held: Held, *, ks: Sequence[int] = (5, 10, 20)) -> dict[str, Any]:
    """Rank the whole catalogue for every test user, their history removed.

    Args:
        model: Trained on `held.train`, with or without further pairs.
        held: As of `hold_out`.
        ks: Cut-offs.

    Returns:
        What the pipeline's metrics files hold: `overall`, `buckets` (head, mid, tail, cold, long_tail), coverage,
        `reachable_share`, the protocol and its hash.
    """
    parts = held.parts
    metrics, _ = evaluate_index(
        index=model.index, train=parts.train, valid=parts.valid, test=parts.test, items=held.items,
        protocol=Protocol(ks=tuple(ks)),
    )  # fmt: skip
    return metrics


def propose(held: Held, params: Params) -> pd.DataFrame:
    """Train a small generator on the training interactions and let it write pairs (needs extra `pipeline`).

    It is the compact backbone of profile `compact`, a Llama with one token per item, without judge: the quickest
    way to see what generated pairs do. The method itself is the pipeline.

    Args:
        held: As of `hold_out`; test and valid are not looked at.
        params: Such as `load_params()`; sections controls.compact, base_model.compact and synthesize decide.

    Returns:
        `schema.SYNTHETIC`: user_id, item_id, rank and logprob, the most probable first; no pair is in train.
    """
    with needs_extra("pipeline", "propose"):
        from llm_i2i.augmentation.compact_control import compact_rows  # noqa: PLC0415
        from llm_i2i.llm.text_vectors import encode_items  # noqa: PLC0415
    with TemporaryDirectory() as scratch:
        work = Path(scratch)
        text, _ = encode_items(held.items, params.encode_text, runtime=params.runtime, downloads=work)
        return compact_rows(train=held.train, items=held.items, text=text, params=params, work=work / "compact")


def _pairs(interactions: pd.DataFrame) -> pd.DataFrame:
    """The ids of interactions, as texts."""
    missing = [name for name in (USER_ID, ITEM_ID) if name not in interactions]
    if missing:
        found = f"columns {missing} are missing among {list(interactions.columns)}"
        raise DataError("interactions", found, f"columns {USER_ID} and {ITEM_ID}")
    pairs = interactions[[USER_ID, ITEM_ID]]
    if pairs.empty or pairs.isna().any(axis=None):
        found = "no row is there" if pairs.empty else f"{int(pairs.isna().any(axis=1).sum()):,} rows lack an id"
        raise DataError("interactions", found, "an id of user and item in every row")
    return pairs.astype("str").reset_index(drop=True)


def _catalogue(pairs: pd.DataFrame, items: pd.DataFrame | None) -> pd.DataFrame:
    """item_id and title, both texts, and further columns as they are, sorted by item_id."""
    if items is None:
        others = [pairs[name] for name in (ITEM_ID, "other") if name in pairs]
        items = pd.DataFrame({ITEM_ID: pd.concat(others).drop_duplicates()})
    if ITEM_ID not in items:
        raise DataError("items", f"column {ITEM_ID} is missing among {list(items.columns)}", "one row per item")
    ids = items[ITEM_ID].astype("str")
    if not ids.is_unique:
        raise DataError("items", f"item {ids[ids.duplicated()].iloc[0]} is there twice", "one row per item")
    titles = items["title"].astype("str").fillna("") if "title" in items else ids
    return items.assign(item_id=ids, title=titles).sort_values(ITEM_ID, ignore_index=True)
