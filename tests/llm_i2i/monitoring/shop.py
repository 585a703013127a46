"""A shop that grows by a day at a time, and what can go wrong with its data overnight.

Clean days: Zipf items whose popularity wanders, a weekly rhythm and noise, daily growth, heavy and light users, new
users and items, a sale of one item on some days, sellers who reword titles, users who delete their account. The run of
a day goes through the project's own functions: split, tag, fuse, item-kNN, evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.augmentation.fusion import fuse
from llm_i2i.data.long_tail import tag_items
from llm_i2i.data.sources import RawTables
from llm_i2i.data.split import split_interactions
from llm_i2i.evaluation.evaluate import evaluate_index
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.i2i import item_knn, to_index, user_items_from_frame
from llm_i2i.llm.validity import validity
from llm_i2i.monitoring.facts import run_facts
from llm_i2i.monitoring.sketch import sketch_of
from llm_i2i.params import Params
from llm_i2i.schema import ITEM_ID, USER_ID
from tests.conftest import whole_params

PARAMS = Params.model_validate(whole_params())
DAY = 86_400
FIRST = 20_000  # day since 1970
WEEK = (0.85, 0.8, 0.85, 0.95, 1.1, 1.3, 1.2)
NOISE = 0.08  # of a day's volume, as a share
ITEMS_PER_USER = 3  # proposed
SERIES = {"data": "a", "recipe": "b"}


@dataclass(frozen=True)
class Day:
    """What a night brings: the raw tables, and how the generator and the index turned out."""

    raw: RawTables
    named: int | None = None  # items that a collapsed generator names
    mixed_up: bool = False  # whether the index was trained on other items' ids
    recipe: bool = True  # whether a generator and an index are made of them

    def table(self, **columns: Any) -> "Day":
        """With other columns of the interactions."""
        return replace(self, raw=replace(self.raw, interactions=self.raw.interactions.assign(**columns)))

    def with_rows(self, rows: pd.DataFrame) -> "Day":
        """With other interactions."""
        return replace(self, raw=replace(self.raw, interactions=rows.reset_index(drop=True)))

    @property
    def newest(self) -> np.ndarray:
        """Which rows are of the newest day."""
        days = self.raw.interactions["timestamp"].to_numpy() // DAY
        return days == days.max()


class Shop:
    """A shop with some weeks of history.

    Args:
        seed: Of everything.
        rows: Interactions of a day at the beginning.
    """

    def __init__(self, seed: int, rows: int = 350) -> None:
        self.rng = np.random.default_rng(seed)
        self.rows, self.day = float(rows), FIRST
        self.weight = 1.0 / np.arange(1, 3 * rows // 2 + 1) ** 0.9  # items, Zipf
        self.rng.shuffle(self.weight)
        self.version = np.zeros(len(self.weight), int)
        self.activity = self.rng.lognormal(0.0, 1.0, 4 * rows)  # users
        self.gone: set[int] = set()
        self.taken: list[pd.DataFrame] = []
        for _ in range(35):
            self.next()

    def next(self) -> None:
        """Another day of sales."""
        rng = self.rng
        self.rows *= rng.normal(1.004, 0.002)
        self.weight *= rng.lognormal(0.0, 0.05, len(self.weight))
        n_new = rng.poisson(0.003 * len(self.weight))
        self.weight = np.append(self.weight, rng.choice(self.weight, n_new) * rng.lognormal(0.0, 0.5, n_new))
        self.version = np.append(self.version, np.zeros(n_new, int))
        self.version[rng.random(len(self.version)) < 0.002] += 1
        n_rows = int(self.rows * WEEK[self.day % 7] * rng.lognormal(0.0, NOISE))
        n_joined = rng.poisson(0.02 * n_rows)
        self.activity = np.append(self.activity, rng.lognormal(0.5, 1.0, n_joined))
        self.gone.update(rng.integers(0, len(self.activity), rng.poisson(0.0005 * len(self.activity))).tolist())
        today = self.weight.copy()
        if rng.random() < 0.3:
            today[rng.integers(len(today))] = 0.02 * today.sum()  # on sale
        users = rng.choice(len(self.activity), n_rows, p=self.activity / self.activity.sum())
        users[:n_joined] = np.arange(len(self.activity) - n_joined, len(self.activity))
        # A user stays near one of twenty tastes.
        near = rng.random(n_rows) < 0.6
        items = rng.choice(len(today), n_rows, p=today / today.sum())
        items[near] += (users[near] - items[near]) % 20
        seconds = self.day * DAY + rng.integers(6 * 3600, 23 * 3600, n_rows)
        self.taken.append(pd.DataFrame({"u": users, "i": np.minimum(items, len(today) - 1), "t": seconds}))
        self.day += 1

    def export(self) -> Day:
        """The tables of tonight."""
        rows = pd.concat(self.taken, ignore_index=True)
        rows = rows[~rows["u"].isin(self.gone)]
        taken = pd.DataFrame({USER_ID: "u" + rows["u"].astype("str"), ITEM_ID: "i" + rows["i"].astype("str"),
                              "timestamp": rows["t"].astype("int64")})  # fmt: skip
        number = pd.Series(np.arange(len(self.weight)))
        version = pd.Series(self.version).astype("str")
        items = pd.DataFrame(
            {
                ITEM_ID: "i" + number.astype("str"),
                "title": "Thing " + number.astype("str") + ", edition " + version,
                "category": "kind " + (number % 20).astype("str"),
            }
        )
        return Day(RawTables(taken.reset_index(drop=True), items, "timestamp", "seconds"))


def run_of(day: Day, seed: int) -> dict[str, Any]:
    """The night's run, as the stages make it, and what stage report writes about it."""
    users = pd.Series(day.raw.interactions[USER_ID].unique())
    if not day.recipe:
        sketch = sketch_of(users, day.raw.items, None)
        return {"facts": run_facts(day.raw), "series": SERIES, "sketch": sketch}
    rng = np.random.default_rng(seed)
    split = split_interactions(day.raw.interactions, params=PARAMS.split, seed=42)
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    items = tag_items(day.raw.items, split.train, params=PARAMS.tag, seed=42)
    proposed = _proposed(day, split.train, items, rng)
    n_users = split.train[USER_ID].nunique()
    synthesis = validity(proposed, items, split.train, n_users=n_users, items_per_user=ITEMS_PER_USER)
    judged = proposed.assign(source="synthetic", p_yes=rng.beta(2, 3, len(proposed)).astype("float32"))
    fused, kept = fuse(
        arm="llm_i2i", train=split.train, valid=split.valid, scored=judged, items=items, params=PARAMS.fuse
    )
    if day.mixed_up:
        others = dict(zip(items[ITEM_ID], rng.permutation(items[ITEM_ID]), strict=True))
        fused = fused.assign(item_id=fused[ITEM_ID].map(others).astype("str"))
    index = to_index(item_knn(user_items_from_frame(fused, items), top_k=20), items)
    metrics, _ = evaluate_index(index=index, items=items, protocol=Protocol.from_params(PARAMS), **parts)
    return {
        "facts": run_facts(day.raw, synthesis=synthesis, kept=kept, metrics=metrics, index=index),
        "series": SERIES,
        "sketch": sketch_of(users, day.raw.items, index),
    }


