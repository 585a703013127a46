"""The gate: may this candidate replace the model that serves?

Candidate and champion are compared seed by seed: under one seed both were trained and evaluated on one split, so
that their users pair up. Users and seeds are resampled together (`PairedDifference`), and the candidate must be
ahead under every seed: a lucky training alone does not pass. Each check is a function of the two sides in
`CHECKS`; the verdict is made of what they find. Where a check is missing, nothing passes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd

from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.evaluation.paired import Measured, PairedDifference
from llm_i2i.params import GateParams
from llm_i2i.schema import OVERALL, TAIL


@dataclass(frozen=True)
class Side(Measured):
    """One of the two models, measured once per seed.

    Attributes:
        stale: Seeds measured under other code or parameters than the model's.
    """

    stale: tuple[int, ...] = ()


@dataclass(frozen=True)
class Case:
    """What the gate decides on.

    Attributes:
        candidate: The model of this workspace.
        champion: The model that serves; None before the first.
        params: Section gate.
        resamples_seed: Seed of the bootstrap.
        index_problem: What is wrong with the candidate's index; empty if nothing.
        validated: Whether the raw data passed validation.
        drift: What of the run lies beyond a limit of section monitor, or why nobody knows; empty if nothing does.
        own: schema.PER_USER of the workspace's own run and seed: `candidate`, `real` (the same model on real data
            alone) and `popularity`. What was not measured is left out; only a first champion is asked.
    """

    candidate: Side
    champion: Side | None
    params: GateParams
    resamples_seed: int
    index_problem: str
    validated: bool
    drift: str
    own: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A check's outcome.

    Attributes:
        name: Its key in `CHECKS`.
        passed: Whether it lets the candidate pass.
        reason: One sentence with the figures.
        interval: Paired difference where the check is about one.
    """

    name: str
    passed: bool
    reason: str
    interval: Interval | None = None


@dataclass(frozen=True)
class Verdict:
    """The gate's answer.

    Attributes:
        word: better | first champion | no difference | worse | refused.
        checks: Every check made, in order.
    """

    word: str
    checks: tuple[Check, ...] = field(default_factory=tuple)

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted."""
        return self.word in {"better", "first champion"}


def decide(case: Case) -> Verdict:
    """Make every check that applies.

    A check that needs comparable results is left out once the results turn out not to compare. A gate that
    lacks a check refuses without making the others.

    Args:
        case: Both sides and the rules.

    Returns:
        The verdict with all reasons.
    """
    missing = [name for name in (*ALWAYS, *FIRST, *COMPARABLE, *DIFFERENCES) if name not in CHECKS]
    if missing:
        reason = "this check is missing from the gate, so that nobody made it"
        return Verdict("refused", tuple(Check(name, passed=False, reason=reason) for name in missing))
    first = [CHECKS[name](case) for name in ALWAYS]
    if case.champion is None:
        first += [CHECKS[name](case) for name in FIRST]
        word = "first champion" if all(check.passed for check in first) else "refused"
        return Verdict(word, tuple(first))
    comparable = [CHECKS[name](case) for name in COMPARABLE]
    checks = [*first, *comparable]
    if all(check.passed for check in comparable):
        checks += [CHECKS[name](case) for name in DIFFERENCES]
    return Verdict(_word(checks), tuple(checks))


def _word(checks: list[Check]) -> str:
    if all(check.passed for check in checks):
        return "better"
    overall = next((check.interval for check in checks if check.name == "overall"), None)
    others = [check for check in checks if check.name not in {"overall", "every_seed"}]
    if overall is None or not all(check.passed for check in others):
        return "refused" if overall is None or overall.high >= 0 else "worse"
    return "worse" if overall.high < 0 else "no difference"


def _beats(case: Case, other: str) -> tuple[Interval | None, str]:
    """NDCG@10 of the workspace's own run less another table's, and in words."""
    missing = [name for name in ("candidate", other) if name not in case.own]
    if missing:
        return None, f"{' and '.join(missing)}: not measured in this run"
    difference = PairedDifference(*(Measured.once(case.own[name]) for name in ("candidate", other)))
    found = difference.interval("ndcg@10", OVERALL, resamples=case.params.resamples, seed=case.resamples_seed)
    return found, f"overall NDCG@10 less that of {other} {_signed(found)}"


def _real(case: Case) -> Check:
    """A first champion is not worse than the same model on real data alone."""
    found, reason = _beats(case, "real")
    return Check("real", found is not None and found.high >= 0, f"{reason}; upper bound must be at least 0", found)


def _popularity(case: Case) -> Check:
    """A first champion ranks better than what everybody takes."""
    found, reason = _beats(case, "popularity")
    return Check("popularity", found is not None and found.mean > 0, f"{reason}; must be above 0", found)


def _reachable(case: Case) -> Check:
    """A first champion's lists reach some of what users take next."""
    found = float(np.mean([m.get("reachable_share", 0.0) for m in case.candidate.metrics.values()] or [0.0]))
    limit = case.params.min_reachable_share
    return Check("reachable", found >= limit, f"{found:.4f} of the test targets reached; at least {limit:g}")


