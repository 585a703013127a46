"""Whether a run's facts lie where those of the runs before it lay.

A fact drifts if it is further from the earlier runs' median than `monitor.factor` (above or below), and further than
`monitor.spreads` of their own spread, both in logarithms: Iglewicz and Hoaglin's modified z-score (1993), so that one
bad day among the earlier ones moves nothing. `monitor.highest` limits what a table may show by itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from llm_i2i.monitoring.sketch import items_changed, users_gone
from llm_i2i.params import MonitorParams

Run = dict[str, Any]  # content of reports/monitor.json
_TO_DEVIATION: Final = 1.4826  # a normal distribution's standard deviation over its median absolute deviation
_NOTHING: Final = 1e-9
_NEAREST_OF: Final = 3  # the night after a faulty one, back to normal, is like the night before it


@dataclass(frozen=True)
class Fact:
    """How a fact is watched.

    Attributes:
        words: What it is.
        series: Runs of equal `series` of this name compare: `data` (one data set, one protocol) or `recipe` (one
            selection and index as well).
        bad: Where it is bad: above, below, or both sides of the median.
        floor: Up to here every value is as good as the other.
        whole: It is near 1 when all is well, so that what is missing to 1 is watched.
    """

    words: str
    series: Literal["data", "recipe"]
    bad: Literal["above", "below", "both"]
    floor: float = _NOTHING
    whole: bool = False


FACTS: Final = MappingProxyType(
    {
        "rows": Fact("interactions", "data", "both"),
        "users": Fact("users", "data", "both"),
        "items": Fact("items of the catalogue", "data", "both"),
        "user_rows": Fact("interactions per user", "data", "both"),
        "duplicates": Fact("interactions that occur twice", "data", "above", 0.02),
        "repeats": Fact("a user's item again, at another time", "data", "above", 0.05),
        "titles_missing": Fact("items without title", "data", "above", 0.02),
        "heaviest_user": Fact("interactions of the heaviest user", "data", "above", 0.01),
        "top_item": Fact("interactions on one item", "data", "above", 0.02),
        "top_percent": Fact("interactions on the first 1 % of the items", "data", "above", 0.1),
        "gini": Fact("Gini index of the interactions over the items", "data", "above", 0.02, whole=True),
        "same_time": Fact("interactions at one time", "data", "above", 0.02),
        "ticks": Fact("ticks of the clock per second", "data", "both"),
        "day_rows": Fact("newest day: interactions, to the same weekday before", "data", "both"),
        "day_gap": Fact("newest day: days since the one before", "data", "above", 1.0),
        "day_new_users": Fact("newest day: users who are new", "data", "both", 0.05),
        "day_new_items": Fact("newest day: interactions on new items", "data", "above", 0.05),
        "day_heaviest_user": Fact("newest day: interactions of the heaviest user", "data", "above", 0.05),
        "day_top_item": Fact("newest day: interactions on one item", "data", "above", 0.05),
        "day_shift": Fact("newest day: stability index of popularity", "data", "above", 0.15),
        "users_gone": Fact("users of the last run who are gone", "data", "above", 0.1),
        "items_gone": Fact("items of the last run that are gone", "data", "above", 0.1),
        "texts_changed": Fact("items with other words than in the last run", "data", "above", 0.1),
        "valid_share": Fact("generator: pairs that are valid", "recipe", "below", 0.05, whole=True),
        "generated_items": Fact("generator: distinct items", "recipe", "below"),
        "effective_items": Fact("generator: items, by the entropy of their shares", "recipe", "below"),
        "accepted": Fact("generator: pairs that are kept", "recipe", "both", 0.05),
        "accepted_head": Fact("generator: pairs that are kept, head", "recipe", "both", 0.05),
        "accepted_mid": Fact("generator: pairs that are kept, mid", "recipe", "both", 0.05),
        "accepted_tail": Fact("generator: pairs that are kept, tail", "recipe", "both", 0.05),
        "accepted_cold": Fact("generator: pairs that are kept, cold", "recipe", "both", 0.05),
        "synthetic_share": Fact("synthetic share of the training data", "recipe", "both", 0.02),
        "coverage": Fact("index: catalogue that is shown", "recipe", "below", 0.02),
        "index_gini": Fact("index: Gini index of what is shown", "recipe", "above", 0.02, whole=True),
        "reachable": Fact("index: test targets that are reached", "recipe", "below", 0.02),
        "listed": Fact("index: items with neighbours", "recipe", "below", 0.02),
        "neighbours_changed": Fact("index: items whose first ten changed by more than half", "recipe", "above", 0.15),
    }
)


@dataclass(frozen=True)
class Found:
    """A fact of this run beside those of earlier ones.

    Attributes:
        name: Key of `FACTS`.
        value: Of this run.
        earlier: Of the runs it compares with, the oldest first.
        low: Below this it drifts; None if there is no such limit.
        high: Above this it drifts; None if there is no such limit.
        ignored: Whether `monitor.ignore` names it.
    """

    name: str
    value: float
    earlier: tuple[float, ...]
    low: float | None
    high: float | None
    ignored: bool

    @property
    def median(self) -> float | None:
        """Of the earlier runs; None if there is none."""
        return float(np.median(self.earlier)) if self.earlier else None

    @property
    def drifts(self) -> bool:
        """Whether it lies beyond a limit, ignored or not."""
        above = self.high is not None and self.value > self.high
        return above or (self.low is not None and self.value < self.low)

    @property
    def alarms(self) -> bool:
        """Whether it stops a promotion."""
        return self.drifts and not self.ignored


@dataclass(frozen=True)
class Watch:
    """What was found of a run.

    Attributes:
        found: Every fact that this run has, in the order of `FACTS`.
        n_data: Earlier runs of the same data.
        n_recipe: Those of the same recipe as well.
        min_runs: With fewer only `monitor.highest` counts.
    """

    found: tuple[Found, ...]
    n_data: int
    n_recipe: int
    min_runs: int

    @property
    def alarms(self) -> tuple[str, ...]:
        """A sentence for each fact that stops a promotion."""
        return tuple(sentence(one) for one in self.found if one.alarms)

    @property
    def against(self) -> str:
        """What the run was compared with."""
        told = f"{self.n_data} earlier run(s) of this data, {self.n_recipe} of this recipe"
        few = f"; with fewer than {self.min_runs} only what a run shows by itself is limited"
        return told + few * (self.n_recipe < self.min_runs)


def watch(now: Run, earlier: Sequence[Run], params: MonitorParams) -> Watch:
    """Compare a run with the runs before it.

    Args:
        now: The run.
        earlier: Earlier runs, the newest first.
        params: Limits.
    """
    series = {name: [run for run in earlier if run["series"][name] == now["series"][name]] for name in now["series"]}
    # The facts of each run, those between it and the one before it of its series among them, the newest run first.
    facts = {name: _with_changes([now, *runs]) for name, runs in series.items()}
    found = []
    for name, fact in FACTS.items():
        (value, *others) = [one.get(name) for one in facts[fact.series]]
        if value is not None:
            known = [other for other in others[: params.runs] if other is not None]
            low, high = _limits(name, known, params)
            found.append(Found(name, value, tuple(reversed(known)), low, high, name in params.ignore))
    n_data, n_recipe = (len(series[name][: params.runs]) for name in ("data", "recipe"))
    return Watch(tuple(found), n_data, n_recipe, params.min_runs)


def sentence(one: Found) -> str:
    """A drifting fact in words."""
    limits = {"at least": one.low, "at most": one.high}
    bounds = [f"{word} {shown(limit)}" for word, limit in limits.items() if limit is not None]
    before = f"; median before {shown(one.median)}" if one.median is not None else ""
    return f"{FACTS[one.name].words}: {shown(one.value)}, allowed {', '.join(bounds)}{before} ({one.name})"


def shown(value: float) -> str:
    """A fact's value: counts whole, all else with four significant digits."""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"