def _proposed(day: Day, train: pd.DataFrame, items: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """What a generator might write: items by their popularity, none that the user has."""
    users = np.repeat(train[USER_ID].unique(), ITEMS_PER_USER)
    mass = items["n_train"].to_numpy() ** 0.7 + 0.1
    if day.named is not None:
        mass = np.where(np.arange(len(mass)) < day.named, 1.0, 0.0)
    chosen = rng.choice(len(items), len(users), p=mass / mass.sum())
    pairs = pd.DataFrame({USER_ID: users, ITEM_ID: items[ITEM_ID].to_numpy()[chosen]}).drop_duplicates()
    known = pd.MultiIndex.from_frame(pairs).isin(pd.MultiIndex.from_frame(train[[USER_ID, ITEM_ID]]))
    pairs = pairs[~known].reset_index(drop=True)
    rank = pairs.groupby(USER_ID).cumcount() + 1
    return pairs.assign(rank=rank.astype("int32"), logprob=np.float32(-1.0))


def _half(day: Day) -> Day:
    """Half of the newest day's rows are missing."""
    lost = np.flatnonzero(day.newest)[::2]
    return day.with_rows(day.raw.interactions.drop(index=lost))


def _shifted(day: Day) -> Day:
    """Each item has the title of the one before it."""
    return replace(day, raw=replace(day.raw, items=day.raw.items.assign(title=np.roll(day.raw.items["title"], 1))))


def _bot(day: Day) -> Day:
    """One new user makes a tenth as many rows as all others on the newest day."""
    n = day.newest.sum() // 10
    rows = (
        day.raw.interactions[day.newest].iloc[:n].assign(user_id="bot", item_id=day.raw.items[ITEM_ID][:n].to_numpy())
    )
    return day.with_rows(pd.concat([day.raw.interactions, rows]))


def _milliseconds(day: Day) -> Day:
    """The clock of the whole export has changed to milliseconds; of one day alone the reader refuses it."""
    later = day.table(timestamp=day.raw.interactions["timestamp"] * 1000)
    return replace(later, raw=replace(later.raw, unit="milliseconds"))


def _twice(day: Day) -> Day:
    """Every row is there twice."""
    return day.with_rows(pd.concat([day.raw.interactions] * 2))


def _no_category(day: Day) -> Day:
    """The catalogue comes without its categories."""
    return replace(day, raw=replace(day.raw, items=day.raw.items.assign(category="")))


def _few_titles(day: Day) -> Day:
    """4 % of the titles are missing, which validation lets pass."""
    title = day.raw.items["title"].mask(np.arange(len(day.raw.items)) % 25 == 0)
    return replace(day, raw=replace(day.raw, items=day.raw.items.assign(title=title)))


def _other_users(day: Day) -> Day:
    """Every user id is hashed anew."""
    return day.table(user_id="x" + day.raw.interactions[USER_ID].map(hash_of))


def _other_users_today(day: Day) -> Day:
    """User ids are hashed anew from the newest day on."""
    ids = day.raw.interactions[USER_ID]
    return day.table(user_id=ids.where(~day.newest, "x" + ids.map(hash_of)))


def _other_items(day: Day) -> Day:
    """Every item id is coded anew, in both tables."""
    recoded = day.table(item_id="x" + day.raw.interactions[ITEM_ID])
    items = day.raw.items.assign(item_id="x" + day.raw.items[ITEM_ID])
    return replace(recoded, raw=replace(recoded.raw, items=items))


def _one_item(day: Day) -> Day:
    """One item takes a fifth of the newest day."""
    places = np.flatnonzero(day.newest)[::5]
    ids = day.raw.interactions[ITEM_ID].copy()
    ids.iloc[places] = ids.iloc[0]
    return day.table(item_id=ids)


def hash_of(text: str) -> str:
    """Another name for a user."""
    return f"{(int(text[1:]) * 2654435761) % 2**32:08x}"


FAULTS: MappingProxyType[str, Callable[[Day], Day]] = MappingProxyType(
    {
        "half the day's data is missing": _half,
        "titles shifted by one": _shifted,
        "a bot user": _bot,
        "a clock in ms": _milliseconds,
        "every row twice": _twice,
        "categories missing": _no_category,
        "some titles missing": _few_titles,
        "all users new": _other_users,
        "today's users new": _other_users_today,
        "items coded anew": _other_items,
        "one item takes a fifth": _one_item,
        "the generator collapses": lambda day: replace(day, named=20),
        "neighbours churn": lambda day: replace(day, mixed_up=True),
    }
)
# What tells each of them, besides others.
TOLD_BY = dict(
    zip(
        FAULTS,
        ("day_rows", "texts_changed", "day_heaviest_user", "ticks", "duplicates", "texts_changed", "titles_missing",
         "users_gone", "day_new_users", "items_gone", "day_top_item", "effective_items", "neighbours_changed"),
        strict=True,
    )
)  # fmt: skip


def faulty(fault: str, day: Day, seed: int) -> dict[str, Any]:
    """The run of a night on which something went wrong; of faulty tables no generator and no index are made."""
    return run_of(FAULTS[fault](replace(day, recipe=fault in list(FAULTS)[-2:])), seed)
