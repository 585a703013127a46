from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from llm_i2i.evaluation import gate
from llm_i2i.evaluation.bootstrap import pooled_difference
from llm_i2i.evaluation.gate import Case, Check, Side, decide
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.params import load_params
from llm_i2i.schema import PER_USER
from tests.conftest import ROOT

SEEDS = (42, 43, 44)
N = 400
PARAMS = load_params(ROOT / "params.yaml")


def per_user(ranks: np.ndarray) -> pd.DataFrame:
    buckets = np.where(np.arange(len(ranks)) % 4 == 0, "tail", "head")
    users = [f"u{n:04d}" for n in range(len(ranks))]
    table = {"user_id": users, "item_id": "i", "bucket": buckets, "rank": ranks}
    return pd.DataFrame(table).astype(PER_USER)


def metrics(seed: int, *, coverage: float = 0.5, gini: float = 0.7, test: str = "t", reachable: float = 0.3) -> dict:
    protocol = Protocol.from_params(PARAMS.model_copy(update={"seed": seed}))
    return {
        "protocol": protocol.model_dump(mode="json"),
        "protocol_hash": protocol.hash,
        "test_sha256": f"{test}{seed}",
        "coverage@20": coverage,
        "reachable_share": reachable,
        "gini@20": gini,
    }


def side(ranks_of, **facts) -> Side:
    return Side({s: metrics(s, **facts) for s in SEEDS}, {s: per_user(ranks_of(s)) for s in SEEDS})


def middling(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 25, N)


