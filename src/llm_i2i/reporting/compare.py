"""Compare two revisions of one project: the same models and arms, measured under the same protocol."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.paired import Measured, PairedDifference
from llm_i2i.evaluation.protocol import require_same_protocol
from llm_i2i.params.reading import leaves, overlay
from llm_i2i.reporting.collect import Json, Run
from llm_i2i.reporting.results import HEADLINES, MIN_USERS
from llm_i2i.reporting.words import DECIMALS, written


def compare_metrics(
    old: Mapping[Run, Json], new: Mapping[Run, Json], per_user: Mapping[Run, tuple[pd.DataFrame, pd.DataFrame]], *,
    metrics: tuple[str, ...], resamples: int, seed: int,
) -> list[Json]:  # fmt: skip
    """Differences new - old of every run that both have.

    Args:
        old: Content of reports/metrics/MODEL-ARM.json by (model, arm), of the other revision.
        new: The same of this revision.
        per_user: schema.PER_USER of old and new, where both are at hand; elsewhere there is no interval.
        metrics: Such as "recall@10"; recall and ndcg only.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        One entry per run, slice and metric: model, arm, slice, metric, n_users, old, new and, where per-user
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
        pair = None
        if run in per_user:
            before, after = per_user[run]
            pair = PairedDifference(Measured.once(after, new[run]), Measured.once(before, old[run]))
        for name in HEADLINES:
            there, here = _slice(old[run], name), _slice(new[run], name)
            for metric in (metric for metric in metrics if metric in there and metric in here):
                row = {"model": run[0], "arm": run[1], "slice": name, "metric": metric, "n_users": here["n_users"],
                       "old": round(there[metric], DECIMALS), "new": round(here[metric], DECIMALS)}  # fmt: skip
                if pair and pair.n_users(name) >= MIN_USERS:
                    row |= written(pair.interval(metric, name, resamples=resamples, seed=seed))
                rows.append(row)
    return rows


def _slice(content: Json, name: str) -> Json:
    """Metrics of a slice and its number of test users; empty if it has none."""
    if name == "overall":
        return {**content["overall"], "n_users": content["n_users"]}
    found: Json = content.get("buckets", {}).get(name, {})
    return found


def params_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Json]:
    """Parameters that differ: key, old and new value as text; "–" where one side does not have the key."""
    sides = (old, new, overlay(new, old))
    was, now, both = ({".".join(key): value for key, value in leaves(side)} for side in sides)
    pairs = {key: (was.get(key, "–"), now.get(key, "–")) for key in both}
    return [{"key": key, "old": str(a), "new": str(b)} for key, (a, b) in pairs.items() if a != b]
