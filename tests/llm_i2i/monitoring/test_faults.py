"""Faults planted on top of clean days are told, ten clean days in a row are not."""

from pathlib import Path

import pytest

from llm_i2i.data.sources import read_raw
from llm_i2i.errors import DataError
from llm_i2i.monitoring.drift import watch
from tests.llm_i2i.monitoring.shop import DAY, FAULTS, PARAMS, TOLD_BY, Day, Shop, faulty, run_of

SEED = 2026
BEFORE = PARAMS.monitor.min_runs
CLEAN = 10


@pytest.fixture(scope="module")
def nights() -> tuple[list[dict], Day]:
    """Clean runs, as many as are compared with and ten more, and the tables of the night after them."""
    shop, runs = Shop(SEED), []
    for night in range(BEFORE + CLEAN):
        runs.append(run_of(shop.export(), night))
        shop.next()
    return runs, shop.export()


def test_ten_clean_days_in_a_row_raise_no_alarm(nights):
    runs, _ = nights
    for night in range(BEFORE, BEFORE + CLEAN):
        found = watch(runs[night], runs[:night][::-1], PARAMS.monitor)
        assert found.n_recipe >= BEFORE
        assert found.alarms == ()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_top_of_clean_days_is_told_by_its_fact(fault, nights):
    runs, day = nights
    found = watch(faulty(fault, day, 99), runs[::-1], PARAMS.monitor)
    assert TOLD_BY[fault] in [one.name for one in found.found if one.alarms]


def test_one_day_in_milliseconds_is_refused_by_the_reader(nights, tmp_path: Path):
    day = nights[1]
    time = day.raw.interactions["timestamp"]
    day.raw.items.to_csv(tmp_path / "items.csv", index=False)
    mixed = day.raw.interactions.assign(timestamp=time.where(~day.newest, time * 1000))
    mixed.to_csv(tmp_path / "interactions.csv", index=False)
    with pytest.raises(DataError, match=r"row\(s\) in seconds and [\d,]+ row\(s\) in milliseconds"):
        read_raw(tmp_path)
    assert time.max() // DAY > 20_000