def _with_changes(runs: Sequence[Run]) -> list[dict[str, float]]:
    """Facts of each run, the newest first, and what changed since the nearest of the runs just before it."""
    described = []
    for place, now in enumerate(runs):
        changes = [_changes(before, now) for before in runs[place + 1 : place + 1 + _NEAREST_OF]]
        names = {name for found in changes for name in found}
        nearest = {name: min(found[name] for found in changes if name in found) for name in names}
        described.append({**now["facts"], **nearest})
    return described


def _changes(before: Run, now: Run) -> dict[str, float]:
    sketches = before["sketch"], now["sketch"]
    gone = users_gone(*sketches, before["facts"]["users"], now["facts"]["users"])
    return {"users_gone": round(gone, 6), **items_changed(*sketches)}


def _limits(name: str, earlier: Sequence[float], params: MonitorParams) -> tuple[float | None, float | None]:
    """The least and the greatest value that is no drift."""
    fact = FACTS[name]
    lows, highs = [], []
    if (highest := getattr(params.highest, name, None)) is not None:
        highs.append(highest)
    if len(earlier) >= params.min_runs:
        levels = [max(1.0 - value if fact.whole else value, fact.floor) for value in earlier]
        logs = np.log(levels)
        median = float(np.median(logs))
        spread = _TO_DEVIATION * float(np.median(np.abs(logs - median)))
        width = max(math.log(params.factor), params.spreads * spread)
        low, high = math.exp(median - width), math.exp(median + width)
        if fact.whole:
            low, high = 1.0 - high, 1.0 - low
        if fact.bad != "above" and (fact.whole or low > fact.floor):
            lows.append(low)
        if fact.bad != "below" and not (fact.whole and 1.0 - high < fact.floor):
            highs.append(high)
    return max(lows, default=None), min(highs, default=None)
