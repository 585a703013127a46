"""docs/results.md: the benchmark's tables beside the published ones, every number out of a results file."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting.experiment_views import experiment_table, highest, rows_of
from llm_i2i.reporting.markdown import escape_markdown, markdown_table
from llm_i2i.reporting.results import outcome_of
from llm_i2i.reporting.tables import Cell, Group, Table, name_cell
from llm_i2i.reporting.verdicts import metric_name, model_name, signed

Json = dict[str, Any]

TIGER = "TIGER, arXiv 2305.05065, table 1"
PAPER = "LLM-I2I, arXiv 2512.21595"
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
# Published figures: full ranking, leave one out; (model, source, values of METRICS).
PUBLISHED = {
    "beauty": (
        ("SASRec", TIGER, (0.0387, 0.0249, 0.0605, 0.0318)),
        ("TIGER", TIGER, (0.0454, 0.0321, 0.0648, 0.0384)),
    ),
    "toys": (
        ("SASRec", TIGER, (0.0463, 0.0306, 0.0675, 0.0374)),
        ("S3-Rec", TIGER, (0.0443, 0.0294, 0.0700, 0.0376)),
        ("TIGER", TIGER, (0.0521, 0.0371, 0.0712, 0.0432)),
    ),
}
# What the paper states its augmentation adds to Swing's Recall@10, in per cent.
STATED_GAIN = {"beauty": 13.04, "toys": 19.97}
_ABOUT = (
    "Made by `{command}`; every number stands in `reports/benchmark/`. Metrics are on test users, full ranking of the "
    "catalogue, history removed; intervals are 95 %, paired, over users and, where several were run, seeds."
)
AUGMENTED = "llm_i2i"
CONTROLS = ("random", "popularity", "item_knn")


def render(results: Mapping[str, Mapping[str, Json]], *, command: str) -> str:
    """The whole document.

    Args:
        results: By data set, then experiment: content of reports/benchmark/DATASET/EXPERIMENT.json.
        command: What produced them.

    Returns:
        Markdown; the same results give the same text.
    """
    parts = [
        "# Results on Amazon reviews",
        _ABOUT.format(command=command),
        "## Reading",
        "\n".join(f"- {line}" for name, found in results.items() for line in reading(name, found))
        or "- Nothing has been measured yet.",
    ]
    for name, found in results.items():
        parts.append(f"## {name.capitalize()}")
        parts.append(_about(found))
        if "backbones" in found:
            parts += [
                "### Beside published figures",
                markdown_table(published_table(name, found["backbones"])),
            ]
        for experiment, content in found.items():
            rows = rows_of(content["rows"])
            table = experiment_table(rows, name=experiment, question=str(content["question"]))
            parts += [f"### {experiment.capitalize().replace('_', ' ')}", escape_markdown(content["paragraph"]),
                      markdown_table(table), _provenance(content)]  # fmt: skip
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _about(found: Mapping[str, Json]) -> str:
    """Data set, profile and revision of each experiment, where they agree."""
    marks = {(c["benchmark"]["profile"], c["benchmark"]["data_md5"]) for c in found.values()}
    return "; ".join(f"profile `{profile}`, data `{md5}`" for profile, md5 in sorted(marks)) + "."


def _provenance(content: Json) -> str:
    hashes = dict.fromkeys(h for by_model in content["protocol_hash"].values() for h in by_model.values())
    shown = ", ".join(f"`{value[:12]}`" for value in hashes)
    revision = content["benchmark"]["revision"][:12]
    return f"Seeds {', '.join(map(str, content['seeds']))}; protocol {shown}; revision `{revision}`."


def published_table(dataset: str, content: Json) -> Table:
    """Ours and the published figures, by Recall@10."""
    rows = rows_of(content["rows"])
    values = rows[(rows["against"] == "") & (rows["slice"] == "overall")]
    lines: list[tuple[float, tuple[Cell, ...]]] = []
    for (model, arm), group in values.groupby(["model", "arm"], sort=False):
        by_metric = dict(zip(group["metric"], group["value"], strict=True))
        cells = [Cell(f"{by_metric[m]:.4f}" if m in by_metric else "–") for m in METRICS]
        name = f"{model_name(str(model))}, {arm}"
        lines.append((by_metric.get("recall@10", 0.0), (name_cell(name), name_cell("measured here"), *cells)))
    for name, source, numbers in PUBLISHED.get(dataset, ()):
        cells = [Cell(f"{number:.4f}") for number in numbers]
        lines.append((numbers[2], (name_cell(name), name_cell(source), *cells)))
    ordered = tuple(cells for _, cells in sorted(lines, key=lambda line: -line[0]))
    caption = (
        "Published: full ranking and leave one out on 5-core data of the same name; splits and counts are not "
        "guaranteed to be the same. Ours: see the protocol."
    )
    return Table(caption, ("Model", "Source", *map(metric_name, METRICS)), (Group("", ordered),))


def reading(dataset: str, found: Mapping[str, Json]) -> list[str]:
    """What is reproduced and what is not, in sentences that the numbers decide.

    Args:
        dataset: Name of the data set.
        found: Its experiments.

    Returns:
        One sentence a finding.
    """
    lines = []
    sources = [found[name] for name in ("controls", "backbones") if name in found]
    if sources:
        # The one of more seeds: what one seed shows another may not.
        rows = rows_of(max(sources, key=lambda source: len(source["seeds"]))["rows"])
        lines += _gain(dataset, rows)
        lines += [line for part in ("overall", "tail") for line in _against_control(dataset, rows, part)]
    if "backbones" in found:
        lines += _best(dataset, rows_of(found["backbones"]["rows"]))
    if "recipe" in found:
        lines += _recipes(dataset, rows_of(found["recipe"]["rows"]))
    return lines


def _recipes(dataset: str, rows: pd.DataFrame) -> list[str]:
    """Swing on each recipe's pairs against none and against item-kNN's, with the number of pairs of both."""
    swing = rows[(rows["model"] == "swing") & (rows["metric"] == "recall@10")]
    lines = []
    for point, group in swing.groupby("point", sort=False):
        ours = group[group["arm"] == "llm_i2i"]
        volume = group[group["arm"] == "item_knn"]["synthetic_kept"].max()
        parts = []
        for part in ("overall", "tail"):
            found = ours[ours["slice"] == part]
            value = float(found["value"].iloc[0])
            shown = [
                f"{_with_interval(row)} to {words}"
                for against, words in (
                    ("arm real", "no augmentation"),
                    ("arm item_knn", f"{volume:,.0f} of item-kNN"),
                )
                for _, row in found[found["against"] == against].iterrows()
            ]
            parts.append(f"{part} {value:.4f} ({'; '.join(shown)})")
        kept = float(ours["synthetic_kept"].iloc[0])
        lines.append(
            f"{dataset.capitalize()}, {point}: Swing on {kept:,.0f} generated pairs has Recall@10 {', '.join(parts)}."
        )
    return lines


def _swing(rows: pd.DataFrame, arm: str, part: str = "overall") -> pd.DataFrame:
    return rows[
        (rows["model"] == "swing")
        & (rows["arm"] == arm)
        & (rows["slice"] == part)
        & (rows["metric"] == "recall@10")
    ]


def _value(rows: pd.DataFrame) -> float | None:
    values = rows.loc[rows["against"] == "", "value"]
    return float(values.iloc[0]) if len(values) else None


def _gain(dataset: str, rows: pd.DataFrame) -> list[str]:
    """Relative gain of Swing beside the paper's."""
    real, augmented = _value(_swing(rows, "real")), _value(_swing(rows, AUGMENTED))
    if not real or augmented is None:
        return []
    gain = 100 * (augmented / real - 1)
    stated = STATED_GAIN.get(dataset)
    line = (
        f"{dataset.capitalize()}: LLM-I2I changes plain Swing's Recall@10 from {real:.4f} to {augmented:.4f} "
        f"({signed(gain)[:-2]} %)"
    )
    if stated is None:
        return [line + "."]
    verdict = "reproduced" if gain >= stated else "not reproduced"
    return [f"{line}; the paper states +{stated:.2f} % ({PAPER}): {verdict}."]


