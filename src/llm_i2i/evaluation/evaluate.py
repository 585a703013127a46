"""Evaluate an index under a protocol: one rank per test user, and every number derived from those and the lists."""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from llm_i2i.arrays import Array, IntArray
from llm_i2i.catalogue import Histories, histories_of, item_indices
from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.metrics import accuracy, list_metrics
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.i2i import from_index, recommend
from llm_i2i.schema import (
    BUCKETS,
    IS_LONG_TAIL,
    ITEM_ID,
    LONG_TAIL,
    PER_USER,
    POSITION,
    TAIL,
    USER_ID,
    is_encoded,
    stack,
    texts_of,
)

log = logging.getLogger(__name__)
HISTORY = [USER_ID, ITEM_ID, POSITION]


def evaluate_index(
    *,
    index: pd.DataFrame,
    train: pd.DataFrame,
    valid: pd.DataFrame,
    test: pd.DataFrame,
    items: pd.DataFrame,
    protocol: Protocol,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Evaluate an index on the test users.

    The query of a user is its train and valid history in time order; all of that history is removed
    from the candidates. To tune on valid, pass valid as `test` and an empty valid.

    Args:
        index: `schema.INDEX`; like train and valid encoded or not.
        train: `schema.INTERACTIONS`, of which the columns of `HISTORY` are read.
        valid: The same.
        test: `schema.INTERACTIONS`, one row per user.
        items: `schema.ITEMS`.
        protocol: What the numbers mean.

    Returns:
        Metrics (without model and arm, which the caller knows) and `schema.PER_USER` sorted by user_id.
        A user's bucket is its target's. A bucket without users has n_users 0 and no metric.

    Raises:
        ArtifactError: A table is malformed, an item is not in the catalogue, or a user has two test rows.
    """
    test = test.sort_values(USER_ID, kind="stable").reset_index(drop=True)
    check_tables(test, items)
    similar = from_index(index, items)
    targets = item_indices(test[ITEM_ID], items, where="test")
    history = stack(*(_of_users(rows[HISTORY], test[USER_ID]) for rows in (train, valid)))
    histories = histories_of(test[USER_ID], history, items)
    repeats = _targets_in_history(histories, targets)
    if repeats:
        log.warning("evaluate: %s test targets are in their user's history and count as not found", f"{repeats:,}")
    top_k = max(protocol.ks)
    found = recommend(similar, histories, top_k=top_k, targets=targets, last_m=protocol.last_m, decay=protocol.decay)
    metrics, per_user = measured(
        test, targets, found.ranks, found.lists, items=items, protocol=protocol, ks=protocol.ks
    )
    overall = metrics["overall"]
    log.info(
        "evaluate: %s users, recall@%d %.4f, ndcg@%d %.4f, reachable %.1f %%",
        f"{len(test):,}",
        top_k,
        overall[f"recall@{top_k}"],
        top_k,
        overall[f"ndcg@{top_k}"],
        100 * metrics["reachable_share"],
    )
    return metrics, per_user


def measured(
    test: pd.DataFrame,
    targets: IntArray,
    ranks: Array,
    lists: Array,
    *,
    items: pd.DataFrame,
    protocol: Protocol,
    ks: Sequence[int],
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Everything that ranks and lists say: accuracy by slice, and what the lists show at each cut-off.

    Args:
        test: `schema.INTERACTIONS`, one row per user, sorted by user_id.
        targets: int64 (n_users,), its items' indices.
        ranks: int (n_users,), 0 = the target got no score.
        lists: int (n_users, max(ks)), item indices best first, -1 behind the end.
        items: `schema.ITEMS`.
        protocol: What the metrics say of themselves.
        ks: Cut-offs.

    Returns:
        Metrics and `schema.PER_USER`, as of `evaluate_index`.
    """
    buckets, long_tail = items["bucket"].to_numpy(), items[IS_LONG_TAIL].to_numpy(dtype=np.bool_)
    asked = "\n".join((test[USER_ID] + "\t" + test[ITEM_ID]).tolist())
    metrics = {
        "protocol_hash": protocol.hash,
        "protocol": protocol.model_dump(mode="json"),
        "test_sha256": hashlib.sha256(asked.encode()).hexdigest(),  # who is tested on what
        **_accuracy_by_slice(ranks, buckets[targets], long_tail[targets], ks),
    }
    n_train = items["n_train"].to_numpy()
    for k in ks:
        metrics |= list_metrics(lists[:, :k], n_train=n_train, tail=buckets == TAIL, long_tail=long_tail)
    bucket = pd.Series(buckets[targets], dtype="str")
    return metrics, test[[USER_ID, ITEM_ID]].assign(bucket=bucket, rank=ranks).astype(PER_USER)


def _accuracy_by_slice(ranks: Array, buckets: Array, long_tail: Array, ks: Sequence[int]) -> dict[str, Any]:
    """Accuracy overall and by slice of each user's target, and the reachable shares."""
    groups = {name: buckets == name for name in BUCKETS} | {LONG_TAIL: long_tail}
    by_bucket: dict[str, dict[str, float]] = {}
    for name, members in groups.items():
        by_bucket[name] = {"n_users": int(members.sum())}
        if members.any():
            by_bucket[name] |= accuracy(ranks[members], ks)
    reachable = {
        f"reachable_share_{name}": float((ranks[groups[name]] > 0).mean())
        for name in (TAIL, LONG_TAIL)
        if groups[name].any()
    }
    overall = {"overall": accuracy(ranks, ks), "reachable_share": float((ranks > 0).mean())}
    return {"n_users": len(ranks), "buckets": by_bucket, **overall, **reachable}


def _of_users(rows: pd.DataFrame, users: pd.Series) -> pd.DataFrame:
    """The rows of some users; those of others would only cost memory."""
    if not is_encoded(rows[USER_ID]):
        return rows[rows[USER_ID].isin(users)]
    texts, codes = texts_of(rows[USER_ID]), rows[USER_ID].cat.codes.to_numpy()
    asked = np.asarray(pc.is_in(texts, value_set=pa.array(users, texts.type)))
    kept = rows[asked[codes]]
    return kept.assign(**{name: kept[name].cat.remove_unused_categories() for name in (USER_ID, ITEM_ID)})


def check_tables(test: pd.DataFrame, items: pd.DataFrame) -> None:
    """Raise ArtifactError unless there is one test row per user and every item has a known bucket."""
    if test.empty:
        raise ArtifactError("test", "holds no rows", "one row per test user", "check split.min_user_items")
    twice = test[USER_ID].duplicated()
    if twice.any():
        raise ArtifactError("test", f"user {test[USER_ID][twice].iloc[0]} has more than one row", "one row per user")
    unknown = ~items["bucket"].isin(BUCKETS)
    if unknown.any():
        raise ArtifactError("items", f"bucket {items['bucket'][unknown].iloc[0]!r}", " | ".join(BUCKETS))


def _targets_in_history(histories: Histories, targets: IntArray) -> int:
    """Count the users whose target is in their own history."""
    sizes = np.diff(histories.bounds)
    hits = histories.items == np.repeat(targets, sizes)
    return int(np.unique(np.repeat(np.arange(len(targets)), sizes)[hits]).size)
