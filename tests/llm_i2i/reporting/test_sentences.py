import dataclasses
from pathlib import Path

import pytest

from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting.collect import ReportInputs, collect
from llm_i2i.reporting.report import build_report
from llm_i2i.reporting.results import Results, compute_results
from llm_i2i.reporting.sentences import added, cards, data_name, trust_notes
from llm_i2i.reporting.words import is_papers, signed
from tests.llm_i2i.reporting.conftest import with_rule
from tests.llm_i2i.reporting.run_folder import write_run

KEYS = (("overall", "recall@10"), ("tail", "recall@10"))


def _results(
    overall: Interval | None,
    tail: Interval | None,
    *,
    arm: str = "llm_i2i",
    baseline: float | None = 0.1,
    n_users: int = 1234,
) -> Results:
    means = {("swing", arm): dict.fromkeys(KEYS, 0.12)} if arm else {}
    if baseline is not None:
        means["swing", "real"] = dict.fromkeys(KEYS, baseline)
    found = {key: interval for key, interval in zip(KEYS, (overall, tail), strict=True) if interval is not None}
    return Results(means, {("swing", arm): found}, {"overall": n_users, "tail": 99}, "recall@10", arm)


def test_a_gain_is_stated_with_number_and_interval() -> None:
    (card,) = cards(_results(Interval(0.02, 0.01, 0.03), Interval(-0.02, -0.03, -0.01)))
    assert (card.outcome, card.headline) == ("better", "LLM augmentation helped")
    assert card.sentences[0] == (
        "Over all targets (1,234 test users), Recall@10 of Swing is 0.1200 with arm llm_i2i against 0.1000 on real "
        "data alone: +0.0200 (+20.0 %), 95 % interval +0.0100 to +0.0300; better: the interval lies above 0."
    )
    assert card.sentences[1].startswith("On tail targets (99 test users)")
    assert "worse: the interval lies below 0" in card.sentences[1]
    assert "−0.0200 (−20.0 %)" in card.sentences[1]


def test_an_interval_over_0_says_no_difference_shown() -> None:
    (card,) = cards(_results(Interval(0.02, -0.01, 0.05), None))
    assert (card.outcome, card.headline) == ("none", "No difference shown")
    assert len(card.sentences) == 1
    assert card.sentences[0].endswith("no difference shown, the interval includes 0.")


def test_identical_results_are_called_so() -> None:
    (card,) = cards(_results(Interval(0.0, 0.0, 0.0), None))
    assert "no test user's result differs" in card.sentences[0]


def test_a_baseline_of_0_gives_no_relative_gain() -> None:
    (card,) = cards(_results(Interval(0.02, 0.01, 0.03), None, baseline=0.0))
    assert "+0.0200, 95 % interval" in card.sentences[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arm": ""}, "No augmented arm was evaluated"),
        ({"baseline": None}, "Arm real was not evaluated"),
        ({"n_users": 12}, "Only 12 test users"),
    ],
)
def test_nothing_to_compare_says_why(changes: dict[str, object], words: str) -> None:
    (card,) = cards(_results(None, None, **changes))
    assert card.outcome == "unknown"
    assert words in card.sentences[0]


def test_signed_numbers() -> None:
    assert [signed(x) for x in (0.01234, -0.01234, 0.0, -0.00001)] == ["+0.0123", "−0.0123", "0.0000", "0.0000"]


def test_a_run_without_control_arm_says_so(inputs: ReportInputs, tmp_path: Path) -> None:
    assert any("No control arm" in note for note in trust_notes(inputs, compute_results(inputs)))
    controlled = collect(write_run(tmp_path, models=("swing",), arms=("real", "llm_i2i", "item_knn")))
    notes = trust_notes(controlled, compute_results(controlled))
    assert not any("No control arm" in note for note in notes)
    assert "Controls, pairs of a cheap recommender in the LLM's place: item_knn." in notes


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        ({"auc": 0.55, "auc_low": 0.47, "auc_high": 0.6}, "not shown to be better than chance"),
        ({"auc": 0.75, "auc_low": 0.7, "auc_high": 0.8}, "better than chance (held-out AUC 0.750"),
        (None, "not measured here"),
    ],
)
def test_the_discriminator_is_judged_by_its_interval(
    held_out: dict[str, float] | None, words: str, inputs: ReportInputs
) -> None:
    notes = trust_notes(dataclasses.replace(inputs, held_out=held_out), compute_results(inputs))
    assert any(words in note for note in notes)


def test_changed_code_and_broken_expectations_are_named(inputs: ReportInputs) -> None:
    provenance = dataclasses.replace(inputs.provenance, changed=("params.yaml", "src/a.py", "src/b.py", "src/c.py"))
    notes = " ".join(trust_notes(dataclasses.replace(inputs, provenance=provenance), compute_results(inputs)))
    assert "params.yaml, src/a.py, src/b.py and 1 more" in notes
    assert "broke 1 expectation;" in notes


OURS = {"confidence": "logprob", "mode": "volume", "pairs_per_user": 1.5, "max_synthetic_per_user": 5,
        "connected_only": True, "item_quota": 2, "tail_quota": 6}  # fmt: skip


def test_every_switch_that_chose_pairs_is_named(inputs: ReportInputs) -> None:
    rule = inputs.params.fuse.rule
    assert is_papers(rule)
    assert rule.in_words == (
        f"the generator's first {rule.max_synthetic_per_user} per user, less those with p_yes below {rule.threshold:g}"
    )
    ours = with_rule(inputs, **OURS)
    assert not is_papers(ours.params.fuse.rule)
    assert ours.params.fuse.rule.in_words == (
        "the first 1.5 pairs per user by the generator's log probability, at most 5 per user; "
        "besides these, the first 2 of each item and the first 6 of each tail item; only pairs whose item somebody "
        "took together with an item of the user"
    )
    assert "(the paper's selection)" in added(inputs)
    assert "first 6 of each tail item" in added(ours)
    assert "(our selection, not the paper's)" in added(ours)


def test_a_single_switch_makes_it_another_method(inputs: ReportInputs) -> None:
    for name in set(OURS) - {"pairs_per_user", "max_synthetic_per_user", "mode"}:
        assert not is_papers(with_rule(inputs, **{name: OURS[name]}).params.fuse.rule), name


def test_the_data_is_named_and_never_for_what_it_is_not(inputs: ReportInputs) -> None:
    # The run's data.dvc is not MovieLens', though params.yaml still says so.
    assert "MovieLens" in inputs.params.model_card.data
    assert data_name(inputs) == "Own data without a name (set model_card.data in params.yaml)"
    assert "MovieLens" not in build_report(inputs).html.replace(inputs.params.model_card.data, "", 1)
    provenance = dataclasses.replace(inputs.provenance, data={"md5": "a24cebb5575348aff047ed2f86e31ebe.dir"})
    assert data_name(dataclasses.replace(inputs, provenance=provenance)) == inputs.params.model_card.data
    card = inputs.params.model_card.model_copy(update={"data": "Our shop, 2026"})
    own = dataclasses.replace(inputs, params=inputs.params.model_copy(update={"model_card": card}))
    report = build_report(own)
    assert "Our shop, 2026" in report.html
    assert "Our shop, 2026" in report.markdown
    assert "MovieLens" not in report.html + report.markdown