def ahead(seed: int) -> np.ndarray:
    return np.maximum(middling(seed) // 2, 1)


def behind(seed: int) -> np.ndarray:
    return middling(seed) * 3


def case(**changes) -> Case:
    params = PARAMS.gate.model_copy(
        update={"seeds": SEEDS, "resamples": 500, "min_overall_gain": 0.0, "max_tail_loss": 0.01}
    )
    return replace(
        Case(side(ahead), side(middling), params, resamples_seed=0, index_problem="", validated=True, drift=""),
        **changes,
    )


def test_better_and_worse():
    better = decide(case())
    assert better.word == "better"
    assert better.passed
    assert [check.name for check in better.checks] == [*gate.ALWAYS, *gate.COMPARABLE, *gate.DIFFERENCES]
    worse = decide(case(candidate=side(behind)))
    assert worse.word == "worse"
    assert not worse.passed


def test_two_identical_candidates_do_not_differ():
    verdict = decide(case(candidate=side(middling)))
    assert verdict.word == "no difference"
    assert not verdict.passed
    overall = next(check for check in verdict.checks if check.name == "overall")
    assert overall.interval == (0.0, 0.0, 0.0)


OWN = {"candidate": per_user(ahead(42)), "real": per_user(middling(42)), "popularity": per_user(behind(42))}


def first(**changes) -> Case:
    return case(**{"champion": None, "own": OWN, **changes})


def test_a_first_champion_needs_no_comparison_but_must_be_worth_serving():
    verdict = decide(first())
    assert verdict.word == "first champion"
    assert [check.name for check in verdict.checks] == [*gate.ALWAYS, *gate.FIRST]
    assert decide(first(validated=False)).word == "refused"
    assert decide(first(drift="half of the day is missing")).word == "refused"
    assert decide(first(own={**OWN, "real": OWN["candidate"]})).passed  # arm real itself


WORTHLESS = {
    "real": {"own": {**OWN, "real": per_user(np.ones(N, int))}},
    "popularity": {"own": {**OWN, "popularity": OWN["candidate"]}},
    "reachable": {"candidate": side(ahead, reachable=0.01)},
    "shown": {"candidate": side(ahead, coverage=0.003)},
}


@pytest.mark.parametrize("name", WORTHLESS)
def test_each_floor_alone_stops_a_first_champion(name, monkeypatch):
    verdict = decide(first(**WORTHLESS[name]))
    assert [check.name for check in verdict.checks if not check.passed] == [name]
    assert verdict.word == "refused"
    lenient = {**gate.CHECKS, name: lambda _: Check(name, passed=True, reason="never looked")}
    monkeypatch.setattr(gate, "CHECKS", MappingProxyType(lenient))
    assert decide(first(**WORTHLESS[name])).passed


@pytest.mark.parametrize("name", ["candidate", "real", "popularity"])
def test_what_was_not_measured_is_a_refusal(name):
    verdict = decide(first(own={key: table for key, table in OWN.items() if key != name}))
    assert not verdict.passed
    assert any(f"{name}: not measured" in check.reason for check in verdict.checks)


def tail_lost(seed: int) -> np.ndarray:
    ranks = np.ones(N, int)
    ranks[::4] = middling(seed)[::4] + 8
    return ranks


def one_seed_behind(seed: int) -> np.ndarray:
    """Far ahead under two seeds, a little behind under the third."""
    return np.minimum(middling(seed) + 1, 25) if seed == SEEDS[2] else np.ones(N, int)


def lucky_users(seed: int) -> np.ndarray:
    """Ahead by one user under each seed, no tail target's: in no way beyond doubt."""
    ranks = middling(seed)
    ranks[np.flatnonzero((ranks > 10) & (np.arange(N) % 4 != 0))[seed % 3]] = 1
    return ranks


def without(original: Side, seed: int) -> Side:
    tables = {number: table for number, table in original.per_user.items() if number != seed}
    return replace(original, per_user=tables)


VIOLATIONS = {
    "seeds": {"candidate": replace(side(ahead), stale=(43,))},
    "index": {"index_problem": "the online lookup ranks user 7 differently"},
    "validation": {"validated": False},
    "protocol": {"candidate": side(ahead, test="other")},
    "overall": {"candidate": side(lucky_users)},
    "tail": {"candidate": side(tail_lost)},
    "coverage": {"candidate": side(ahead, coverage=0.4)},
    "gini": {"candidate": side(ahead, gini=0.75)},
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_each_check_alone_stops_a_candidate(name, monkeypatch):
    """With the check it does not pass; with one that says yes in its place, it does: no other check stands in."""
    verdict = decide(case(**VIOLATIONS[name]))
    assert not verdict.passed
    assert [check.name for check in verdict.checks if not check.passed] == [name]
    lenient = {**gate.CHECKS, name: lambda _: Check(name, passed=True, reason="never looked")}
    monkeypatch.setattr(gate, "CHECKS", MappingProxyType(lenient))
    assert decide(case(**VIOLATIONS[name])).passed


@pytest.mark.parametrize("name", gate.CHECKS)
@pytest.mark.parametrize("champion", [side(middling), None])
def test_a_gate_that_lacks_a_check_refuses_and_says_which(name, champion, monkeypatch):
    left = {key: check for key, check in gate.CHECKS.items() if key != name}
    monkeypatch.setattr(gate, "CHECKS", MappingProxyType(left))
    verdict = decide(case(champion=champion))
    assert verdict.word == "refused"
    assert [check.name for check in verdict.checks] == [name]
    assert "missing" in verdict.checks[0].reason


def test_a_seed_that_falls_behind_stops_a_candidate():
    verdict = decide(case(candidate=side(one_seed_behind)))
    assert not verdict.passed
    assert "every_seed" in [check.name for check in verdict.checks if not check.passed]


def test_a_seed_that_one_side_lacks():
    verdict = decide(case(champion=without(side(middling), 44)))
    assert [check.name for check in verdict.checks if not check.passed] == ["champion_seeds", "protocol"]
    verdict = decide(case(candidate=Side({}, {})))
    assert [check.name for check in verdict.checks if not check.passed] == ["seeds", "protocol"]


def test_a_champion_of_another_seed_does_not_compare():
    moved = Side({s: metrics(s + 1) for s in SEEDS}, side(middling).per_user)
    verdict = decide(case(champion=moved))
    assert verdict.word == "refused"
    assert "protocols differ: seed" in next(c.reason for c in verdict.checks if c.name == "protocol")


def test_a_change_of_training_seed_alone_rarely_passes():
    """Trainings differ by a shift of all users. One seed and a bootstrap over users is fooled, the gate is not."""
    rng = np.random.default_rng(5)
    fooled = passed = 0
    trials = 30
    rules = case().params.model_copy(update={"resamples": 100})
    for _ in range(trials):
        base = rng.integers(1, 25, N)

        def train(base: np.ndarray = base) -> dict[int, pd.DataFrame]:
            """A training's luck moves every user's rank alike."""
            return {s: per_user(np.maximum(base + int(rng.integers(-3, 4)), 1)) for s in SEEDS}

        one, other = train(), train()
        values = [per_user_metric("ndcg@10", tables[42]["rank"].to_numpy()) for tables in (one, other)]
        fooled += pooled_difference([np.subtract(*values)], resamples=100, seed=0).low > 0
        tables = {s: metrics(s) for s in SEEDS}
        verdict = decide(case(candidate=Side(tables, one), champion=Side(tables, other), params=rules))
        passed += verdict.passed
    assert fooled >= 0.2 * trials
    assert passed <= 0.1 * trials


def test_without_a_target_in_bucket_tail_nothing_is_lost_there():
    def no_tail(original: Side) -> Side:
        tables = {seed: table.assign(bucket="head") for seed, table in original.per_user.items()}
        return replace(original, per_user=tables)

    verdict = decide(case(candidate=no_tail(side(ahead)), champion=no_tail(side(middling))))
    assert verdict.word == "better"
    assert next(check.interval for check in verdict.checks if check.name == "tail") == (0.0, 0.0, 0.0)


def test_other_users_behind_one_test_sha256_are_refused():
    moved = {seed: table.assign(item_id="j") for seed, table in side(middling).per_user.items()}
    verdict = decide(case(champion=replace(side(middling), per_user=moved)))
    assert verdict.word == "refused"
    assert "other users or targets" in next(c.reason for c in verdict.checks if c.name == "protocol")
