import dataclasses
from pathlib import Path

import pytest

from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting.collect import ReportInputs, collect
from llm_i2i.reporting.results import Results, Verdict, compute_results, outcome_of
from llm_i2i.reporting.verdicts import cards, signed, trust_notes
from tests.llm_i2i.reporting.run_folder import write_run

NAN = float("nan")


def _results(overall: Interval | None, long_tail: Interval | None, **changes: object) -> Results:
    def verdict(slice_name: str, difference: Interval | None) -> Verdict:
        outcome = "unknown" if difference is None else outcome_of(difference)
        made = Verdict("swing", "llm_i2i", outcome, slice_name, "recall@10", 0.12, 0.1, difference, 1234)
        return dataclasses.replace(made, **changes)

    pair = (verdict("overall", overall), verdict("long_tail", long_tail))
    return Results({}, {}, {"overall": 1234, "long_tail": 99}, "recall@10", {"swing": pair})


def test_a_gain_is_stated_with_number_and_interval() -> None:
    (card,) = cards(_results(Interval(0.02, 0.01, 0.03), Interval(-0.02, -0.03, -0.01)))
    assert (card.outcome, card.headline) == ("better", "LLM augmentation helped")
    assert card.sentences[0] == (
        "Over all targets (1,234 test users), Recall@10 of Swing is 0.1200 with arm llm_i2i against 0.1000 on real "
        "data alone: +0.0200 (+20.0 %), 95 % interval +0.0100 to +0.0300; better: the interval lies above 0."
    )
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
        ({"baseline": NAN}, "Arm real was not evaluated"),
        ({"n_users": 12}, "Only 12 test users"),
    ],
)
def test_nothing_to_compare_says_why(changes: dict[str, object], words: str) -> None:
    (card,) = cards(_results(None, None, **changes))
    assert card.outcome == "unknown"
    assert words in card.sentences[0]


def test_signed_numbers() -> None:
    assert [signed(x) for x in (0.01234, -0.01234, 0.0, -0.00001)] == [
        "+0.0123",
        "−0.0123",
        "0.0000",
        "0.0000",
    ]


def test_a_run_without_control_arm_says_so(inputs: ReportInputs, tmp_path: Path) -> None:
    assert any("No control arm" in note for note in trust_notes(inputs, compute_results(inputs)))
    controlled = collect(write_run(tmp_path, models=("swing",), arms=("real", "llm_i2i", "item_knn")))
    assert not any("No control arm" in note for note in trust_notes(controlled, compute_results(controlled)))


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
    provenance = dataclasses.replace(
        inputs.provenance, changed=("params.yaml", "src/a.py", "src/b.py", "src/c.py")
    )
    notes = " ".join(trust_notes(dataclasses.replace(inputs, provenance=provenance), compute_results(inputs)))
    assert "params.yaml, src/a.py, src/b.py and 1 more" in notes
    assert "broke 1 expectation;" in notes
