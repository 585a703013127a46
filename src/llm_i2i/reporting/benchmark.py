"""What docs/results.md and docs/results/ say: tables and sentences; every number out of a results file."""

import re
from collections.abc import Mapping
from typing import Any

from llm_i2i.reporting import words
from llm_i2i.reporting.collect import BASELINE_ARM, Json
from llm_i2i.reporting.experiments import EVERY_POINT
from llm_i2i.reporting.results import AUGMENTED_ARM, CONTROL_ARMS, HEADLINES
from llm_i2i.reporting.tables import MARKS, Cell, Table, view
from llm_i2i.reporting.words import interval_of, metric_name, percent, say, signed, span
from llm_i2i.schema import BUCKETS, GENERATOR, OVERALL, TAIL

Results = Mapping[str, Mapping[str, Json]]  # by data set, then experiment: content of its results file
Runs = dict[str, dict[tuple[str, str], Json]]  # rows of one metric: by name of the run, then slice and comparison
METRIC = "recall@10"
METRICS = ("recall@5", "ndcg@5", METRIC, "ndcg@10")
PLAIN, CONTROL = "swing", "item_knn"  # the model of the headline, and the arm that the LLM has to beat
SELECTED = (AUGMENTED_ARM, "synthetic_only")  # arms whose pairs `fuse.selection` chooses
SLICES_OF_JUDGE = (OVERALL, *BUCKETS[:-1])  # no user takes a cold item in training
WHERE = {OVERALL: "all targets", TAIL: "the tail"}


def judge_tables(found: Mapping[str, Json]) -> list[Table]:
    """How well the judge and what it is made of order a user's proposals: of the first experiment and point with it."""
    for content in found.values():
        for aucs in content.get("judge", {}).values():
            lines = [(order, *(_auc(by_part.get(part)) for part in SLICES_OF_JUDGE)) for order, by_part in aucs.items()]
            users = aucs["judge"][OVERALL]["n_users"]
            return [view("benchmark_judge", lines, columns=[(part, ".3f") for part in SLICES_OF_JUDGE], users=users)]
    return []


def _auc(found: Json | None) -> Cell | None:
    return Cell(f"{found['auc']:.3f} [{found['auc_low']:.3f}, {found['auc_high']:.3f}]") if found else None


def with_tuned_models(found: Mapping[str, Json]) -> Json | None:
    """The experiment that shows the best of our own: of those with tuned models the first in the document's order."""
    tuned = (each for each in found.values() if any(row["model"].endswith("_tuned") for row in each["rows"]))
    return next(tuned, None)


def csv_name(dataset: str, experiment: str) -> str:
    """The file of docs/results/ that holds every row of an experiment."""
    return f"{dataset}-{experiment}.csv"


def headline(found: Mapping[str, Json]) -> Runs:
    """Plain Swing and the generator alone, on each arm and selection once, the highest first.

    An arm is taken from the first experiment that has it, in the document's order, so that as many arms as can be come
    from one; a selection that only its point describes is left out.
    """
    runs: Runs = {}
    sources: dict[str, tuple[str, str]] = {}
    for experiment, content in found.items():
        for row in _main_rows(content):
            name, source = _name(content, row), (experiment, row["point"])
            if row["model"] in (PLAIN, GENERATOR) and name and sources.setdefault(name, source) == source:
                runs.setdefault(name, {})[row["slice"], row["against"]] = row
    return dict(sorted(runs.items(), key=lambda entry: -entry[1][OVERALL, ""]["value"]))


def _main_rows(content: Json) -> list[Json]:
    """Rows of the metric that the page shows."""
    return [row for row in content["rows"] if row["metric"] == METRIC]


def _name(content: Json, row: Json) -> str:
    """An arm and, where one chose its pairs, the selection; "" = only its point tells."""
    selections = content.get("selection", {})
    if row["arm"] not in SELECTED or not selections:
        return str(row["arm"])
    chosen = words.texts()["selections"].get(selections.get(row["point"]))
    return f"{row['arm']} ({chosen})" if chosen else ""


