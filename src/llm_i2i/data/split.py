"""Split in time: leave-one-out (each user's last two items) or global (one moment for all users).

Global: the last `test_share` of all interactions is the test window, the `valid_share` before it the valid
window; the two moments between them are the same for everybody, so nothing in train is later than anything a
model is tested on. Interactions at a moment itself belong to the later part. A user is tested on the first
interaction in the test window, and only with enough history in train; later ones are dropped, since ranking
them would need what came between as history.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llm_i2i.data.hashing import Mask, content_sha256, places_by_hash, seeded_hash
from llm_i2i.data.repeats import Codes, in_pair_order, in_time_order, repeats
from llm_i2i.errors import DataError
from llm_i2i.params import SplitParams
from llm_i2i.schema import HELD_OUT, INTERACTIONS, ITEM_ID, POSITION, TIMESTAMP, USER_ID, decode, encode, is_encoded

logger = logging.getLogger(__name__)

ORDER: Final = "timestamp, ties by seeded BLAKE2b of user_id and item_id"
_MANY: Final = 0.1  # share of rows above which a filter is worth a warning
_MANY_TIED: Final = 0.5  # share of test items above which a hash's choice is


@dataclass(frozen=True)
class Split:
    """The three parts, each with the columns of schema.INTERACTIONS, sorted by (user_id, position).

    Attributes:
        train: Leave-one-out: all of a user's items but the last two; all of them for users with a short
            history. Temporal: what lies before the valid window.
        valid: Leave-one-out: one row per user with a long enough history, the last item but one. Temporal: all
            rows of such users in the valid window.
        test: One row per user. Leave-one-out: the last item, of the users of valid. Temporal: the first item in
            the test window, of users with a long enough history in train.
        held_out: schema.HELD_OUT, sorted by user_id: rows of train.
        manifest: Protocol, counts before and after every filter, content hashes.
    """

    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame
    held_out: pd.DataFrame
    manifest: dict[str, Any]


def split_interactions(interactions: pd.DataFrame, *, params: SplitParams, seed: int, order: str = TIMESTAMP) -> Split:
    """Order each user's items by time and hold the last ones out.

    The order of rows does not matter. Equal times are ordered by a seeded hash of user and item, so that
    neither identifiers nor the file decide which item is the test item. Of a pair of user and item that
    occurs several times the earliest row stays: a later one would put an item into both history and test.

    Args:
        interactions: user_id, item_id (str, encoded or not; so are the parts'), timestamp (int64); further columns are
            left out.
        params: Limits; `max_users` samples users by seeded hash.
        seed: Of ties and of the sample.
        order: What `timestamp` holds: times, or "position" for each user's own count, which says nothing of
            who came first.

    Returns:
        The split.

    Raises:
        DataError: An identifier is missing, a part is empty, or a temporal split of positions is asked for.
    """
    check_order(params, order)
    _refuse_missing(interactions)
    rows, counts = without_repeats(interactions)
    if params.max_users:
        rows = rows[are_sampled(rows[USER_ID], params, seed)]
    rows, tied = ordered(rows, seed)
    as_given = encode if is_encoded(interactions[USER_ID]) else decode
    return divided(rows, tied, counts, params=params, seed=seed, as_given=as_given)


def check_order(params: SplitParams, order: str) -> None:
    """Raise DataError if a temporal split of positions is asked for."""
    if params.strategy == "temporal" and order != TIMESTAMP:
        raise DataError("split", f"strategy temporal on `{order}`", "times", "set `split.strategy: leave_one_out`")


def are_sampled(users: pd.Series, params: SplitParams, seed: int) -> Mask:
    """Which rows are of a user of the sample, bool (n,)."""
    return users.isin(_sample_users(users, params.max_users, seed)).to_numpy()


def divided(
    rows: pd.DataFrame,
    tied: Mask,
    counts: dict[str, dict[str, int]],
    *,
    params: SplitParams,
    seed: int,
    as_given: Callable[[pd.Series], pd.Series],
) -> Split:
    """Hold out the last of rows in order.

    Args:
        rows: As of `ordered`, of the sampled users.
        tied: As of `ordered`.
        counts: As of `without_repeats`.
        params: Section split.
        seed: Of the sample whose last training item is held out.
        as_given: What makes of encoded identifiers those of the parts.

    Raises:
        DataError: A part is empty.
    """
    counts["sampled_users"] = _counts(rows)
    _log_dropped(counts)
    masks, facts = (_temporal if params.strategy == "temporal" else _leave_one_out)(rows, params)
    parts = {name: _part(rows, mask, as_given) for name, mask in masks.items()}
    del rows
    held_out = _held_out(parts["train"], params.held_out_share, seed)
    manifest = _manifest(parts | {"held_out": held_out}, counts, int(tied.sum()), facts)
    limits = {"min_user_items": params.min_user_items, "max_users": params.max_users}
    manifest["protocol"] |= {**limits, "seed": seed}
    logger.info("split: %s", ", ".join(f"{name} {len(part):,} rows" for name, part in parts.items()))
    _log_shares(tied, masks)
    return Split(parts["train"], parts["valid"], parts["test"], held_out, manifest)


def _log_dropped(counts: dict[str, dict[str, int]]) -> None:
    """What every filter takes away, as a warning where it is more than a tenth."""
    before = counts["raw"]["rows"]
    for name, after in counts.items():
        if dropped := before - after["rows"]:
            many = dropped > _MANY * before and name != "sampled_users"  # asked for
            level = logging.WARNING if many else logging.INFO
            share = 100 * dropped / before
            logger.log(level, "split: %s drops %s of %s rows (%.1f %%)", name, f"{dropped:,}", f"{before:,}", share)
        before = after["rows"]


def _log_shares(tied: Mask, masks: dict[str, Mask]) -> None:
    """Rows that no part takes, and test items that share their time with another item of the user."""
    unused = len(tied) - sum(int(mask.sum()) for mask in masks.values())
    if unused:
        logger.info("split: %s of %s rows (%.1f %%) are in no part", f"{unused:,}", f"{len(tied):,}",
                    100 * unused / len(tied))  # fmt: skip
    tied_test = tied[masks["test"]]
    level = logging.WARNING if tied_test.mean() > _MANY_TIED else logging.INFO
    if tied_test.any():
        logger.log(level, "split: a hash chose %s of %s test items (%.1f %%): the user took others at the same time",
                   f"{int(tied_test.sum()):,}", f"{len(tied_test):,}", 100 * tied_test.mean())  # fmt: skip


def _held_out(train: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """The last training item of a sample of users; each keeps at least one target and its context."""
    if not share:  # what follows would hash every user
        return train.loc[train.index[:0], list(HELD_OUT)]
    users = encode(train[USER_ID]).cat.codes.to_numpy()
    ends = np.flatnonzero(np.diff(users, append=-1))
    last = train.iloc[ends[np.diff(ends, prepend=-1) >= 3]]
    sample = _sample_users(last[USER_ID], round(share * len(last)), seed)
    return last.loc[last[USER_ID].isin(sample), list(HELD_OUT)].reset_index(drop=True)


def _leave_one_out(rows: pd.DataFrame, params: SplitParams) -> tuple[dict[str, Mask], dict[str, Any]]:
    """Which rows of the ordered table are train, valid and test, and what to say of it."""
    sizes = np.bincount(rows[USER_ID].cat.codes)
    length = sizes.astype(np.int32)[rows[USER_ID].cat.codes]
    from_end = length - rows[POSITION].to_numpy()
    held_out = length >= params.min_user_items
    if not held_out.any():
        raise DataError(
            "split",
            f"no user has {params.min_user_items} items (longest history: {length.max(initial=0)})",
            "at least one user to test on",
            "lower `split.min_user_items`, raise `split.max_users` or bring more interactions",
        )
    masks = {
        "train": ~held_out | (from_end > 2),
        "valid": held_out & (from_end == 2),
        "test": held_out & (from_end == 1),
    }
    return masks, {"split": "leave-one-out"}


def _temporal(rows: pd.DataFrame, params: SplitParams) -> tuple[dict[str, Mask], dict[str, Any]]:
    """The same for one moment for all users."""
    time = rows[TIMESTAMP].to_numpy()
    ordered = np.sort(time)
    places = [1.0 - params.test_share - params.valid_share, 1.0 - params.test_share]
    # The rounding keeps .8 of 10 rows at 8: floating-point sums fall just below.
    valid_from, test_from = ordered[[int(round(place * len(ordered), 6)) for place in places]]
    in_train, in_test = time < valid_from, time >= test_from
    history = pd.Series(in_train).groupby(rows[USER_ID]).transform("sum").to_numpy()
    known = history >= max(1, params.min_user_items - 2)
    in_window = in_test & known
    first = np.zeros(len(rows), dtype=np.bool_)
    first[rows[in_window].drop_duplicates(USER_ID).index] = True  # rows are in time order
    masks = {"train": in_train, "valid": ~in_train & ~in_test & known, "test": first}
    for name, mask in masks.items():
        if not mask.any():
            raise DataError(
                "split",
                f"{name} is empty (valid from {valid_from}, test from {test_from})",
                "rows in every part",
                "change `split.valid_share` and `split.test_share`, or set `split.strategy: leave_one_out`",
            )
    facts = {
        "split": "temporal",
        "valid_from": int(valid_from),
        "test_from": int(test_from),
        "rows_after_the_target": int(in_window.sum() - first.sum()),
        "rows_of_users_without_history": int((~in_train & ~known).sum()),
    }
    return masks, facts


def _refuse_missing(rows: pd.DataFrame) -> None:
    missing = rows[[USER_ID, ITEM_ID]].isna().any(axis=1).to_numpy()
    if missing.any():
        first = int(np.flatnonzero(missing)[0]) + 1
        found = f"{int(missing.sum()):,} rows without user_id or item_id (first: row {first})"
        raise DataError("interactions", found, "identifiers in every row", "fill or drop these rows")


def _sample_users(users: pd.Series, n: int, seed: int) -> NDArray[np.object_]:
    """The n users of lowest seeded hash: a smaller sample is part of a larger one."""
    names = np.sort(users.unique().astype(object))
    kept: NDArray[np.object_] = names[np.argsort(seeded_hash(seed, names), kind="stable")[:n]]
    return kept


def without_repeats(interactions: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """The earliest row of each pair of user and item, encoded, sorted by these, and counts before and after."""
    pair = {name: encode(interactions[name]).array for name in (USER_ID, ITEM_ID)}
    user, item = (pair[name].codes for name in (USER_ID, ITEM_ID))
    time = interactions[TIMESTAMP].to_numpy()
    order, again, exact = in_pair_order(user, item, time)
    counts = {"raw": {"rows": len(user), "users": _n_distinct(user), "items": _n_distinct(item)}}
    counts["without_exact_duplicates"] = counts["raw"] | {"rows": len(user) - int(exact.sum())}
    counts["without_repeated_items"] = counts["raw"] | {"rows": len(user) - int(again.sum())}
    order = order[~again]
    kept = {name: column.take(order) for name, column in pair.items()}
    return pd.DataFrame({**kept, TIMESTAMP: time[order]}, copy=False), counts


def ordered(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, Mask]:
    """Sort by (user_id, time, seeded hash) and number each user's rows.

    Args:
        rows: Encoded, sorted by (user_id, item_id).
        seed: Of the hash.

    Returns:
        The rows with `position`, and which of them share their time with another row of the user.
    """
    rows = rows.iloc[in_time_order(rows[USER_ID].cat.codes.to_numpy(), rows[TIMESTAMP].to_numpy())]
    user = rows[USER_ID].cat.codes.to_numpy()
    ties = repeats(user) & repeats(rows[TIMESTAMP].to_numpy())
    places = places_by_hash(ties, seed, rows[USER_ID], rows[ITEM_ID])
    tied = ties | np.append(ties[1:], False)
    first = np.flatnonzero(np.diff(user, prepend=-1)).astype(np.int32)
    position = np.arange(len(rows), dtype=np.int32) - np.repeat(first, np.diff(np.append(first, len(rows))))
    # Rows that tie are of one user and time: only their items change places.
    return rows.assign(**{ITEM_ID: rows[ITEM_ID].array.take(places), POSITION: position}).reset_index(drop=True), tied


def _part(rows: pd.DataFrame, mask: Mask, as_given: Callable[[pd.Series], pd.Series]) -> pd.DataFrame:
    part = rows.loc[mask, list(INTERACTIONS)].reset_index(drop=True)
    return part.assign(**{name: as_given(part[name]) for name in (USER_ID, ITEM_ID)})


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    users, items = (_n_distinct(encode(rows[name]).cat.codes.to_numpy()) for name in (USER_ID, ITEM_ID))
    return {"rows": len(rows), "users": users, "items": items}


def _n_distinct(codes: Codes) -> int:
    return int(np.count_nonzero(np.bincount(codes)))


def _manifest(
    parts: dict[str, pd.DataFrame], counts: dict[str, dict[str, int]], n_tied: int, facts: dict[str, Any]
) -> dict[str, Any]:
    """Everything that says how the parts came about and what they hold, ready for JSON."""
    raw, unique, first, final = counts.values()
    n_tested = len(parts["test"])
    tables: dict[str, dict[str, Any]] = {
        name: {**_counts(part), "sha256": content_sha256(part)} for name, part in parts.items()
    }
    return {
        "protocol": {**facts, "order": ORDER, "repeated_items": "the earliest row stays"},
        "counts": counts,
        "removed": {
            "exact_duplicates": raw["rows"] - unique["rows"],
            "repeated_items": unique["rows"] - first["rows"],
            "users_not_sampled": first["users"] - final["users"],
        },
        "users_tested": n_tested,
        "users_in_train_only": tables["train"]["users"] - n_tested,
        "rows_with_tied_time": n_tied,
        "density": final["rows"] / (final["users"] * final["items"]),
        "mean_user_items": final["rows"] / final["users"],
        "tables": tables,
    }