def _shown(case: Case) -> Check:
    """A first champion's lists show some of the catalogue."""
    shares = [value for m in case.candidate.metrics.values() for k, value in m.items() if k.startswith("coverage@")]
    found, limit = float(np.mean(shares or [0.0])), case.params.min_coverage
    return Check("shown", found >= limit, f"{found:.4f} of the catalogue shown; at least {limit:g}")


def _protocol(case: Case) -> Check:
    """Same protocol, same test users and targets, under every seed."""
    try:
        PairedDifference(*_sides(case))
    except KeyError as error:
        return Check("protocol", passed=False, reason=f"no results of seed {error} to compare")
    except ArtifactError as error:
        return Check("protocol", passed=False, reason=str(error))
    return Check("protocol", passed=True, reason="one protocol and one test split per seed")


def _seeds(case: Case) -> Check:
    """The candidate was measured under every seed, as it is now."""
    wanted = case.params.seeds
    missing = [seed for seed in wanted if seed not in case.candidate.per_user]
    stale = [seed for seed in case.candidate.stale if seed in wanted]
    if missing or stale:
        reason = f"seeds not measured: {missing}, measured under other code or parameters: {stale}"
        return Check("seeds", passed=False, reason=f"{reason}; run `python -m pipelines replicate`")
    return Check("seeds", passed=True, reason=f"measured under seeds {list(wanted)}")


def _champion_seeds(case: Case) -> Check:
    """The champion was measured under the same seeds."""
    assert case.champion is not None  # noqa: S101
    missing = [seed for seed in case.params.seeds if seed not in case.champion.per_user]
    reason = f"the champion was not measured under seeds {missing}" if missing else "the champion has all seeds"
    return Check("champion_seeds", passed=not missing, reason=reason)


def _sides(case: Case) -> tuple[Measured, Measured]:
    """Candidate and champion under the gate's seeds.

    Raises:
        KeyError: A side was not measured under one of them.
    """
    assert case.champion is not None  # noqa: S101 - `decide` asks only then
    one, other = (
        Measured(
            {seed: side.metrics[seed] for seed in case.params.seeds},
            {seed: side.per_user[seed] for seed in case.params.seeds},
        )
        for side in (case.candidate, case.champion)
    )
    return one, other


def _paired(case: Case) -> PairedDifference:
    """The sides user by user, once check `protocol` has found that they compare."""
    one, other = (Measured({}, side.per_user) for side in _sides(case))
    return PairedDifference(one, other)


