"""The facts of one run: of its data, its newest day, its generator, its arm and its index.

What was not measured is left out. Every fact is a function of the run alone, so that equal runs give equal bytes.
"""

from typing import Any, Final

import numpy as np
import pandas as pd

from llm_i2i.arrays import Array
from llm_i2i.data.columns import UNITS
from llm_i2i.data.repeats import in_pair_order
from llm_i2i.data.sources import RawTables
from llm_i2i.measures import gini
from llm_i2i.schema import BUCKETS, CONTROLS, ITEM_ID, TIMESTAMP, USER_ID, encode

Facts = dict[str, float]
Json = dict[str, Any]
MIN_ROWS: Final = 200  # of which a share is told: less is noise
_DAY: Final = 86_400  # seconds
_WEEKS: Final = 4  # before the newest day, which it is compared with
_BINS: Final = 10  # of popularity, of as many interactions each
_LEAST: Final = 0.01  # added to each bin's share


def run_facts(
    raw: RawTables,
    *,
    synthesis: Json | None = None,
    kept: Json | None = None,
    metrics: Json | None = None,
    index: pd.DataFrame | None = None,
) -> Facts:
    """Every fact of a run that has what it takes, rounded, so that a machine's last digits do not show.

    Args:
        raw: The raw tables, ids without a missing value (which validation refuses).
        synthesis: What `llm.validity` says of the generator's rows.
        kept: What `augmentation.fusion` counted of the gate's arm.
        metrics: What `evaluation` measured of the gate's index.
        index: That index (schema.INDEX).
    """
    found = data_facts(raw)
    if synthesis is not None:
        found |= generator_facts(synthesis)
    if kept is not None:
        found |= fused_facts(kept, synthesis)
    if metrics is not None and index is not None:
        found |= index_facts(metrics, index, len(raw.items))
    return {name: round(float(value), 6) for name, value in found.items()}


