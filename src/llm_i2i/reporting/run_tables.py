"""The tables of a run: what was added, samples, cost, data, gate and comparison."""

from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i import schema
from llm_i2i.reporting import words
from llm_i2i.reporting.collect import Json, ReportInputs
from llm_i2i.reporting.results import main_arm
from llm_i2i.reporting.tables import Cell, Table, difference_cell, view
from llm_i2i.schema import ITEM_ID, SOURCE_REAL, SOURCE_SYNTHETIC, USER_ID
from llm_i2i.stages import STAGES

OWN_STAGE = "report"  # cannot know its own cost yet
HISTORY = 3  # last items of a user that a sample shows


def _bucket_columns(form: str) -> list[tuple[str, str]]:
    return [(name.capitalize(), form) for name in ("all", *schema.BUCKETS)]


def kept_table(inputs: ReportInputs) -> Table:
    """Rows in and kept by arm and source."""
    rows = []
    for arm in inputs.arms:
        for source in (SOURCE_REAL, SOURCE_SYNTHETIC):
            into, kept = (int(inputs.kept[arm].get(f"{source}_{name}", 0)) for name in ("in", "kept"))
            rows.append((arm, source, into, kept, kept / into if into else None))
    return view("kept", rows)


def accepted_table(inputs: ReportInputs) -> Table | None:
    """Share of scored pairs at or above the threshold, by source and bucket; None in volume mode.

    Before the cap per user: what the discriminator alone decides. Real pairs have a threshold of their own.
    """
    fuse = inputs.params.fuse
    if fuse.rule.mode != "threshold":
        return None
    bucket = inputs.scored[ITEM_ID].map(inputs.items.set_index(ITEM_ID)["bucket"])
    scored = inputs.scored.assign(bucket=bucket)

    def cell(pairs: pd.DataFrame, threshold: float) -> Cell:
        share = (pairs["p_yes"] >= np.float32(threshold)).mean()
        return Cell(words.percent(share) if len(pairs) else "–", (f"{len(pairs):,}",))

    rows = []
    for source in dict.fromkeys((SOURCE_REAL, SOURCE_SYNTHETIC, *scored["source"])):
        pairs = scored[scored["source"] == source]
        parts = [pairs, *(pairs[pairs["bucket"] == name] for name in schema.BUCKETS)]
        own = (fuse.real_threshold,) if source == SOURCE_REAL else ()
        rows += [
            (source, f"{threshold:g}", *(cell(part, threshold) for part in parts))
            for threshold in dict.fromkeys((fuse.rule.threshold, *own))
        ]
    return view("accepted", rows, columns=_bucket_columns("%"))


def auc_table(inputs: ReportInputs) -> Table | None:
    """Held-out AUC by kind of negatives and bucket of the real item; None where it was not measured."""
    held_out = inputs.held_out or {}
    if not held_out.get("auc_by_negatives"):
        return None

    rows = _auc_rows(held_out["auc_by_negatives"], count="n_yes", noun="real")
    return view("auc", rows, columns=_bucket_columns(".3f"), trained=held_out.get("negatives", "random"))


def judge_table(inputs: ReportInputs) -> Table | None:
    """AUC within a user's proposals, of the judge and of what it is made of; None where nothing was learned."""
    if not inputs.judge:
        return None
    rows = _auc_rows(inputs.judge["auc_within_user"], count="n_users", noun="users")
    told = {key: inputs.judge[key] for key in ("users", "proposals", "taken")}
    return view("judge", rows, columns=_bucket_columns(".3f"), **told)


def _auc_rows(by_name: Json, *, count: str, noun: str) -> list[tuple[str | Cell | None, ...]]:
    """One row per name: AUC with interval and size, overall and by bucket."""

    def cell(found: Json | None) -> Cell | None:
        if found is None:
            return None
        interval = f"{found['auc_low']:.3f} to {found['auc_high']:.3f}"
        return Cell(f"{found['auc']:.3f}", (interval, f"{found[count]:,} {noun}"))

    return [
        (name, *(cell(found.get(part)) for part in (schema.OVERALL, *schema.BUCKETS)))
        for name, found in by_name.items()
    ]


def generated_arm(inputs: ReportInputs) -> str:
    """The arm of the generator's data that samples and plots are about, of those that hold synthetic rows."""
    return main_arm(tuple(inputs.fused))


