"""docs/results.md: the benchmark's tables beside the published ones, every number out of a results file."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting import words
from llm_i2i.reporting.collect import Json
from llm_i2i.reporting.experiment_views import experiment_table, highest, rows_of, tell
from llm_i2i.reporting.markdown import escape_markdown, markdown_table
from llm_i2i.reporting.tables import Table, view
from llm_i2i.reporting.words import interval_of, metric_name, plural, say, signed, span

METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
AUGMENTED = "llm_i2i"
OURS, PAPERS, BY_P_YES = "our recipe", "the paper's selection", "our recipe ordered by p_yes"
MOST_CREDIBLE = "the most credible"
# What chose the pairs of arm llm_i2i in an experiment, which its name does not tell. In `recipe` it is the point.
SELECTIONS = {
    "backbones": OURS,
    "controls": OURS,
    "negatives": BY_P_YES,
    "ablation": MOST_CREDIBLE,
    "tail_weight": MOST_CREDIBLE,
    "threshold": MOST_CREDIBLE,
    "volume": MOST_CREDIBLE,
}
PAPERS_POINT = ("recipe", "paper")  # the experiment and the point that has the paper's selection


def render(results: Mapping[str, Mapping[str, Json]], *, command: str) -> str:
    """The whole document as Markdown; the same results give the same text.

    Args:
        results: By data set, then experiment: content of reports/benchmark/DATASET/EXPERIMENT.json.
        command: What produced them.
    """
    lines = [f"- {line}" for name, found in results.items() for line in reading(name, found)]
    parts = [
        "# Results on Amazon reviews",
        say("about_benchmark", command=command, made_at_once=_made_at_once(results)),
        "## Arms",
        say("arms_of_benchmark"),
        "## Reading",
        "\n".join(lines) or "- Nothing has been measured yet.",
    ]
    for name, found in results.items():
        parts += [f"## {name.capitalize()}", _about(found)]
        if "backbones" in found:
            published = published_table(name, found["backbones"])
            parts += ["### Beside published figures", markdown_table(published)]
        for experiment, content in found.items():
            rows, question = named(experiment, rows_of(content["rows"])), str(content["question"])
            seeds, failures = len(content["seeds"]), content.get("failures", {})
            text = tell(rows, question=question, seeds=seeds, failures=failures)
            shown = experiment_table(rows, name=experiment, question=question)
            parts += [
                f"### {experiment.capitalize().replace('_', ' ')}",
                escape_markdown(text),
                markdown_table(shown),
                _provenance(experiment, found, most_seeds=_seeds(results)[-1]),
            ]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def named(experiment: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose arm `llm_i2i` says how its pairs were chosen."""
    how = rows["point"].map(lambda point: PAPERS if (experiment, point) == PAPERS_POINT else "this point")
    chosen = SELECTIONS.get(experiment, how if experiment == PAPERS_POINT[0] else "selection not recorded")
    arm = rows["arm"]
    return rows.assign(arm=arm.where(arm != AUGMENTED, arm + " (" + chosen + ")"))


def _seeds(results: Mapping[str, Mapping[str, Json]]) -> list[int]:
    """How many seeds the tables have, ascending, each number once."""
    return sorted({len(content["seeds"]) for found in results.values() for content in found.values()})


def _revision(content: Json) -> str:
    return str(content.get("benchmark", {}).get("revision") or "")[:12]


def _made_at_once(results: Mapping[str, Mapping[str, Json]]) -> str:
    """Say so where the tables differ in seeds or revision."""
    seeds = _seeds(results)
    revisions = {_revision(content) for found in results.values() for content in found.values()}
    if len(revisions) < 2 and len(seeds) < 2:
        return ""
    told = {"revisions": plural(len(revisions), "revision"), "seeds": " or ".join(map(str, seeds))}
    return say("made_at_once", **told)


def _about(found: Mapping[str, Json]) -> str:
    """Profile and data of the experiments."""
    marks = {(c["benchmark"]["profile"], c["benchmark"]["data_md5"]) for c in found.values()}
    return "; ".join(f"Profile `{profile}`, data `{md5}`" for profile, md5 in sorted(marks)) + "."


def _provenance(experiment: str, found: Mapping[str, Json], *, most_seeds: int) -> str:
    """Seeds, protocol and revision of a table, and where they are not those of the others."""
    content, main = found[experiment], next(iter(found))
    hashes = dict.fromkeys(h for by_model in content["protocol_hash"].values() for h in by_model.values())
    seeds = f"Seeds {', '.join(map(str, content['seeds']))}"
    if len(content["seeds"]) < most_seeds:
        seeds += f" (fewer than the {most_seeds} of other tables"
        seeds += ": the intervals do not cover training)" if len(content["seeds"]) == 1 else ")"
    revision = f"revision `{_revision(content)}`" if _revision(content) else "revision not recorded"
    if _revision(content) != _revision(found[main]):
        revision += f" (another than that of {main.capitalize().replace('_', ' ')})"
    return f"{seeds}; protocol {', '.join(f'`{value[:12]}`' for value in hashes)}; {revision}."


