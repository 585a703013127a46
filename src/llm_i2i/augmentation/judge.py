"""The judge: how likely is it that the user takes what the generator proposed?

The discriminator learned to tell a user's items from random ones. Among the generator's proposals none is random: what
is left to tell is learned here, on proposals made just before an item that no LLM was trained on. A proposal counts as
taken if it is that item. The judge is a logistic regression on a few numbers, among them how near the proposal's words
are to those of the user's items: what neither the generator nor a discriminator of item tokens can see. Another is how
often others took the proposal together with the user's items: the generator has learned it, but not by heart.

Differs from the paper: section 3.3 keeps a pair by the discriminator's answer alone (`judge.by: yes_no`).
"""

import logging
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from llm_i2i.arrays import Array, FloatArray, IntArray
from llm_i2i.catalogue import Histories, histories_of, item_indices, without_rows
from llm_i2i.errors import DataError
from llm_i2i.i2i.user_items import user_items_from_frame
from llm_i2i.params import JudgeParams
from llm_i2i.schema import BUCKETS, ITEM_ID, JUDGED, OVERALL, SOURCE_HELD_OUT, SOURCE_REAL, USER_ID

log = logging.getLogger(__name__)

FEATURES: Final = (
    "margin",  # the discriminator's answer: logit of its p_yes
    "logprob",  # the generator's confidence
    "popularity",  # log of the training count
    "history_length",  # log of the number of items asked after
    "nearest",  # cosine of the proposal's text to the nearest text of the history
    "last",  # cosine to the text of the last item
    "together",  # log of how much others took it together with the history's items, see `_taken_together`
)
DECAY: Final = 0.8  # of an item of the history for each that follows it, in `together`
USERS_AT_A_TIME: Final = 1000
FOLDS: Final = 5
RESAMPLES: Final = 1000
BINS: Final = 10


class Known(NamedTuple):
    """What is known when an item is proposed.

    Attributes:
        train: schema.INTERACTIONS before the moment.
        items: schema.ITEMS.
        text: float32 (n_items, n_dimensions), the items' text vectors.
    """

    train: pd.DataFrame
    items: pd.DataFrame
    text: FloatArray