def bucket_counts(inputs: ReportInputs) -> pd.DataFrame:
    """Rows by bucket of their item: real and synthetic rows kept in the generator's arm, and those proposed."""
    proposed = inputs.synthetic[ITEM_ID].map(inputs.items.set_index(ITEM_ID)["bucket"]).value_counts()
    by_bucket = inputs.kept.get(generated_arm(inputs), {}).get("by_bucket")
    kept = pd.DataFrame(by_bucket, index=[SOURCE_REAL, SOURCE_SYNTHETIC]).T
    counts = {"real": kept[SOURCE_REAL], "synthetic, proposed": proposed, "synthetic, kept": kept[SOURCE_SYNTHETIC]}
    return pd.DataFrame(counts, index=list(schema.BUCKETS)).fillna(0).astype("int64")


def bucket_kept_table(inputs: ReportInputs) -> Table:
    """Where the synthetic rows go, by bucket."""
    items = inputs.items["bucket"]
    rows = [
        (name, int((items == name).sum()), real, proposed, kept, kept / proposed if proposed else None)
        for name, real, proposed, kept in bucket_counts(inputs).itertuples(name=None)
    ]
    return view("bucket_kept", rows, arm=generated_arm(inputs) or "without synthetic rows")


def sample_table(inputs: ReportInputs) -> Table:
    """A seeded sample of synthetic rows: last titles of the user, generated title, confidence, kept or not."""
    rule, keys = inputs.params.fuse.rule, [USER_ID, ITEM_ID]
    rows = inputs.synthetic.sort_values([USER_ID, "rank"], ignore_index=True)
    rng = np.random.default_rng(inputs.params.seed)
    chosen = np.sort(rng.permutation(len(rows))[: inputs.params.report.samples])
    scored = inputs.scored[inputs.scored["source"] == SOURCE_SYNTHETIC]
    sample = rows.iloc[chosen].merge(scored[[*keys, "p_yes"]].drop_duplicates(keys), on=keys, how="left")
    items = inputs.items.set_index(ITEM_ID)
    titles = items["title"].astype(str).to_dict()
    sample = sample.join(items[["bucket", "n_train"]], on=ITEM_ID)
    other_order = rule.confidence == "logprob"
    fused = inputs.fused.get(generated_arm(inputs), inputs.scored.head(0))
    kept = set(fused.loc[fused["source"] == SOURCE_SYNTHETIC, keys].itertuples(index=False, name=None))
    history = inputs.train[inputs.train[USER_ID].isin(sample[USER_ID])].sort_values([USER_ID, schema.POSITION])
    last = history.groupby(USER_ID)[ITEM_ID].agg(lambda ids: list(ids)[-HISTORY:]).to_dict()
    cells = []
    for row in sample.to_dict(orient="records"):
        was_kept = (row[USER_ID], row[ITEM_ID]) in kept
        seen = [words.clip(titles.get(item, item)) for item in last.get(row[USER_ID], [])]
        outcome, tone = ("kept", "better") if was_kept else ("dropped", "muted")
        about = [" → ".join(seen) or "–", words.clip(titles.get(row[ITEM_ID], row[ITEM_ID])), str(row["bucket"])]
        about += [words.signed(row["logprob"], 2)] if other_order else []
        cells.append((*about, row["p_yes"], Cell(outcome, tone=tone, number=False)))
    order = " Confidence: the generator's log probability; it orders the pairs." if other_order else ""
    columns, selection = [("Confidence", ".2f")] if other_order else [], rule.in_words
    told = {"shown": len(cells), "rows_of": len(rows), "seed": inputs.params.seed}
    return view("sample", cells, columns=columns, selection=selection, order=order, **told)


def stage_facts(inputs: ReportInputs) -> dict[str, list[Json]]:
    """Runtime facts by stage; of a matrix stage the combinations that were run for this report."""
    runs = {"-".join(run) for run in inputs.metrics}
    ran: dict[str, set[str]] = {
        "controls": set(inputs.params.controls.names),
        "score": set(inputs.params.score.sources),
        "fuse": set(inputs.arms),
        "train_i2i": runs,
        "evaluate": runs,
        "evaluate_generator": set(inputs.params.evaluate_generator.arms),
    }
    facts: dict[str, list[Json]] = defaultdict(list)
    for name, entry in inputs.runtime.items():
        stage, _, combination = name.partition("@")
        if stage != OWN_STAGE and combination in ran.get(stage, {combination}):
            facts[stage].append(entry)
    return dict(facts)


def _number(entry: Json, key: str) -> float:
    value = entry.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _rates(entries: list[Json]) -> str | None:
    """What a stage that ran once did per second."""
    entry = entries[0] if len(entries) == 1 else {}
    rates = {key: _number(entry, key) for key in entry if key.endswith("_per_s")}
    named = ((key.removesuffix("_per_s").replace("_", " "), rate) for key, rate in rates.items() if rate > 0)
    return ", ".join(f"{rate:,.0f} {name}/s" for name, rate in named) or None


