"""Options of the monitor: from when on a fact of a run is an alarm."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from llm_i2i.params.fields import NonNegativeFloat, PositiveInt, Section, Share, knob

Fact = Literal[
    "rows",
    "users",
    "items",
    "user_rows",
    "duplicates",
    "repeats",
    "titles_missing",
    "heaviest_user",
    "top_item",
    "top_percent",
    "gini",
    "same_time",
    "ticks",
    "day_rows",
    "day_gap",
    "day_new_users",
    "day_new_items",
    "day_heaviest_user",
    "day_top_item",
    "day_shift",
    "users_gone",
    "items_gone",
    "texts_changed",
    "valid_share",
    "generated_items",
    "effective_items",
    "accepted",
    "accepted_head",
    "accepted_mid",
    "accepted_tail",
    "accepted_cold",
    "synthetic_share",
    "coverage",
    "index_gini",
    "reachable",
    "listed",
    "neighbours_changed",
]


class HighestParams(Section):
    """What a run may show at most, whatever the earlier ones were: shares."""

    duplicates: Share = knob("of interactions: the same user, item and time again")
    titles_missing: Share = knob("of items: no title")
    heaviest_user: Share = knob("of interactions: the heaviest user's")
    top_item: Share = knob("of interactions: on one item")
    same_time: Share = knob("of interactions: at one time")
    users_gone: Share = knob("of the last run's users: no longer there")
    items_gone: Share = knob("of the last run's items: no longer there")
    texts_changed: Share = knob("of the last run's items: other words")


class MonitorParams(Section):
    """No stage: from when on a fact of a run is an alarm, which the gate refuses."""

    runs: PositiveInt = knob("earlier runs that a run is compared with, the last ones")
    min_runs: Annotated[int, Field(ge=3)] = knob("with fewer earlier runs only `highest` counts")
    factor: Annotated[float, Field(gt=1.0)] = knob("times the earlier runs' median, or part of it, that a fact may be")
    spreads: NonNegativeFloat = knob("of the earlier runs' own spread that it may be away from there, if that is more")
    ignore: tuple[Fact, ...] = knob("facts that raise no alarm; `python -m pipelines monitor` lists them")
    highest: HighestParams = knob("shares that a run may show at most, whatever the earlier ones were")

    @model_validator(mode="after")
    def _runs_suffice(self) -> "MonitorParams":
        if self.runs < self.min_runs:
            raise ValueError("runs must be at least min_runs")
        return self
