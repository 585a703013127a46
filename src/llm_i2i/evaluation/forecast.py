"""Is a gain likely on these data? Facts that cost seconds, and a line through gains measured on other data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from llm_i2i.catalogue import histories_of, item_indices
from llm_i2i.data.split import Split
from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.i2i import recommend, user_items_from_frame
from llm_i2i.i2i.train import options_of, train_similar
from llm_i2i.params import Params
from llm_i2i.schema import ITEM_ID, POSITION, TAIL, USER_ID

# What is compared with the measured range: a forecast beyond it is a guess.
RANGES: Final = ("interactions", "density", "per_user", "per_item", "reachable")
LEAST: Final = 1e-3  # a share below it counts as this: the logarithm of nothing is nowhere


@dataclass(frozen=True)
class Facts:
    """What a data set says before any training of an LLM.

    Attributes:
        users: Users of the split.
        items: Items with an interaction.
        interactions: Pairs of a user and an item.
        density: interactions / (users x items).
        per_user: Interactions per user.
        per_item: Interactions per item.
        tail_items: Share of the trained items that have at most `tag.tail_max_count` training interactions.
        tail_targets: Share of the valid targets that are such items.
        reachable: Share of the valid targets that plain Swing scores at all.
        reachable_tail: The same of the targets in the tail; 0 where there are none.
    """

    users: int
    items: int
    interactions: int
    density: float
    per_user: float
    per_item: float
    tail_items: float
    tail_targets: float
    reachable: float
    reachable_tail: float


def data_facts(split: Split, items: pd.DataFrame, *, params: Params) -> Facts:
    """Count, train plain Swing on train and ask it for every user's first valid item.

    Args:
        split: As `split_interactions` makes it; test is not read.
        items: schema.ITEMS.
        params: Sections train_i2i, evaluate and seed.
    """
    counts = split.manifest["counts"]["sampled_users"]
    _, options, top_k = options_of("swing", params.train_i2i)
    similar = train_similar(
        "swing", user_items_from_frame(split.train, items), options=options, top_k=top_k, seed=params.seed
    )
    asked = split.valid.sort_values([USER_ID, POSITION], kind="stable").drop_duplicates(USER_ID)
    targets = item_indices(asked[ITEM_ID], items, where="valid")
    query = params.evaluate
    found = recommend(
        similar, histories_of(asked[USER_ID], split.train, items),
        top_k=1, targets=targets, last_m=query.last_m, decay=query.decay,
    )  # fmt: skip
    in_tail = (items["bucket"] == TAIL).to_numpy()
    tail, reached = in_tail[targets], found.ranks > 0
    return Facts(
        users=counts["users"],
        items=counts["items"],
        interactions=counts["rows"],
        density=split.manifest["density"],
        per_user=split.manifest["mean_user_items"],
        per_item=counts["rows"] / counts["items"],
        tail_items=float(in_tail.sum() / np.count_nonzero(items["n_train"])),
        tail_targets=float(tail.mean()),
        reachable=float(reached.mean()),
        reachable_tail=float(reached[tail].mean()) if tail.any() else 0.0,
    )


@dataclass(frozen=True)
class Basis:
    """Gains measured on other data, and which fact tells most about them.

    Attributes:
        rows: What was measured: name, data, part (fit: the line goes through these; check: held back, other samples of
            the same data; whole: a data set as it is), facts, gain (mean, low and high of the relative gain).
        fact: Field of `Facts` that the line reads, on a logarithmic scale.
    """

    rows: Sequence[Mapping[str, Any]]
    fact: str

    def part(self, name: str) -> list[Mapping[str, Any]]:
        """The rows of one part."""
        return [row for row in self.rows if row["part"] == name]

    def outside(self, facts: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Least and greatest measured value of each fact that these data have less or more of."""
        measured = {name: [row["facts"][name] for row in self.rows] for name in RANGES}
        ends = {name: (min(values), max(values)) for name, values in measured.items()}
        return {name: (low, high) for name, (low, high) in ends.items() if not low <= facts[name] <= high}

    def nearest(self, facts: Mapping[str, float], n: int) -> list[Mapping[str, Any]]:
        """The n rows whose fact is most like that of these data, the nearest first."""
        here = _log(facts[self.fact])
        return sorted(self.rows, key=lambda row: (abs(_log(row["facts"][self.fact]) - here), row["name"]))[:n]

    def gain(self, facts: Mapping[str, float]) -> Interval:
        """The line's gain for these data, and the 95 % interval in which the gain of one more sub-sample would lie.

        The line is one of log(1 + gain) against the fact's logarithm, by least squares: mean +- t(n - 2) s
        sqrt(1 + 1/n + (x - mean x)^2 / Sxx) with s^2 = RSS / (n - 2). Beyond its rows it stays as at the outermost one.
        """
        x, y = (np.array(values) for values in zip(*map(self._point, self.part("fit")), strict=True))
        n, off = len(x), x - x.mean()
        slope = (off * y).sum() / (off**2).sum()
        rest = ((y - y.mean() - slope * off) ** 2).sum() / (n - 2)
        here = np.clip(_log(facts[self.fact]), x.min(), x.max()) - x.mean()
        half = stats.t.ppf(0.975, n - 2) * np.sqrt(rest * (1 + 1 / n + here**2 / (off**2).sum()))
        mean = y.mean() + slope * here
        return Interval(*(float(np.expm1(end)) for end in (mean, mean - half, mean + half)))

    def checked(self) -> dict[str, Any]:
        """How the line does on the rows held back.

        Returns:
            n: rows; right_in_sign and in_interval: of these; wrong: names of those not right in sign; rank_correlation:
            Spearman's, of forecast and measured gain.
        """
        rows = self.part("check")
        found = {row["name"]: self.gain(row["facts"]) for row in rows}
        wrong = [row["name"] for row in rows if (found[row["name"]].mean > 0) != (row["gain"]["mean"] > 0)]
        inside = [row for row in rows if found[row["name"]].low <= row["gain"]["mean"] <= found[row["name"]].high]
        pairs = [(found[row["name"]].mean, row["gain"]["mean"]) for row in rows]
        return {
            "n": len(rows),
            "right_in_sign": len(rows) - len(wrong),
            "wrong": wrong,
            "in_interval": len(inside),
            "rank_correlation": round(float(stats.spearmanr(pairs).statistic), 3),
        }

    def _point(self, row: Mapping[str, Any]) -> tuple[float, float]:
        return _log(row["facts"][self.fact]), float(np.log1p(row["gain"]["mean"]))


def _log(value: float) -> float:
    return float(np.log(max(value, LEAST)))
