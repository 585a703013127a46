"""Why dense data gain nothing, and what the same method gives on sparse data: out of the run and committed results."""

from dataclasses import replace
from typing import Any

from llm_i2i.evaluation.paired import Measured, PairedDifference
from llm_i2i.reporting.benchmark import METRIC, PLAIN, gains, headline, runs_table, selected_arm
from llm_i2i.reporting.collect import BASELINE_ARM, ReportInputs
from llm_i2i.reporting.results import AUGMENTED_ARM, Results
from llm_i2i.reporting.words import outcome_of, percent, say, signed
from llm_i2i.schema import OVERALL, TAIL

AGAINST = f"arm {BASELINE_ARM}"


def no_gain_of_swing(inputs: ReportInputs, results: Results) -> dict[str, Any] | None:
    """Title, text, points and tables; None where it is not so, or no committed result gains.

    It is so where no gain is shown, no more targets can be reached than before, and the tail is too small to show one:
    its share of the targets times the highest gain on a committed tail is less than half the width of the interval.
    """
    n_users, ours, real = results.n_users, (PLAIN, AUGMENTED_ARM), (PLAIN, BASELINE_ARM)
    difference = results.differences.get(ours, {}).get((OVERALL, METRIC))
    arms = {name: headline(found) for name, found in inputs.benchmark.items()}
    wanted = [BASELINE_ARM, *map(selected_arm, ("paper", "recipe"))]
    runs = {(name, arm): arms[name][arm] for name in arms for arm in wanted if arm in arms[name]}
    tails = [
        (rows[TAIL, AGAINST]["difference"], name)
        for (name, _), rows in runs.items()
        if (TAIL, AGAINST) in rows and rows[OVERALL, AGAINST]["outcome"] == "better"
    ]
    if difference is None or outcome_of(difference) == "better" or not tails:
        return None
    share, width, (best, there) = n_users[TAIL] / n_users[OVERALL], (difference.high - difference.low) / 2, max(tails)
    pair = PairedDifference(*(Measured.once(inputs.per_user[run]) for run in (ours, real)))
    # A list as long as the catalogue holds every target that can be reached.
    everything, resamples = f"recall@{len(inputs.items)}", inputs.params.report.bootstrap_resamples
    reach = pair.interval(everything, resamples=resamples, seed=inputs.params.seed)
    if outcome_of(reach) == "better" or share * best >= width:
        return None
    before, after = (percent(inputs.metrics[run]["reachable_share"]) for run in (real, ours))
    tail, everyone = (runs[there, BASELINE_ARM][part, ""]["n_users"] for part in (TAIL, OVERALL))
    text = say(
        "no_gain", median=inputs.items["n_train"].median(), tail=n_users[TAIL], users=n_users[OVERALL],
        share=percent(share), there=there.capitalize(), share_there=percent(tail / everyone), before=before,
        after=after, best=signed(best), rise=share * best, width=width,
    )  # fmt: skip
    shown = {f"{name.capitalize()}, {arm}": rows for (name, arm), rows in runs.items()}
    table = replace(runs_table(shown, AGAINST), caption=say("sparse_caption"), wide=True, sticky=True)
    points = [f"{name.capitalize()}: {line}" for name, found in arms.items() for line in gains(name, found)]
    return {"title": say("no_gain_title"), "text": text, "points": points, "tables": [table]}
