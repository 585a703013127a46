"""Leave-one-out split in time order: last item test, last but one valid, the rest train."""

import logging
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llm_i2i.data.hashing import content_sha256, seeded_hash
from llm_i2i.errors import DataError
from llm_i2i.params import SplitParams
from llm_i2i.schema import INTERACTIONS, ITEM_ID, POSITION, TIMESTAMP, USER_ID

logger = logging.getLogger(__name__)

PROTOCOL: Final = "leave-one-out"


@dataclass(frozen=True)
class Split:
    """The three parts, each with the columns of schema.INTERACTIONS, sorted by (user_id, position).

    Attributes:
        train: All of a user's items but the last two; all of them for users with a short history.
        valid: One row a user with a long enough history: the last item but one.
        test: One row for each of the same users: the last item.
        manifest: Protocol, counts before and after every filter, content hashes.
    """

    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame
    manifest: dict[str, Any]


def split_interactions(interactions: pd.DataFrame, *, params: SplitParams, seed: int) -> Split:
    """Order each user's items by time and hold the last two out.

    The order of rows does not matter. Equal times are ordered by a seeded hash of user and item, so that
    neither identifiers nor the file decide which item is the test item. Of a pair of user and item that
    occurs several times the earliest row stays: a later one would put an item into both history and test.

    Args:
        interactions: user_id, item_id (str), timestamp (int64); further columns are left out.
        params: Limits; `max_users` samples users by seeded hash.
        seed: Of ties and of the sample.

    Returns:
        The split.

    Raises:
        DataError: An identifier is missing, or no user is left to test on.
    """
    rows = interactions[[USER_ID, ITEM_ID, TIMESTAMP]].reset_index(drop=True)
    _refuse_missing(rows)
    counts = {"raw": _counts(rows)}
    rows = rows.drop_duplicates()
    counts["without_exact_duplicates"] = _counts(rows)
    rows = rows.sort_values(TIMESTAMP, kind="stable").drop_duplicates([USER_ID, ITEM_ID])
    counts["without_repeated_items"] = _counts(rows)
    if params.max_users:
        rows = rows[rows[USER_ID].isin(_sample_users(rows[USER_ID], params.max_users, seed))]
    counts["sampled_users"] = _counts(rows)

    rows, n_tied = _in_time_order(rows, seed)
    length = rows.groupby(USER_ID)[POSITION].transform("size").to_numpy()
    from_end = length - rows[POSITION].to_numpy()
    held_out = length >= params.min_user_items
    parts = {
        "train": _part(rows, ~held_out | (from_end > 2)),
        "valid": _part(rows, held_out & (from_end == 2)),
        "test": _part(rows, held_out & (from_end == 1)),
    }
    if parts["test"].empty:
        raise DataError(
            "split",
            f"no user has {params.min_user_items} items (longest history: {length.max(initial=0)})",
            "at least one user to test on",
            "lower `split.min_user_items`, raise `split.max_users` or bring more interactions",
        )
    manifest = _manifest(parts, counts, n_tied, params, seed)
    logger.info("split: %s", ", ".join(f"{name} {len(part):,} rows" for name, part in parts.items()))
    return Split(parts["train"], parts["valid"], parts["test"], manifest)


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


def _in_time_order(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, int]:
    """Sort by (user_id, time, seeded hash) and number each user's rows.

    Returns:
        The rows with `position`, and how many of them share their time with another row of the user.
    """
    tied = rows.duplicated([USER_ID, TIMESTAMP], keep=False).to_numpy()
    # Only rows with a rival need a hash: it is the one step here that is a loop in Python.
    tie = np.zeros(len(rows), dtype=np.uint64)
    tie[tied] = seeded_hash(seed, rows.loc[tied, USER_ID], rows.loc[tied, ITEM_ID])
    ordered = rows.assign(tie=tie).sort_values([USER_ID, TIMESTAMP, "tie", ITEM_ID], ignore_index=True)
    ordered[POSITION] = ordered.groupby(USER_ID).cumcount().astype("int32")
    return ordered, int(tied.sum())


def _part(rows: pd.DataFrame, mask: NDArray[np.bool_]) -> pd.DataFrame:
    return rows.loc[mask, list(INTERACTIONS)].astype(INTERACTIONS).reset_index(drop=True)


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {"rows": len(rows), "users": rows[USER_ID].nunique(), "items": rows[ITEM_ID].nunique()}


def _manifest(
    parts: dict[str, pd.DataFrame],
    counts: dict[str, dict[str, int]],
    n_tied: int,
    params: SplitParams,
    seed: int,
) -> dict[str, Any]:
    """Everything that says how the parts came about and what they hold, ready for JSON."""
    unique, final = counts["without_exact_duplicates"], counts["sampled_users"]
    first = counts["without_repeated_items"]
    n_tested = len(parts["test"])
    return {
        "protocol": {
            "split": PROTOCOL,
            "order": "timestamp, ties by seeded BLAKE2b of user_id and item_id",
            "repeated_items": "the earliest row stays",
            "min_user_items": params.min_user_items,
            "max_users": params.max_users,
            "seed": seed,
        },
        "counts": counts,
        "removed": {
            "exact_duplicates": counts["raw"]["rows"] - unique["rows"],
            "repeated_items": counts["without_exact_duplicates"]["rows"]
            - counts["without_repeated_items"]["rows"],
            "users_not_sampled": first["users"] - final["users"],
        },
        "users_tested": n_tested,
        "users_in_train_only": final["users"] - n_tested,
        "rows_with_tied_time": n_tied,
        "density": final["rows"] / (final["users"] * final["items"]),
        "mean_user_items": final["rows"] / final["users"],
        "tables": {name: {**_counts(part), "sha256": content_sha256(part)} for name, part in parts.items()},
    }