def _interval(case: Case, metric: str, slice_name: str = OVERALL) -> Interval:
    """The paired difference; without a user in the slice nothing is lost or won."""
    paired = _paired(case)
    if not paired.n_users(slice_name):
        return Interval(0.0, 0.0, 0.0)
    resamples, seed = case.params.resamples, case.resamples_seed
    return paired.interval(metric, slice_name, resamples=resamples, seed=seed)


def _overall(case: Case) -> Check:
    """NDCG@10 rises beyond doubt."""
    found = _interval(case, "ndcg@10")
    limit = case.params.min_overall_gain
    return Check(
        "overall", found.low > limit, f"overall NDCG@10 {_signed(found)}; lower bound must exceed {limit:+g}", found
    )


def _every_seed(case: Case) -> Check:
    """NDCG@10 rises under each seed."""
    means = _paired(case).by_seed("ndcg@10")
    shown = ", ".join(f"{mean:+.4f}" for mean in means)
    return Check("every_seed", min(means) > 0, f"overall NDCG@10 by seed: {shown}; each must be above 0")


def _tail(case: Case) -> Check:
    """Recall@10 on targets of bucket tail does not fall by more than what is allowed."""
    found = _interval(case, "recall@10", TAIL)
    limit = -case.params.max_tail_loss
    return Check(
        "tail",
        found.low >= limit,
        f"Recall@10 on bucket tail {_signed(found)}; lower bound must be at least {limit:+g}",
        found,
    )


def _means(case: Case, name: str) -> tuple[float, float]:
    """A list metric such as coverage@20 (whatever its K) of candidate and champion, averaged over seeds."""
    now, before = (
        float(np.mean([value for m in side.metrics.values() for k, value in m.items() if k.startswith(f"{name}@")]))
        for side in _sides(case)
    )
    return now, before


def _coverage(case: Case) -> Check:
    """The lists show nearly as much of the catalogue as before."""
    now, before = _means(case, "coverage")
    limit = case.params.max_coverage_loss
    reason = f"coverage {before:.4f} -> {now:.4f}; may fall by {limit:g}"
    return Check("coverage", before - now <= limit, reason)


def _gini(case: Case) -> Check:
    """The lists are hardly more alike than before."""
    now, before = _means(case, "gini")
    limit = case.params.max_gini_rise
    return Check("gini", now - before <= limit, f"Gini {before:.4f} -> {now:.4f}; may rise by {limit:g}")


def _index(case: Case) -> Check:
    """The index is the one DVC recorded and serves as it was evaluated."""
    reason = case.index_problem or "the online lookup ranks as the evaluation does"
    return Check("index", not case.index_problem, reason)


def _validation(case: Case) -> Check:
    """The raw data met every expectation."""
    reason = "the raw data passed validation" if case.validated else "the raw data has not passed validation"
    return Check("validation", case.validated, reason)


def _monitor(case: Case) -> Check:
    """Data, generator and index are like those of the runs before."""
    return Check("monitor", not case.drift, case.drift or "no fact of the run lies beyond its limit")


def _signed(found: Interval) -> str:
    return f"{found.mean:+.4f} (95 % interval {found.low:+.4f} to {found.high:+.4f})"


CHECKS: Final[Mapping[str, Callable[[Case], Check]]] = MappingProxyType(
    {
        "seeds": _seeds,
        "index": _index,
        "validation": _validation,
        "monitor": _monitor,
        "real": _real,
        "popularity": _popularity,
        "reachable": _reachable,
        "shown": _shown,
        "champion_seeds": _champion_seeds,
        "protocol": _protocol,
        "overall": _overall,
        "every_seed": _every_seed,
        "tail": _tail,
        "coverage": _coverage,
        "gini": _gini,
    }
)
ALWAYS: Final = ("seeds", "index", "validation", "monitor")
FIRST: Final = ("real", "popularity", "reachable", "shown")  # where no champion is there to compare with
COMPARABLE: Final = ("champion_seeds", "protocol")
DIFFERENCES: Final = ("overall", "every_seed", "tail", "coverage", "gini")