def runs_table(runs: Runs, against: str) -> Table:
    """By run: pairs kept, then for all targets and for the tail the value and the difference to `against`."""
    lines = []
    for name, rows in runs.items():
        line: list[Any] = [name, _pairs(rows[OVERALL, ""])]
        for part in HEADLINES:
            value, compared = rows.get((part, "")), rows.get((part, against))
            mark = compared and MARKS[compared["outcome"]]
            line += [value and value["value"], compared and f"{mark} {span(interval_of(compared))}"]
        lines.append(line)
    to = (f"Difference to {short(against)}", "")
    return view("runs", lines, columns=[to, ("Recall@10, tail", ".4f"), to])


def _pairs(row: Json) -> Cell | None:
    """Synthetic pairs that a run was trained on and, where that was recorded, the share of tail items among them."""
    if not row["synthetic_kept"]:
        return None
    tail = f" ({percent(row['tail_kept'] / row['synthetic_kept'])} tail)" if "tail_kept" in row else ""
    return Cell(f"{row['synthetic_kept']:,.0f}{tail}")


def published_table(dataset: str, content: Json) -> Table:
    """Published figures and, of ours, plain Swing and the best tuned model, by Recall@10."""
    ours: dict[str, dict[str, float]] = {}
    sources: dict[str, str] = {}  # the first point that has it, as in `headline`
    for row in content["rows"]:
        if row["model"] in shown_models(content) and (row["slice"], row["against"]) == (OVERALL, ""):
            name = words.run_name(row["model"], _name(content, row) or row["arm"])
            if sources.setdefault(name, row["point"]) == row["point"]:
                ours.setdefault(name, {})[row["metric"]] = row["value"]
    lines: list[tuple[Any, ...]] = [(name, "measured here", *map(values.get, METRICS)) for name, values in ours.items()]
    lines += [tuple(line) for line in words.texts()["published"].get(dataset, ())]
    lines.sort(key=lambda line: -(line[2 + METRICS.index(METRIC)] or 0.0))
    return view("published", lines, columns=[(metric_name(metric), ".4f") for metric in METRICS])


def shown_models(content: Json) -> list[str]:
    """The models that the page shows: plain Swing, and the best tuned one or else the generator alone."""
    rows = [row for row in _main_rows(content) if row["slice"] == OVERALL]
    others = [row for row in rows if row["model"].endswith("_tuned")]
    others = others or [row for row in rows if row["model"] == GENERATOR]
    return [PLAIN, *(row["model"] for row in sorted(others, key=lambda row: -row["value"])[:1])]


def reading(dataset: str, found: Mapping[str, Json], arms: Runs) -> list[str]:
    """What the arms of a data set (as of `headline`) show; the paper is compared with its own selection only."""
    lines, recipe = gains(dataset, arms), arms.get(selected_arm("recipe"), {})
    for part, where in WHERE.items():
        if row := recipe.get((part, f"arm {CONTROL}")):
            told = say(f"control_{row['outcome']}")
            lines.append(say("against_control", where=where, span=span(interval_of(row)), words=told))
    tuned = with_tuned_models(found)
    return [*lines, *(_best(tuned) if tuned else [])]


def selected_arm(selection: str) -> str:
    """The arm of `headline` with the pairs of a selection, `paper` or `recipe`."""
    return f"{AUGMENTED_ARM} ({words.texts()['selections'][selection]})"


def gains(dataset: str, arms: Runs) -> list[str]:
    """What Swing gains by each selection on a data set, of its arms (as of `headline`)."""
    values = {arm: rows[OVERALL, ""]["value"] for arm, rows in arms.items()}
    shown = [key for key in ("paper", "recipe") if BASELINE_ARM in arms and selected_arm(key) in arms]
    return [_gain(dataset, key, values[BASELINE_ARM], values[selected_arm(key)]) for key in shown]


def _gain(dataset: str, selection: str, real: float, augmented: float) -> str:
    """Relative gain of Swing with the pairs of a selection, beside what the paper states of its own."""
    gain, stated = 100 * (augmented / real - 1), words.texts()["stated_gain"].get(dataset)
    name = words.texts()["selections"][selection]
    line = say("gain", selection=name, real=real, augmented=augmented, gain=signed(gain, 2))
    if stated is None:
        return f"{line}."
    verdict = say(f"{selection}_{'enough' if gain >= stated else 'less'}")
    return say("stated", gain=line, stated=stated, verdict=verdict)