def _words(entries: list[Json], key: str) -> str | None:
    return ", ".join(sorted({str(entry[key]) for entry in entries if entry.get(key)})) or None


def runtime_table(inputs: ReportInputs) -> Table:
    """Minutes, peak memory, device and precision of each stage, as far as measured on this machine."""
    facts = stage_facts(inputs)
    rows: list[tuple[Any, ...]] = []
    for stage in dict.fromkeys((*STAGES, *facts)):
        entries = facts.get(stage, [])
        if not entries:
            missing = words.NOT_MEASURED if stage != OWN_STAGE else "this page"
            rows.append((stage, Cell(missing, tone="muted"), None, None, None, None))
            continue
        minutes, memory = _minutes(entries), _peak_gb(entries, "peak_memory_mb")
        device, runs = (_peak_gb(entries, "peak_device_memory_mb"), (f"{len(entries)} runs",) * (len(entries) > 1))
        time = Cell(f"{minutes:.1f}" if minutes >= 0.05 else "< 0.1", runs)
        space = Cell(f"{memory:.2f}", (f"device {device:.2f}",) * (device > 0))
        rows.append((stage, time, space, *(_words(entries, key) for key in ("device", "precision")), _rates(entries)))
    return view("runtime", rows)


def _minutes(entries: list[Json]) -> float:
    return sum(_number(entry, "seconds") for entry in entries) / 60


def _peak_gb(entries: list[Json], key: str) -> float:
    return max((_number(entry, key) for entry in entries), default=0.0) / 1024


def cost(inputs: ReportInputs) -> dict[str, Any]:
    """Minutes and peak memory of all stages but the report itself, and how many of them that covers."""
    facts = stage_facts(inputs)
    entries = [entry for found in facts.values() for entry in found]
    stages = STAGES.keys() - {OWN_STAGE}
    of_llm = [entry for entry in entries if entry.get("precision")]
    return {
        "minutes": _minutes(entries),
        "memory_gb": _peak_gb(entries, "peak_memory_mb"),
        "measured": len(facts.keys() & stages),
        "stages": len(stages),
        "device": _words(of_llm, "device"),
    }


def _first_sample(entry: Json) -> str | None:
    """The first row that broke an expectation, or what was found instead."""
    first = next(iter(entry.get("sample") or []), None)
    if isinstance(first, dict):
        first = ", ".join(f"{name} {value}" for name, value in first.items())
    return None if first is None else words.clip(str(first))


def validation_table(inputs: ReportInputs) -> Table | None:
    """Every expectation that the data broke; None if it broke none."""
    failed = [entry for entry in inputs.validation.get("expectations", []) if not entry.get("success", True)]
    rows = []
    for entry in failed:
        severity, count = str(entry.get("severity", "–")), entry.get("unexpected_count") or None
        share = f"{_number(entry, 'unexpected_percent'):.2f} %" if count else None
        tone = "worse" if severity == "error" else ""
        names = (str(entry.get(key, "–")) for key in ("table", "name"))
        rows.append((Cell(severity, tone=tone, number=False), *names, count, share, _first_sample(entry)))
    return view("validation", rows) if failed else None


def data_table(inputs: ReportInputs) -> Table:
    """Size of the data after the split."""
    n_users, n_items, rows = inputs.train[USER_ID].nunique(), len(inputs.items), inputs.split_rows
    density = rows["train"] / (n_users * n_items) if n_users and n_items else 0.0
    entries = {
        "Users in train": n_users,
        "Items in the catalogue": n_items,
        **{f"Interactions in {part}": n for part, n in rows.items()},
        "Density of train": f"{100 * density:.3f} %",
        "Training interactions per item (median)": f"{inputs.items['n_train'].median():g}",
        "Items never seen in train": int((inputs.items["n_train"] == 0).sum()),
    }
    return view("data", entries.items())


def comparison_tables(content: Json) -> tuple[Table, ...]:
    """Old and new value of every metric of reports/comparison.json, and the parameters that differ."""
    rows = []
    for row in content["rows"]:
        interval = words.interval_of(row) if "outcome" in row else None
        difference = difference_cell(interval) if interval else words.signed(row["new"] - row["old"])
        metric = f"{words.metric_name(row['metric'])}, {words.slice_name(row['slice'])}"
        rows.append((words.run_name(row["model"], row["arm"]), metric, row["old"], row["new"], difference))
    metrics = view("comparison", rows, against=content["against"])
    changes = [tuple(str(change[key]) for key in ("key", "old", "new")) for change in content["params"]]
    return (metrics, view("changes", changes)) if changes else (metrics,)
