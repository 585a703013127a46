"""Compare two revisions of one project: the same models and arms, measured under the same protocol."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from llm_i2i import schema
from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.bootstrap import paired_bootstrap
from llm_i2i.evaluation.protocol import require_same_protocol
from llm_i2i.reporting.collect import Json, Run
from llm_i2i.reporting.results import DECIMALS, MIN_USERS, outcome_of, per_user_metric

SLICES = ("overall", "tail")


def compare_metrics(
    old: Mapping[Run, Json],
    new: Mapping[Run, Json],
    per_user: Mapping[Run, tuple[pd.DataFrame, pd.DataFrame]],
    *,
    metrics: tuple[str, ...],
    resamples: int,
    seed: int,
) -> list[Json]:
    """Differences new - old of every run that both have.

    Args:
        old: Content of reports/metrics/MODEL-ARM.json by (model, arm), of the other revision.
        new: The same of this revision.
        per_user: schema.PER_USER of old and new, where both are at hand; elsewhere there is no interval.
        metrics: Such as "recall@10"; recall and ndcg only.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        One entry a run, slice and metric: model, arm, slice, metric, n_users, old, new and, where per-user
        ranks are at hand, difference, low, high and outcome.

    Raises:
        ArtifactError: No run in common; or protocols, or test users and targets, differ.
    """
    common = [run for run in new if run in old]
    if not common:
        found, expected = [sorted({"-".join(run) for run in side}) for side in (old, new)]
        raise ArtifactError("comparison", f"runs {found}", f"one of {expected} among them")
    rows: list[Json] = []
    for run in common:
        require_same_protocol(old[run], new[run])
        for name in SLICES:
            for metric in metrics:
                sides = [_value(content, name, metric) for content in (old[run], new[run])]
                if None in sides:
                    continue
                row = {"model": run[0], "arm": run[1], "slice": name, "metric": metric,
                       "n_users": _n_users(new[run], name), "old": sides[0], "new": sides[1]}  # fmt: skip
                if run in per_user:
                    row |= _interval(per_user[run], name, metric, resamples=resamples, seed=seed)
                rows.append(row)
    return rows


def _value(content: Json, name: str, metric: str) -> float | None:
    part = content["overall"] if name == "overall" else content.get("buckets", {}).get(name, {})
    value = part.get(metric)
    return None if value is None else round(float(value), DECIMALS)


def _n_users(content: Json, name: str) -> int:
    return int(content["n_users"] if name == "overall" else content["buckets"][name]["n_users"])


def _interval(
    sides: tuple[pd.DataFrame, pd.DataFrame], name: str, metric: str, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Paired difference and its interval; empty for few users."""
    old, new = (table.sort_values(schema.USER_ID, ignore_index=True) for table in sides)
    mask = (new["bucket"] == name).to_numpy() if name != "overall" else [True] * len(new)
    kind, _, k = metric.partition("@")
    values = [per_user_metric(t.loc[mask, "rank"].to_numpy(), name=kind, k=int(k)) for t in (old, new)]
    if len(values[1]) < MIN_USERS:
        return {}
    found = paired_bootstrap(values[1], values[0], resamples=resamples, seed=seed)
    ends = {part: round(getattr(found, part), DECIMALS) for part in ("low", "high")}
    return {"difference": round(found.mean, DECIMALS), **ends, "outcome": outcome_of(found)}


def params_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[Json]:
    """Parameters that differ: key, old and new value as text; "–" where one side does not have the key."""
    changes: list[Json] = []
    for key in dict.fromkeys([*new, *old]):
        name, one, other = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            changes += params_changes(one, other, f"{name}.")
        elif one != other or (key in old) != (key in new):
            sides = {
                side: str(content[key]) if key in content else "–"
                for side, content in (("old", old), ("new", new))
            }
            changes.append({"key": name, **sides})
    return changes