def judge(
    *, scored: pd.DataFrame, proposed: pd.DataFrame, held_out: pd.DataFrame, known: Known, params: JudgeParams
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Say of each proposed pair how likely the user takes it.

    Args:
        scored: schema.SCORED with `rank`, of the generator's source.
        proposed: schema.SYNTHETIC, the generator's.
        held_out: schema.HELD_OUT.
        known: All training items, those held out among them.
        params: Section judge.

    Returns:
        schema.JUDGED without held-out rows, sorted as `scored`. Real rows keep the discriminator's p_yes.
        What was learned and how good it is, {} for `yes_no`: coefficients of standardized features, AUC, reliability.

    Raises:
        DataError: No held-out item is among the proposals: nothing can be learned.
    """
    columns = [USER_ID, ITEM_ID]
    asked_early = scored["source"] == SOURCE_HELD_OUT
    rows = scored[~asked_early].reset_index(drop=True)
    late, early = proposed[~proposed["held_out"]], proposed[proposed["held_out"]]
    logprob = rows[columns].merge(late[[*columns, "logprob"]], on=columns, how="left", validate="m:1")
    generated = (rows["source"] != SOURCE_REAL).to_numpy()
    judged = rows.assign(logprob=logprob["logprob"].where(generated).to_numpy(dtype=np.float32))
    facts: dict[str, Any] = {}
    if params.by == "head":
        before = Known(without_rows(known.train, held_out), known.items, known.text)
        learned = early.merge(scored.loc[asked_early, [*columns, "p_yes"]], on=columns, validate="1:1")
        taken = ~learned.index.isin(without_rows(learned, held_out).index)
        x = features(learned, before)
        head = _fit(x, taken)
        bucket = np.asarray(learned[ITEM_ID].map(known.items.set_index(ITEM_ID)["bucket"]))
        facts = _report(head, x, learned, taken, bucket=bucket)
        p_yes = judged["p_yes"].to_numpy(copy=True)
        p_yes[generated] = _probability(head, features(judged[generated], known))
        judged["p_yes"] = p_yes
        log.info("judge: %(taken)d of %(proposals)d proposals taken, AUC %(auc).3f", facts)
    return judged[list(JUDGED)].astype(JUDGED), facts


def features(rows: pd.DataFrame, known: Known) -> FloatArray:
    """What the judge looks at.

    Args:
        rows: user_id, item_id, p_yes and logprob of proposed pairs.
        known: What is known when they are proposed.

    Returns:
        float64 (n_rows, 7), the columns of `FEATURES`.
    """
    item = item_indices(rows[ITEM_ID], known.items, where="proposed/generator.parquet")
    users = pd.Series(np.sort(rows[USER_ID].unique()))
    user = pd.Index(users).get_indexer(pd.Index(rows[USER_ID]))
    histories = histories_of(users, known.train, known.items)
    count = np.bincount(item_indices(known.train[ITEM_ID], known.items, where="train"), minlength=len(known.items))
    p_yes = np.clip(rows["p_yes"].to_numpy(dtype=np.float64), 1e-6, 1 - 1e-6)
    found = np.zeros((len(rows), len(FEATURES)))
    found[:, 0] = np.log(p_yes) - np.log1p(-p_yes)
    found[:, 1] = rows["logprob"]
    found[:, 2] = np.log1p(count[item])
    found[:, 3] = np.log1p(np.diff(histories.bounds)[user])
    order = np.argsort(user, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(user[order])) + 1):
        start, end = histories.bounds[user[part[0]]], histories.bounds[user[part[0]] + 1]
        if start < end:
            cosines = known.text[item[part]] @ known.text[histories.items[start:end]].T
            found[part, 4], found[part, 5] = cosines.max(axis=1), cosines[:, -1]
    # Most pairs were taken together once or never: the smallest counts differ most.
    found[:, 6] = np.log1p(1000.0 * _taken_together(user, item, histories, known))
    return found


def _taken_together(user: IntArray, item: IntArray, histories: Histories, known: Known) -> FloatArray:
    """Item-kNN's score of each pair, with a decay: recent items of the history count more.

    The sum over the history's items h of DECAY^age(h) times sum_u |I_u|^-1/2 / sqrt(n_h n_i), over users u who took
    both h and the item i: the cosine of h and i, where a user of many items says less of each pair (as in Swing).

    Args:
        user: int64 (n_rows,), rows of `histories`.
        item: int64 (n_rows,).
        histories: What each user took, in time order.
        known: The interactions to count.

    Returns:
        float64 (n_rows,), at least 0.
    """
    taken = user_items_from_frame(known.train, known.items).astype(np.float64)
    users = sparse.diags_array(np.diff(taken.indptr) ** -0.5)
    items = sparse.diags_array(np.maximum(taken.sum(axis=0), 1.0) ** -0.5)
    similar = items @ taken.T @ users @ taken @ items
    found = np.zeros(len(user))
    sizes = np.diff(histories.bounds)
    for start in range(0, len(sizes), USERS_AT_A_TIME):
        rows = np.flatnonzero((user >= start) & (user < start + USERS_AT_A_TIME))
        bounds = histories.bounds[start : start + USERS_AT_A_TIME + 1]
        age = np.repeat(bounds[1:], np.diff(bounds)) - 1 - np.arange(bounds[0], bounds[-1])
        own = histories.items[bounds[0] : bounds[-1]]
        weights = sparse.csr_array((DECAY**age, own, bounds - bounds[0]), (len(bounds) - 1, len(known.items)))
        found[rows] = (weights @ similar)[user[rows] - start, item[rows]]
    return found


def _fit(x: FloatArray, taken: Array) -> Pipeline:
    if not taken.any():
        raise DataError(
            "judge",
            f"none of the held-out items is among {len(x):,} proposals",
            "some, to learn from",
            "raise `split.held_out_share`, `synthesize.items_per_user` or the generator's training, or set "
            "`judge.by: yes_no`",
        )
    with threadpool_limits(1):  # the last bits would depend on the number of threads
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, taken)


def _probability(head: Pipeline, x: FloatArray) -> FloatArray:
    found: FloatArray = head.predict_proba(x)[:, 1]
    return found


def _report(head: Pipeline, x: FloatArray, learned: pd.DataFrame, taken: Array, *, bucket: Array) -> dict[str, Any]:
    """How good the judge is on users it did not learn from, beside what it is made of."""
    unseen = np.zeros(len(taken))
    for fit, rest in GroupKFold(min(FOLDS, learned[USER_ID].nunique())).split(x, taken, learned[USER_ID]):
        if taken[fit].any():
            unseen[rest] = _probability(_fit(x[fit], taken[fit]), x[rest])
    scores = {
        "judge": unseen,
        "discriminator": x[:, FEATURES.index("margin")],
        "generator": x[:, FEATURES.index("logprob")],
        "text": x[:, FEATURES.index("nearest")],
    }
    return {
        "users": int(learned[USER_ID].nunique()),
        "proposals": len(learned),
        "taken": int(taken.sum()),
        "coefficients": {name: round(float(value), 6) for name, value in zip(FEATURES, head[-1].coef_[0], strict=True)},
        "auc": round(float(roc_auc_score(taken, unseen)), 6),
        "auc_within_user": {
            name: _within_user(score, taken, learned[USER_ID], bucket) for name, score in scores.items()
        },
        "reliability": _by_tenth(unseen, taken),
    }


def _within_user(score: FloatArray, taken: Array, users: pd.Series, bucket: Array) -> dict[str, Any]:
    """How often the item that was taken stands above another proposal to the same user, by the bucket of that item.

    Returns:
        auc with the 95 % bootstrap interval over users, and n_users, for `overall` and each bucket that has users.
    """
    rows = pd.DataFrame({"user": users.to_numpy(), "score": score, "taken": taken})
    # Mann-Whitney: the rank among one's own, less those below among the taken; one is taken at most.
    rank = rows.groupby("user")["score"].rank(method="average").to_numpy()
    others = rows.groupby("user")["score"].transform("size").to_numpy() - 1
    chosen = taken & (others > 0)
    won, group = (rank[chosen] - 1) / others[chosen], bucket[chosen]
    found = {}
    for name in (OVERALL, *BUCKETS):
        part = won if name == OVERALL else won[group == name]
        if len(part):
            drawn = np.random.default_rng(0).choice(part, (RESAMPLES, len(part))).mean(axis=1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            found[name] = {
                "auc": round(float(part.mean()), 6),
                "auc_low": round(float(low), 6),
                "auc_high": round(float(high), 6),
                "n_users": len(part),
            }
    return found


def _by_tenth(probability: FloatArray, taken: Array) -> list[dict[str, float]]:
    """Stated probability beside the share taken, in tenths of the proposals: most are far less probable than a half."""
    parts = np.array_split(np.argsort(probability, kind="stable"), BINS)
    return [
        {
            "n": len(part),
            "mean_p_yes": round(float(probability[part].mean()), 6),
            "share_taken": round(float(taken[part].mean()), 6),
        }
        for part in parts
        if len(part)
    ]
