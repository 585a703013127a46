from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.monitoring.drift import FACTS, watch
from llm_i2i.params import MonitorParams
from llm_i2i.params.monitor import Fact
from llm_i2i.schema import ITEM_ID
from tests.llm_i2i.monitoring.shop import PARAMS
from tests.llm_i2i.monitoring.test_sketch import catalogue, sketched


def params(**changes) -> MonitorParams:
    return PARAMS.monitor.model_copy(update={"runs": 8, "min_runs": 3, "factor": 2.0, "spreads": 4.0, **changes})


def run(data: str = "a", recipe: str = "b", **facts: float) -> dict:
    same = {"users": ["00" * 256], "items": []}
    return {"facts": {"users": 10.0, **facts}, "series": {"data": data, "recipe": recipe}, "sketch": same}


def told(value: float, *earlier: float, name: str = "rows", **changes) -> bool:
    """Whether a fact raises an alarm after earlier values, the newest last."""
    found = watch(run(**{name: value}), [run(**{name: one}) for one in reversed(earlier)], params(**changes))
    return any(one.name == name and one.alarms for one in found.found)


def test_every_fact_of_the_schema_is_watched():
    assert tuple(FACTS) == get_args(Fact)
    assert set(type(PARAMS.monitor.highest).model_fields) <= set(FACTS)


@pytest.mark.parametrize(("value", "alarm"), [(100, False), (199, False), (201, True), (51, False), (49, True)])
def test_limits_are_the_median_times_factor_and_divided_by_it(value, alarm):
    assert told(value, 90, 100, 110) == alarm


def test_more_is_allowed_where_earlier_runs_spread_more():
    """Median 100 and median absolute deviation log 1.5: 4 x 1.4826 x log 1.5 lets 1100 pass, log 2 would not."""
    assert not told(1100, 100 / 1.5, 100, 150)
    assert told(1200, 100 / 1.5, 100, 150)


def test_values_up_to_the_floor_are_all_alike():
    assert not told(0.0999, 0.0, 0.0, 0.0, name="repeats")  # floor 0.05, times 2
    assert told(0.1001, 0.0, 0.0, 0.0, name="repeats")
    assert not told(0.0, 0.3, 0.3, 0.3, name="repeats")  # fewer are no fault


def test_a_share_near_one_is_watched_by_what_is_missing():
    assert not told(0.91, 1.0, 1.0, 1.0, name="valid_share")  # 0.09 against a floor of 0.05, times 2
    assert told(0.89, 1.0, 1.0, 1.0, name="valid_share")
    assert told(0.95, 0.8, 0.8, 0.8, name="index_gini")  # what is missing to 1 fell from 0.2 to 0.05
    assert not told(0.6, 0.8, 0.8, 0.8, name="index_gini")


def test_with_few_earlier_runs_only_what_a_table_shows_counts():
    assert not told(1000, 100, 100)
    assert told(0.11, name="duplicates")
    assert not told(0.09, name="duplicates")
    assert "with fewer than 3 only" in watch(run(), [run()], params()).against
    assert "with fewer" not in watch(run(), [run()] * 3, params()).against
    assert "3 earlier run(s) of this data, 0 of this" in watch(run(), [run(recipe="other")] * 3, params()).against


def test_what_is_ignored_is_shown_and_raises_no_alarm():
    assert not told(1000, 100, 100, 100, ignore=("rows",))
    (rows, *_) = watch(run(rows=1000), [run(rows=100)] * 3, params(ignore=("rows",))).found
    assert rows.drifts


def test_other_data_and_another_recipe_begin_anew():
    others = [run(data="other", rows=1)] * 5
    found = watch(run(rows=100), others, params())
    assert (found.n_data, found.alarms) == (0, ())
    earlier = [run(recipe="other", coverage=0.9, rows=100)] * 5
    found = watch(run(rows=1, coverage=0.1), earlier, params())
    assert [one.name for one in found.found if one.alarms] == ["rows"]


def test_a_fact_that_a_run_lacks_is_left_out_of_it():
    earlier = [run(rows=100, accepted=0.5), run(rows=100), run(rows=100, accepted=0.5), run(rows=100, accepted=0.5)]
    found = {one.name: one for one in watch(run(rows=100), earlier, params()).found}
    assert "accepted" not in found
    again = {one.name: one for one in watch(run(rows=100, accepted=0.5), earlier, params()).found}
    assert again["accepted"].earlier == (0.5, 0.5, 0.5)


@settings(max_examples=30)
@given(st.lists(st.floats(90.0, 110.0), min_size=7, max_size=7), st.floats(0.01, 1e6), st.integers(0, 6))
def test_one_bad_day_among_the_earlier_ones_hides_nothing(values, bad, place):
    assert told(1000.0, *values[:place], bad, *values[place + 1 :])


def test_what_changed_since_the_last_run_is_a_fact_too():
    rng = np.random.default_rng(0)
    items = catalogue(300)
    before = {**run(), "sketch": sketched(items, rng)}
    renamed = {**run(), "sketch": sketched(items.assign(title=np.roll(items["title"], 1)), rng)}
    found = watch(renamed, [before], params())
    assert [text.split(":")[0] for text in found.alarms] == [FACTS["texts_changed"].words]
    recoded = {**run(), "sketch": sketched(items.assign(**{ITEM_ID: "x" + items[ITEM_ID]}), rng)}
    assert [one.name for one in watch(recoded, [before], params()).found if one.alarms] == ["items_gone"]
    assert watch(before, [renamed, before], params()).alarms == ()  # put right again