def data_facts(raw: RawTables) -> Facts:
    """Facts of the raw tables.

    rows, users, items (of the catalogue), duplicates and repeats (shares of rows that say a user's item again, at the
    same and at another time), titles_missing (share of items), heaviest_user, top_item (the largest shares of rows),
    top_percent (share of rows on the most taken hundredth of the items), gini (of the rows over the items),
    user_rows (mean rows per user); with times also same_time (share of rows at the commonest time), ticks (per second)
    and `day_facts`.
    """
    user, item = (encode(raw.interactions[name]).cat.codes.to_numpy() for name in (USER_ID, ITEM_ID))
    time = raw.interactions[TIMESTAMP].to_numpy()
    taken, by_user = np.bincount(item, minlength=len(raw.items)), np.bincount(user)
    _, again, exact = in_pair_order(user, item, time)
    facts = {
        "rows": len(time),
        "users": len(by_user),
        "items": len(raw.items),
        "duplicates": exact.mean(),
        "repeats": again.mean() - exact.mean(),
        "titles_missing": (raw.items["title"].fillna("").str.strip() == "").mean(),
        "heaviest_user": by_user.max() / len(time),
        "top_item": taken.max() / len(time),
        "top_percent": np.sort(taken)[-max(1, len(taken) // 100) :].sum() / len(time),
        "gini": gini(taken),
        "user_rows": len(time) / len(by_user),
    }
    if raw.order == TIMESTAMP:
        ticks = 1000 ** UNITS.index(raw.unit)
        facts |= {"same_time": np.unique(time, return_counts=True)[1].max() / len(time), "ticks": ticks}
        facts |= day_facts(user, item, time // (_DAY * ticks))
    return facts


def day_facts(user: Array, item: Array, day: Array) -> Facts:
    """Facts of the newest day, against the four weeks before it; none where these have few rows.

    day_rows (over the median of the same weekday in these weeks), day_gap (days since the one before it with rows),
    day_new_users (share of its users), day_new_items (share of its rows), day_heaviest_user, day_top_item (the largest
    shares of its rows), day_shift (`stability_index` of the items' popularity).

    Args:
        user: Codes, int (n_rows,).
        item: Codes, int (n_rows,).
        day: Days since 1970, int (n_rows,).
    """
    newest, oldest = int(day.max()), int(day.min())
    weekdays = [newest - 7 * week for week in range(1, _WEEKS + 1) if newest - 7 * week >= oldest]
    before = day[day < newest]
    usual = float(np.median([(before == other).sum() for other in weekdays])) if weekdays else 0.0
    now = day == newest
    if usual < MIN_ROWS:
        return {}
    lately = (day >= newest - 7 * _WEEKS) & ~now
    n_items, rows = int(item.max()) + 1, int(now.sum())
    users = np.unique(user[now])
    counts, earlier = (np.bincount(item[chosen], minlength=n_items) for chosen in (now, lately))
    return {
        "day_rows": rows / usual,
        "day_gap": newest - int(before.max()),
        "day_new_users": 1.0 - np.isin(users, user[~now]).mean(),
        "day_new_items": 1.0 - np.isin(item[now], item[~now]).mean(),
        "day_heaviest_user": np.bincount(user[now]).max() / rows,
        "day_top_item": counts.max() / rows,
        "day_shift": stability_index(earlier, counts),
    }


def stability_index(before: Array, now: Array) -> float:
    """The population stability index: sum over bins of (q - p) ln(q / p), 0 = alike.

    Ten bins of items with as many interactions before, the most popular first, and one of items that had none. A
    hundredth is added to each bin's share, so that a few interactions in an empty one do not outweigh all others.

    Args:
        before: Interactions of each item, int (n_items,), some above 0.
        now: The same of another time.
    """
    order = np.argsort(-before, kind="stable")
    passed = np.cumsum(before[order]) - before[order]
    bins = np.where(before[order] > 0, _BINS * passed // before.sum(), _BINS).astype(np.int64)
    counts = (np.bincount(bins, weights=of[order], minlength=_BINS + 1) for of in (before, now))
    p, q = ((of / of.sum() + _LEAST) / (1.0 + _LEAST * len(of)) for of in counts)
    return float(((q - p) * np.log(q / p)).sum())


def generator_facts(synthesis: Json) -> Facts:
    """valid_share, generated_items (distinct) and effective_items (e to the entropy of the items' shares).

    Args:
        synthesis: What `llm.validity` says.
    """
    return {
        "valid_share": synthesis["valid_share"],
        "generated_items": synthesis["distinct_items"],
        "effective_items": np.exp(synthesis["exposure_entropy"]),
    }


def fused_facts(kept: Json, synthesis: Json | None) -> Facts:
    """synthetic_share of the rows; accepted: share of the offered pairs, and of the proposed ones in each bucket.

    Args:
        kept: What `augmentation.fusion` counted.
        synthesis: As of `run_facts`; what a control proposed is not in it.
    """
    facts: Facts = {"synthetic_share": kept["synthetic_kept"] / max(1, kept["rows"])}
    if kept["synthetic_in"] >= MIN_ROWS:
        facts["accepted"] = kept["share_kept_synthetic"]
    is_control = kept["arm"].removesuffix("_filtered") in CONTROLS
    proposed = synthesis["by_bucket"] if synthesis and kept["synthetic_in"] and not is_control else {}
    for bucket in BUCKETS:
        if proposed.get(bucket, 0) >= MIN_ROWS:
            facts[f"accepted_{bucket}"] = kept["by_bucket"][bucket]["synthetic"] / proposed[bucket]
    return facts


def index_facts(metrics: Json, index: pd.DataFrame, n_items: int) -> Facts:
    """Coverage and index_gini of the longest lists evaluated; reachable; listed: share of items with neighbours.

    Args:
        metrics: What `evaluation` measured.
        index: schema.INDEX.
        n_items: Size of the catalogue.
    """
    k = max(metrics["protocol"]["ks"])
    return {
        "coverage": metrics[f"coverage@{k}"],
        "index_gini": metrics[f"gini@{k}"],
        "reachable": metrics["reachable_share"],
        "listed": index[ITEM_ID].nunique() / n_items,
    }
