"""What the events say: how often users of each arm click and buy, and what they bought as training data."""

import csv
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy.stats import binomtest

from llm_i2i.data.columns import UNITS
from llm_i2i.data.sources import read_raw
from llm_i2i.errors import DataError
from llm_i2i.schema import ITEM_ID, RATING, TIMESTAMP, USER_ID
from llm_i2i.serving.arms import CHOSEN, NOBODY

log = logging.getLogger(__name__)

KINDS = ("click", "purchase")


class Rate(NamedTuple):
    """How many of some users did something, and the 95 % interval of their share."""

    did: int
    users: int
    share: float
    low: float
    high: float


class Report(NamedTuple):
    """Rates by kind and arm, and what was left out.

    Attributes:
        rates: By kind, then by arm in the order of their names.
        left_out: Events or users by reason.
    """

    rates: dict[str, dict[str, Rate]]
    left_out: dict[str, int]


def report(events: Iterable[dict[str, Any]]) -> Report:
    """Compare arms by user: the split is by user, so the clicks of one user are not independent of each other.

    A user counts once something was shown to it, in the one arm that it saw; who clicked or bought counts once.

    Args:
        events: As `read_events` gives them.

    Raises:
        DataError: No user of any arm was shown anything.
    """
    table = pd.DataFrame(
        [(*event["recommendation_id"].split("."), event["type"]) for event in events],
        columns=["arm", "version", "unit", "nonce", "type"],
    )
    left_out = {
        "events without a user": int((table["unit"] == NOBODY).sum()),
        "events of an arm that the client chose": int((table["unit"] == CHOSEN).sum()),
    }
    table = table[~table["unit"].isin([NOBODY, CHOSEN])]
    mixed = table.groupby("unit")["arm"].nunique()
    left_out["users of several arms"] = int((mixed > 1).sum())
    table = table[table["unit"].isin(mixed.index[mixed == 1])]
    shown = table["unit"].isin(table["unit"][table["type"] == "impression"])
    left_out["clicks and purchases of users without an impression"] = int((~shown).sum())
    table = table[shown]
    if table.empty:
        raise DataError("events", "no user was shown anything", "events of type impression, of answers to a user_id")
    users = table.groupby("arm")["unit"].nunique()
    rates = {}
    for kind in KINDS:
        did = table[table["type"] == kind].groupby("arm")["unit"].nunique().reindex(users.index, fill_value=0)
        rates[kind] = {str(arm): rate(int(did[arm]), int(users[arm])) for arm in users.index}
    return Report(rates, {reason: count for reason, count in left_out.items() if count})


def rate(did: int, users: int) -> Rate:
    """A share with Wilson's score interval (Wilson 1927, JASA 22)."""
    found = binomtest(did, users).proportion_ci(0.95, method="wilson")
    return Rate(did, users, did / users, float(found.low), float(found.high))


def difference(first: Rate, second: Rate) -> tuple[float, float, float]:
    """Second share less the first, and its 95 % interval: Newcombe 1998, Statistics in Medicine 17, method 10."""
    value = second.share - first.share
    low = value - ((second.share - second.low) ** 2 + (first.high - first.share) ** 2) ** 0.5
    high = value + ((second.high - second.share) ** 2 + (first.share - first.low) ** 2) ** 0.5
    return value, low, high


def lines(found: Report) -> Iterator[str]:
    """The report as text, columns separated by tabs; every arm is compared with the first."""
    for kind, rates in found.rates.items():
        base = next(iter(rates))
        yield f"{kind}\tusers\tof\tshare\t95 % interval\tless {base}\t95 % interval"
        for arm, one in rates.items():
            row = [arm, f"{one.did:,}", f"{one.users:,}", f"{one.share:.4f}", f"{one.low:.4f} to {one.high:.4f}"]
            if arm != base:
                value, low, high = difference(rates[base], one)
                row += [f"{value:+.4f}", f"{low:+.4f} to {high:+.4f}"]
            yield "\t".join(row)
    for reason, count in found.left_out.items():
        yield f"left out: {count:,} {reason}"


def interactions(events: Iterable[dict[str, Any]], data: Path, out: Any, *, rating: str = "") -> None:
    """Write purchases as CSV rows that can be appended to the raw interactions: same columns, same unit of time.

    Args:
        events: As `read_events` gives them.
        data: Folder of the raw tables; interactions.csv says the columns.
        out: Text file to write to. A purchase that is in the table is not written again.
        rating: What a purchase counts as, where the table has ratings.

    Raises:
        DataError: The raw interactions are no plain CSV, have no times, or have ratings and none is given.
    """
    raw = read_raw(data)
    path = data / "interactions.csv"
    if not path.exists() or raw.order != TIMESTAMP:
        raise DataError(str(data), "rows cannot be appended to it", "interactions.csv with the column timestamp")
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(row for row in csv.reader(file) if row)
    if RATING in header and not rating:
        raise DataError("--rating", f"is missing, and {path} has ratings", "the rating that a purchase counts as")
    known = set(zip(raw.interactions[USER_ID], raw.interactions[ITEM_ID], raw.interactions[TIMESTAMP], strict=True))
    factor = 1_000 ** UNITS.index(raw.unit)
    writer, without, again, written = csv.writer(out, lineterminator="\n"), 0, 0, 0
    for event in events:
        if event["type"] != "purchase":
            continue
        row = (event.get(USER_ID), event[ITEM_ID], event[TIMESTAMP] * factor)
        if row[0] is None:
            without += 1
        elif row in known:
            again += 1
        else:
            known.add(row)
            cells = dict(zip((USER_ID, ITEM_ID, TIMESTAMP, RATING), (*row, rating), strict=True))
            writer.writerow([cells.get(name, "") for name in header])
            written += 1
    log.info("events: %s purchases written, %s known already, %s without user_id", written, again, without)