def _against_control(dataset: str, rows: pd.DataFrame, part: str) -> list[str]:
    """Paired difference of the LLM's data to as many pairs from item-kNN."""
    compared = _swing(rows, AUGMENTED, part)
    compared = compared[compared["against"] == "arm item_knn"]
    if compared.empty:
        return []
    entry = compared.iloc[0]
    interval = Interval(float(entry["difference"]), float(entry["low"]), float(entry["high"]))
    words = {
        "better": "the LLM's data is better than the cheap control's",
        "worse": "the cheap control's data is better",
        "none": "no difference to the cheap control is shown",
    }[outcome_of(interval)]
    where = "all targets" if part == "overall" else "tail targets"
    return [
        (
            f"{dataset.capitalize()}, {where}: Swing on LLM-I2I against Swing on item-kNN augmentation, Recall@10 "
            f"{signed(interval.mean)} [{signed(interval.low)}, {signed(interval.high)}]: {words}."
        )
    ]


def _best(dataset: str, rows: pd.DataFrame) -> list[str]:
    """The best augmented model beside the best one without augmentation."""
    recall = rows[(rows["slice"] == "overall") & (rows["metric"] == "recall@10")]
    values = recall[recall["against"] == ""]
    plain, augmented = values[values["arm"] == "real"], values[values["arm"] == AUGMENTED]
    if plain.empty or augmented.empty:
        return []
    one, other = (highest(part, "value") for part in (augmented, plain))
    more = "above" if one["value"] > other["value"] else "not above"
    words = "a difference of two models, without an interval"
    of_best = recall[(recall["model"] == one["model"]) & (recall["arm"] == AUGMENTED)]
    same = of_best[of_best["against"] == "arm real"]
    if one["model"] == other["model"] and not same.empty:
        words = _with_interval(same.iloc[0])
    return [
        (
            f"{dataset.capitalize()}: the best augmented model is {model_name(str(one['model']))} with Recall@10 "
            f"{one['value']:.4f}, {more} the best without augmentation, {model_name(str(other['model']))} with "
            f"{other['value']:.4f} ({words})."
        )
    ]


def _with_interval(row: pd.Series) -> str:
    """A compared row's difference and its interval."""
    return "{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**row)
