"""Calibration of the discriminator's Yes/No logits, and how good it is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.schema import BUCKETS


def p_yes(margin: FloatArray, temperature: float) -> FloatArray:
    """Softmax over the Yes and No logits = sigmoid((logit_yes - logit_no) / temperature), float64, in [0, 1]."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(margin / temperature, -60.0, 60.0))), dtype=np.float64)


def fit_temperature(margin: FloatArray, label: IntArray) -> float:
    """The temperature that minimises the held-out negative log-likelihood (Guo et al. 2017, section 4.2).

    Args:
        margin: float64 (n,): logit_yes - logit_no.
        label: int64 (n,): 1 = real.

    Returns:
        Temperature in [0.05, 20].
    """
    sign = np.where(label == 1, 1.0, -1.0)

    def nll(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -sign * margin / np.exp(log_temperature)).mean())

    found = minimize_scalar(nll, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


@dataclass(frozen=True)
class Reliability:
    """Reliability curve over equal-width bins of p_yes, and its expected calibration error.

    Attributes:
        bins: One entry per non-empty bin: bin_low, bin_high, n, mean_p_yes, share_yes.
        ece: Sum over bins of n/N * |mean_p_yes - share_yes| (Guo et al. 2017, equation 3).
    """

    bins: list[dict[str, float]]
    ece: float


def reliability(probability: FloatArray, label: IntArray, n_bins: int = 10) -> Reliability:
    """Compare stated probabilities with observed frequencies.

    Args:
        probability: float64 (n,), in [0, 1].
        label: int64 (n,).
        n_bins: Number of bins over [0, 1]; 1.0 belongs to the last.
    """
    which = np.minimum((probability * n_bins).astype(np.int64), n_bins - 1)
    bins, ece = [], 0.0
    for number in range(n_bins):
        inside = which == number
        n = int(inside.sum())
        if n == 0:
            continue
        mean, share = float(probability[inside].mean()), float(label[inside].mean())
        bins.append(
            {
                "bin_low": number / n_bins,
                "bin_high": (number + 1) / n_bins,
                "n": n,
                "mean_p_yes": round(mean, 6),
                "share_yes": round(share, 6),
            }
        )
        ece += n / len(label) * abs(mean - share)
    return Reliability(bins, ece)


def auc_interval(
    margin: FloatArray, label: IntArray, group: IntArray, *, seed: int, resamples: int = 1000
) -> dict[str, float]:
    """AUC and its 95 % percentile bootstrap interval, whole users resampled (rows of a user are not independent).

    Args:
        margin: float64 (n,).
        label: int64 (n,), both classes present.
        group: int64 (n,): the user of each row, 0..n_users - 1.
        seed: Of the resampling.
        resamples: Number of bootstrap samples.

    Returns:
        auc, auc_low, auc_high.
    """
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - seconds, and who only scores has no need of it

    n_groups = int(group.max()) + 1
    # A resample weighs user u by how often it was drawn; the AUC is then a ratio of quadratic forms in the weights.
    weights = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples)
    wins = _wins(margin, label, group, n_groups)
    n_yes, n_no = (np.bincount(group[label == side], minlength=n_groups) for side in (1, 0))
    pairs = (weights @ n_yes) * (weights @ n_no)
    samples = ((weights @ wins) * weights).sum(axis=1)[pairs > 0] / pairs[pairs > 0]
    low, high = np.quantile(samples, [0.025, 0.975])
    return {
        "auc": round(float(roc_auc_score(label, margin)), 6),
        "auc_low": round(float(low), 6),
        "auc_high": round(float(high), 6),
    }


def _wins(margin: FloatArray, label: IntArray, group: IntArray, n_groups: int) -> FloatArray:
    """float64 (n_groups, n_groups): how often a Yes row of user g beats a No row of user h, ties half."""
    no_margin, no_group = margin[label == 0], group[label == 0]
    wins = np.zeros((n_groups, n_groups))
    for g in range(n_groups):
        own = margin[(label == 1) & (group == g)][:, None]
        beaten = (own > no_margin).sum(axis=0) + 0.5 * (own == no_margin).sum(axis=0)
        wins[g] = np.bincount(no_group, weights=beaten, minlength=n_groups)
    return wins


def cross_fitted(margin: FloatArray, label: IntArray, group: IntArray) -> FloatArray:
    """p_yes of every row at a temperature fitted on *other* users: each half of the users serves the other.

    A temperature judged on the rows it was fitted on looks better than it is.

    Args:
        margin: float64 (n,).
        label: int64 (n,): 1 = real.
        group: int64 (n,): the user of each row.

    Returns:
        float64 (n,), in [0, 1]; with a single user, at the temperature of that user's own rows.
    """
    probability = p_yes(margin, 1.0)
    for half in (0, 1):
        judged = group % 2 == half
        fitted = ~judged if bool((~judged).any()) else judged
        if judged.any():
            temperature = fit_temperature(margin[fitted], label[fitted])
            probability[judged] = p_yes(margin[judged], temperature)
    return probability


def held_out_report(margin: FloatArray, label: IntArray, group: IntArray, *, seed: int) -> dict[str, Any]:
    """AUC with interval, temperature, and reliability before and after calibration.

    The temperature is fitted on all rows, since scoring uses it on other users; `ece` and `reliability` judge each row
    at a temperature fitted without it (`cross_fitted`).
    """
    before, after = (reliability(p_yes(margin, 1.0), label), reliability(cross_fitted(margin, label, group), label))
    return {
        **auc_interval(margin, label, group, seed=seed),
        "n": len(label),
        "n_users": int(group.max()) + 1,
        "temperature": round(fit_temperature(margin, label), 6),
        "ece_uncalibrated": round(before.ece, 6),
        "ece": round(after.ece, 6),
        "reliability": after.bins,
    }


def auc_by_bucket(
    margin: FloatArray, label: IntArray, group: IntArray, bucket: npt.NDArray[np.str_], *, seed: int
) -> dict[str, dict[str, float]]:
    """AUC overall and by the bucket of the real item, always against all negatives.

    Args:
        margin: float64 (n,).
        label: int64 (n,), both classes present.
        group: int64 (n,): the user of each row.
        bucket: Popularity bucket of each row's item, (n,).
        seed: Of the intervals' resampling.

    Returns:
        auc, auc_low, auc_high, n_yes, n_no for `overall` and each bucket; buckets without a real item are left out.
    """
    found = {}
    for name in ("overall", *BUCKETS):
        rows = (label == 0) | (bucket == name) if name != "overall" else np.ones(len(label), dtype=np.bool_)
        n_yes = int((label[rows] == 1).sum())
        if n_yes:
            found[name] = {
                **auc_interval(margin[rows], label[rows], group[rows], seed=seed),
                "n_yes": n_yes,
                "n_no": int((label == 0).sum()),
            }
    return found