def published_table(dataset: str, content: Json) -> Table:
    """Ours and the published figures, by Recall@10."""
    rows = named("backbones", rows_of(content["rows"]))
    values = rows[(rows["against"] == "") & (rows["slice"] == "overall")]
    lines: list[tuple[Any, ...]] = [tuple(line) for line in words.texts()["published"].get(dataset, ())]
    for (model, arm), group in values.groupby(["model", "arm"], sort=False):
        by_metric = dict(zip(group["metric"], group["value"], strict=True))
        lines.append((words.run_name(model, arm), "measured here", *(by_metric.get(m) for m in METRICS)))
    place = 2 + METRICS.index("recall@10")
    return view(
        "published",
        sorted(lines, key=lambda line: (-(line[place] or 0.0), line[1] != "measured here")),
        columns=[(metric_name(metric), ".4f") for metric in METRICS],
    )


def reading(dataset: str, found: Mapping[str, Json]) -> list[str]:
    """What the experiments of a data set show; the paper is compared with its own selection only."""
    rows = {name: rows_of(content["rows"]) for name, content in found.items()}
    lines = []
    sources = [name for name in ("controls", "backbones") if name in found]
    if sources:
        # The one of more seeds: what one seed shows another may not.
        source = rows[max(sources, key=lambda name: len(found[name]["seeds"]))]
        lines += _gain(source, OURS, dataset)
        lines += [line for part in ("overall", "tail") for line in _against_control(source, part)]
    if PAPERS_POINT[0] in found:
        recipe = rows[PAPERS_POINT[0]]
        lines += _gain(recipe[recipe["point"] == PAPERS_POINT[1]], PAPERS, dataset)
    if "backbones" in found:
        lines += _best(rows["backbones"])
    if "recipe" in found:
        lines += _recipes(rows["recipe"])
    return [f"{dataset.capitalize()}{line}" for line in lines]


def _swing(rows: pd.DataFrame, arm: str, part: str = "overall") -> pd.DataFrame:
    of_swing = (rows["model"] == "swing") & (rows["metric"] == "recall@10")
    return rows[of_swing & (rows["arm"] == arm) & (rows["slice"] == part)]


def _value(rows: pd.DataFrame) -> float | None:
    values = rows.loc[rows["against"] == "", "value"]
    return float(values.iloc[0]) if len(values) else None


def _gain(rows: pd.DataFrame, selection: str, dataset: str) -> list[str]:
    """Relative gain of Swing beside what the paper states."""
    real, augmented = _value(_swing(rows, "real")), _value(_swing(rows, AUGMENTED))
    if not real or augmented is None:
        return []
    gain, stated = 100 * (augmented / real - 1), words.texts()["stated_gain"].get(dataset)
    line = say("gain", selection=selection, real=real, augmented=augmented, gain=signed(gain, 2))
    if stated is None:
        return [line + "."]
    verdict = say(f"{'papers' if selection == PAPERS else 'ours'}_{'enough' if gain >= stated else 'less'}")
    return [say("stated", gain=line, stated=stated, verdict=verdict)]


def _compared(rows: pd.DataFrame, against: str) -> Interval | None:
    found = rows[rows["against"] == against].to_dict(orient="records")
    return interval_of(found[0]) if found else None


def _against_control(rows: pd.DataFrame, part: str) -> list[str]:
    """Paired difference of our recipe's data to as many pairs from item-kNN."""
    interval = _compared(_swing(rows, AUGMENTED, part), "arm item_knn")
    if interval is None:
        return []
    told = say(f"control_{words.outcome_of(interval)}")
    where = "all targets" if part == "overall" else "tail targets"
    return [say("against_control", where=where, selection=OURS, span=span(interval), words=told)]


def _best(rows: pd.DataFrame) -> list[str]:
    """The best model on our recipe's data beside the best one without augmentation."""
    recall = rows[(rows["slice"] == "overall") & (rows["metric"] == "recall@10")]
    values = recall[recall["against"] == ""]
    plain, augmented = values[values["arm"] == "real"], values[values["arm"] == AUGMENTED]
    if plain.empty or augmented.empty:
        return []
    one, other = (highest(part, "value") for part in (augmented, plain))
    of_best = recall[(recall["model"] == one["model"]) & (recall["arm"] == AUGMENTED)]
    same = _compared(of_best, "arm real") if one["model"] == other["model"] else None
    told = span(same) if same else say("two_models")
    above = "above" if one["value"] > other["value"] else "not above"
    ours, theirs = (
        f"{words.model_name(found['model'])} with Recall@10 {found['value']:.4f}" for found in (one, other)
    )
    return [say("best", selection=OURS, ours=ours, above=above, theirs=theirs, words=told)]


def _recipes(rows: pd.DataFrame) -> list[str]:
    """Swing on each point's pairs against none and against item-kNN's, with the number of pairs of both."""
    lines = []
    for point, group in rows.groupby("point", sort=False):
        volume = group.loc[group["arm"] == "item_knn", "synthetic_kept"].max()
        against = {"arm real": "no augmentation", "arm item_knn": f"{volume:,.0f} pairs of item-kNN"}
        parts = []
        for part in ("overall", "tail"):
            found = _swing(group, AUGMENTED, part)
            intervals = {told: _compared(found, name) for name, told in against.items()}
            shown = "; ".join(
                f"{span(interval)} against {told}" for told, interval in intervals.items() if interval
            )
            parts.append(f"{part} {_value(found):.4f} ({shown})")
        kept = float(_swing(group, AUGMENTED)["synthetic_kept"].iloc[0])
        lines.append(say("point", point=point, kept=kept, parts=", ".join(parts)))
    return lines
