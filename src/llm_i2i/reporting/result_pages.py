"""docs/results.md and docs/results/: what each arm gives, and a page per question with its intervals as a plot."""

from collections.abc import Iterable, Mapping

from llm_i2i.reporting import benchmark, words
from llm_i2i.reporting.benchmark import METRIC, Results, Runs, short
from llm_i2i.reporting.collect import BASELINE_ARM, Json
from llm_i2i.reporting.plots import plot_differences
from llm_i2i.reporting.results import HEADLINES
from llm_i2i.reporting.tables import Table, markdown_table, view
from llm_i2i.reporting.words import interval_of, metric_name, say


def render(results: Results, *, command: str) -> dict[str, str]:
    """Every page and plot by its path below docs/, made by `command`; the same results give the same texts.

    results.md has the answers, results/QUESTION.md a table for each data set with its intervals as a plot.
    """
    parts = ["# Results on Amazon reviews", say("about_benchmark", command=command)]
    if not results:
        return {"results.md": "\n\n".join([*parts, say("nothing_measured")]) + "\n"}
    made: dict[str, str] = {}
    arms = {dataset: benchmark.headline(found) for dataset, found in results.items()}
    for dataset, found in results.items():
        title, table = dataset.capitalize(), benchmark.runs_table(arms[dataset], f"arm {BASELINE_ARM}")
        told = "\n".join(f"- {line}" for line in benchmark.reading(dataset, found, arms[dataset]))
        parts += [f"## {title}", told, _plot(dataset, arms[dataset], f"arm {BASELINE_ARM}", made, folder="results/")]
        parts += [say("about_headline"), markdown_table(table)]
    parts += ["## By question", _questions(results, made), "## Arms", markdown_table(_arms_table(arms))]
    parts += ["## What was run", _what_ran(results), markdown_table(_sources_table(results))]
    made["results.md"] = _page(parts)
    return made


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _questions(results: Results, made: dict[str, str]) -> str:
    """A page per question, added to `made`, and a list that leads to them."""
    lines = []
    for name in dict.fromkeys(name for found in results.values() for name in found):
        by_dataset = {data: found[name] for data, found in results.items() if name in found}
        made[f"results/{name}.md"] = _page(_question(name, by_dataset, made))
        question = next(iter(by_dataset.values()))["question"]
        lines.append(f"- [{name.capitalize().replace('_', ' ')}](results/{name}.md). {question}")
    tables = {dataset: benchmark.judge_tables(found) for dataset, found in results.items()}
    made["results/judge.md"] = _aside("judge", tables)
    tuned = {dataset: benchmark.with_tuned_models(found) for dataset, found in results.items()}
    tables = {data: [benchmark.published_table(data, content)] for data, content in tuned.items() if content}
    made["results/published.md"] = _aside("published", tables)
    return "\n".join([*lines, *(f"- {say(f'link_{name}')}" for name in ("judge", "published"))])


def _aside(name: str, tables: Mapping[str, list[Table]]) -> str:
    """A page of tables that no experiment of its own stands behind."""
    parts = [f"# {say(f'title_{name}')}", say("back")]
    for dataset, found in tables.items():
        parts += [f"## {dataset.capitalize()}", *map(markdown_table, found)] if found else []
    return _page(parts)


def _plot(name: str, runs: Runs, against: str, made: dict[str, str], folder: str = "") -> str:
    """The intervals of a table as a plot, added to `made`, and the Markdown that shows it; "" = there are none."""
    entries = {
        run: {words.slice_name(part): interval_of(rows[part, against]) for part in HEADLINES if (part, against) in rows}
        for run, rows in runs.items()
    }
    entries = {run: found for run, found in entries.items() if found}
    if not entries:
        return ""
    plot = plot_differences(
        entries, metric=metric_name(METRIC), against=short(against), name=name, standalone=True, row_height=0.36
    )
    made[f"results/{name}.svg"] = plot.svg
    return f"![{plot.title}]({folder}{name}.svg)"


def _question(name: str, by_dataset: Mapping[str, Json], made: dict[str, str]) -> list[str]:
    """An experiment: its question, and per data set what it shows, the intervals, the table and the full table."""
    first = next(iter(by_dataset.values()))
    parts = [f"# {name.capitalize().replace('_', ' ')}", f"{first['question']} {benchmark.chosen(first)}", say("back")]
    for dataset, content in by_dataset.items():
        runs, against = benchmark.question_runs(content), benchmark.reference_of(content)
        parts += [f"## {dataset.capitalize()}", benchmark.verdict(content, runs)]
        parts += [_plot(f"{dataset}-{name}", runs, against, made), markdown_table(benchmark.runs_table(runs, against))]
        if failures := content.get("failures"):
            why = next(iter(failures.values())).partition(";")[0]
            parts.append(say("not_run", points=", ".join(map(short, failures)), why=why))
        seeds = content["seeds"]
        parts.append(say("seeds" if len(seeds) > 1 else "one_seed", seeds=", ".join(map(str, seeds))))
        if device := content["benchmark"].get("device"):
            parts.append(say("ran_on", device=device, torch=content["benchmark"]["torch"]))
        parts.append(say("in_full", file=benchmark.csv_name(dataset, name)))
    return parts


def _what_ran(results: Results) -> str:
    """Test users and data of each data set, and how values are to be read."""
    lines = []
    for dataset, found in results.items():
        users = {row["slice"]: row["n_users"] for content in found.values() for row in content["rows"]}
        marks = sorted({(c["benchmark"]["profile"], c["benchmark"]["data_md5"]) for c in found.values()})
        told = "; ".join(f"profile `{profile}`, data `{md5}`" for profile, md5 in marks)
        lines.append(say("data_of_benchmark", name=dataset.capitalize(), users=users, marks=told))
    return "\n".join([*lines, say("values_of_benchmark")])


def _arms_table(arms: Mapping[str, Runs]) -> Table:
    """What every arm that occurs adds to the real pairs."""
    names = {name for runs in arms.values() for name in runs}
    names |= {name.partition(" (")[0] for name in names}
    rows = [(arm, text) for arm, text in words.texts()["arms"].items() if arm in names]
    return view("arms", rows)


def _sources_table(results: Results) -> Table:
    """Seeds, protocol of the first model by seed, and revision of every experiment."""
    lines = []
    for dataset, found in results.items():
        for name, content in found.items():
            hashes = [next(iter(models.values()))[:12] for models in content["protocol_hash"].values()]
            revision = str(content["benchmark"].get("revision") or "not recorded")[:12]
            seeds = ", ".join(map(str, content["seeds"]))
            lines.append((dataset.capitalize(), name, seeds, ", ".join(hashes), revision))
    return view("sources", lines)