def _best(content: Json) -> list[str]:
    """The best tuned model with the generator's pairs, against itself without them and with the control's."""
    model = shown_models(content)[-1]
    rows = question_runs(content).get(words.run_name(model, AUGMENTED_ARM), {})
    compared = [rows.get((OVERALL, f"arm {arm}")) for arm in (BASELINE_ARM, CONTROL)]
    spans = [span(interval_of(row)) for row in compared if row]
    if model == PLAIN or len(spans) < 2:
        return []
    value = rows[OVERALL, ""]["value"]
    return [say("best", model=words.model_name(model), value=value, real=spans[0], control=spans[1])]


def chosen(content: Json) -> str:
    """Which pairs arm llm_i2i has, if the experiment has such an arm."""
    if not any(row["arm"] == AUGMENTED_ARM for row in content["rows"]):
        return ""
    names = {words.texts()["selections"].get(key, "") for key in content.get("selection", {}).values()}
    if len(names) == 1 and "" not in names:
        return say("chosen", name=names.pop())
    return say("chosen_by_point" if names else "chosen_unknown")


def short(label: str) -> str:
    """A point or comparison without its kind and the sections of parameters: "mode=a" for "point fuse.mode=a"."""
    return re.sub(r"^(?:arm|point) |\b(?:\w+\.)+(?=\w+=)", "", label)


def reference_of(content: Json) -> str:
    """What a table compares with: a control of equal volume, else a point, else arm real; "" = nothing."""
    names = sorted({row["against"] for row in _main_rows(content)} - {""}, key=lambda name: (CONTROL not in name, name))
    controls = [name for name in names if short(name) in CONTROL_ARMS]
    return next(iter([*controls, *(name for name in names if name.startswith("point ")), *names]), "")


def _baselines(content: Json) -> set[str]:
    """Arms with which others are compared, and that are a control or of one volume at every point."""
    arms = {short(row["against"]) for row in content["rows"] if row["against"].startswith("arm ")}
    volumes = {arm: {row["synthetic_kept"] for row in content["rows"] if row["arm"] == arm} for arm in arms}
    return {arm for arm, found in volumes.items() if arm in CONTROL_ARMS or len(found) == 1}


def question_runs(content: Json) -> Runs:
    """The runs of the shown models, named by what tells them apart.

    Of arms that others are compared with, at several points, one that no point changes is shown once, and a control,
    which follows the point's volume, not at all: the differences to it tell more.
    """
    models, baselines = shown_models(content), _baselines(content)
    rows = [row for row in _main_rows(content) if row["model"] in models]
    several = len({row["point"] for row in rows} - {EVERY_POINT}) > 1
    at_points = [row for row in rows if row["arm"] not in baselines and row["point"] != EVERY_POINT]
    one_run = len({(row["model"], row["arm"]) for row in at_points}) == 1
    runs: Runs = {}
    for row in rows:
        name = words.run_name(row["model"], row["arm"]) if models[-1].endswith("_tuned") else row["arm"]
        if several and row["point"] != EVERY_POINT and row["arm"] in baselines:
            if row["against"] or row["arm"] in CONTROL_ARMS:
                continue
        elif several and row["point"] != EVERY_POINT:
            name = short(row["point"]) if one_run else f"{short(row['point'])}, {name}"
        runs.setdefault(name, {})[row["slice"], row["against"]] = row
    return runs


def verdict(content: Json, runs: Runs) -> str:
    """What a table means: its highest values, and how many runs, of all models, are better and worse."""
    against, baselines = reference_of(content), _baselines(content)
    told: dict[str, Any] = {"against": short(against), "models": len({row["model"] for row in content["rows"]})}
    for part in HEADLINES:
        values = {name: rows[part, ""]["value"] for name, rows in runs.items() if (part, "") in rows}
        best = max(values, key=values.__getitem__)
        compared = [
            row.get("outcome")
            for row in _main_rows(content)
            if (row["slice"], row["against"]) == (part, against) and row["arm"] not in baselines
        ]
        told |= {f"{part}_run": best, f"{part}_value": values[best], f"{part}_n": len(compared)}
        told |= {f"{part}_{outcome}": compared.count(outcome) for outcome in MARKS}
    keys = {"table_highest": True, "table_means": against, "all_models": told["models"] > len(shown_models(content))}
    return " ".join(say(key, **told) for key, applies in keys.items() if applies)
