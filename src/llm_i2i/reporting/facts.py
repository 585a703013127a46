"""The tables of facts: what was added, samples, cost, data, provenance."""

from collections import defaultdict
from typing import Any

import numpy as np

from llm_i2i import schema
from llm_i2i.reporting.collect import Json, ReportInputs
from llm_i2i.reporting.results import AUGMENTED_ARM
from llm_i2i.reporting.tables import NOT_MEASURED, Cell, Group, Table, name_cell
from llm_i2i.reporting.verdicts import CONTROL_ARMS

STAGES = (
    "validate",
    "split",
    "tag",
    "identify",
    "base_model",
    "train_generator",
    "mine_negatives",
    "train_discriminator",
    "synthesize",
    "controls",
    "score",
    "fuse",
    "train_i2i",
    "evaluate",
)
LLM_STAGES = ("train_generator", "train_discriminator", "synthesize", "score")
TITLE_LENGTH = 80  # characters of a title that are shown
HISTORY = 3  # last items of a user that a sample shows


def augmented_arm(inputs: ReportInputs) -> str:
    """The arm that samples and plots are about: `llm_i2i`, else the first with the LLM's rows, else ""."""
    llm_arms = [arm for arm in inputs.fused if arm not in CONTROL_ARMS]
    return AUGMENTED_ARM if AUGMENTED_ARM in llm_arms else next(iter(llm_arms), "")


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def kept_table(inputs: ReportInputs) -> Table:
    """Rows in and kept by arm and source."""
    rows = []
    for arm in inputs.arms:
        counts = inputs.kept[arm]
        for source in (schema.SOURCE_REAL, schema.SOURCE_SYNTHETIC):
            into, kept = int(counts.get(f"{source}_in", 0)), int(counts.get(f"{source}_kept", 0))
            share = Cell(_percent(kept, into))
            rows.append((name_cell(arm), name_cell(source), Cell(f"{into:,}"), Cell(f"{kept:,}"), share))
    return Table("Rows by arm and source, before and after the filter.", ("Arm", "Source", "In", "Kept", "Share kept"),
                 (Group("", tuple(rows)),))  # fmt: skip


def accepted_table(inputs: ReportInputs) -> Table | None:
    """Share of scored pairs that the filter accepts, by source and bucket; None in quantile mode.

    Before the cap a user: what the discriminator alone decides. Real pairs have a threshold of their own.
    """
    fuse, rule = inputs.params.fuse, inputs.params.fuse.rule
    if rule.mode != "threshold":
        return None
    bucket = inputs.scored[schema.ITEM_ID].map(inputs.items.set_index(schema.ITEM_ID)["bucket"])
    p_yes = inputs.scored["p_yes"].to_numpy()
    rows = []
    for source in dict.fromkeys((schema.SOURCE_REAL, schema.SOURCE_SYNTHETIC, *inputs.scored["source"])):
        of_source = (inputs.scored["source"] == source).to_numpy()
        for threshold in dict.fromkeys((rule.threshold, *((fuse.real_threshold,) * (source == "real")))):
            accepted = p_yes >= np.float32(threshold)
            cells = [Cell(_percent((accepted & of_source).sum(), of_source.sum()), (f"{of_source.sum():,}",))]
            for name in schema.BUCKETS:
                inside = of_source & (bucket == name).to_numpy()
                cells.append(Cell(_percent((accepted & inside).sum(), inside.sum()), (f"{inside.sum():,}",)))
            rows.append((name_cell(source), Cell(f"{threshold:g}"), *cells))
    return Table(
        "Share of scored pairs at or above a threshold of p_yes, by bucket of the item; under it the number of "
        "pairs. A filter that keeps many real pairs and few others tells them apart.",
        ("Source", "p_yes from", "All", *(name.capitalize() for name in schema.BUCKETS)),
        (Group("", tuple(rows)),),
    )


def auc_table(inputs: ReportInputs) -> Table | None:
    """Held-out AUC by kind of negatives and bucket of the real item; None where it was not measured."""
    by_kind = (inputs.held_out or {}).get("auc_by_negatives")
    if not by_kind:
        return None
    names = ("overall", *schema.BUCKETS)
    rows = []
    for kind, found in by_kind.items():
        cells = [
            Cell(
                f"{found[name]['auc']:.3f}",
                (
                    f"{found[name]['auc_low']:.3f} to {found[name]['auc_high']:.3f}",
                    f"{found[name]['n_yes']:,} real",
                ),
            )
            if name in found
            else Cell("–", tone="muted")
            for name in names
        ]
        rows.append((name_cell(kind), *cells))
    trained = (inputs.held_out or {}).get("negatives", "random")
    return Table(
        f"Held-out AUC by kind of negatives (trained against: {trained}) and bucket of the real item, with 95 % "
        "bootstrap interval over users. Random negatives can be told apart by popularity alone; popular ones less so.",
        ("Negatives", "All", *(name.capitalize() for name in schema.BUCKETS)),
        (Group("", tuple(rows)),),
    )


def bucket_counts(inputs: ReportInputs) -> dict[str, dict[str, int]]:
    """Rows by bucket of their item: real and synthetic rows kept in the augmented arm, and those proposed."""
    buckets = inputs.items.set_index(schema.ITEM_ID)["bucket"]
    counts: dict[str, dict[str, int]] = {}
    by_bucket = inputs.kept.get(augmented_arm(inputs), {}).get("by_bucket", {})
    proposed = inputs.synthetic[schema.ITEM_ID].map(buckets).value_counts()
    counts["real"] = {
        name: int(by_bucket.get(name, {}).get(schema.SOURCE_REAL, 0)) for name in schema.BUCKETS
    }
    counts["proposed"] = {name: int(proposed.get(name, 0)) for name in schema.BUCKETS}
    counts["kept"] = {
        name: int(by_bucket.get(name, {}).get(schema.SOURCE_SYNTHETIC, 0)) for name in schema.BUCKETS
    }
    return counts


def bucket_shares(counts: dict[str, dict[str, int]]) -> dict[str, dict[str, float]]:
    """Counts by bucket as shares; sources without rows are left out."""
    labels = {"real": "real", "proposed": "synthetic, proposed", "kept": "synthetic, kept"}
    return {
        labels[source]: {name: count / sum(by_bucket.values()) for name, count in by_bucket.items()}
        for source, by_bucket in counts.items()
        if sum(by_bucket.values())
    }


def bucket_kept_table(inputs: ReportInputs) -> Table:
    """Where the synthetic rows go, by bucket."""
    counts = bucket_counts(inputs)
    rows = tuple(
        (
            name_cell(name),
            Cell(f"{int((inputs.items['bucket'] == name).sum()):,}"),
            Cell(f"{counts['real'][name]:,}"),
            Cell(f"{counts['proposed'][name]:,}"),
            Cell(f"{counts['kept'][name]:,}"),
            Cell(_percent(counts["kept"][name], counts["proposed"][name])),
        )
        for name in schema.BUCKETS
    )
    return Table(
        f"Arm {augmented_arm(inputs) or 'without synthetic rows'}, by bucket of the item.",
        ("Bucket", "Items", "Real rows", "Proposed", "Kept", "Share kept"),
        (Group("", rows),),
    )


def _clip(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def sample_table(inputs: ReportInputs) -> Table:
    """A seeded sample of synthetic rows: last titles of the user, generated title, p_yes, kept or not."""
    rows = inputs.synthetic.sort_values([schema.USER_ID, "rank"], ignore_index=True)
    rng = np.random.default_rng(inputs.params.seed)
    chosen = np.sort(rng.permutation(len(rows))[: inputs.params.report.samples])
    keys = [schema.USER_ID, schema.ITEM_ID]
    scored = inputs.scored[inputs.scored["source"] == schema.SOURCE_SYNTHETIC]
    sample = rows.iloc[chosen].merge(scored[[*keys, "p_yes"]].drop_duplicates(keys), on=keys, how="left")
    kept = _kept_keys(inputs)
    titles = dict(zip(inputs.items[schema.ITEM_ID], inputs.items["title"].astype(str), strict=True))
    buckets = dict(zip(inputs.items[schema.ITEM_ID], inputs.items["bucket"], strict=True))
    ordered = inputs.train.sort_values([schema.USER_ID, schema.POSITION])
    history = ordered[ordered[schema.USER_ID].isin(sample[schema.USER_ID])]
    last = history.groupby(schema.USER_ID)[schema.ITEM_ID].agg(lambda ids: list(ids)[-HISTORY:]).to_dict()
    cells = []
    for user, item, p_yes in zip(
        sample[schema.USER_ID], sample[schema.ITEM_ID], sample["p_yes"], strict=True
    ):
        was_kept = (user, item) in kept
        cells.append(
            (
                name_cell(" → ".join(_clip(titles.get(seen, seen)) for seen in last.get(user, [])) or "–"),
                name_cell(_clip(titles.get(item, item))),
                name_cell(str(buckets.get(item, "–"))),
                Cell("–" if np.isnan(p_yes) else f"{p_yes:.3f}"),
                Cell("kept" if was_kept else "dropped", tone="better" if was_kept else "muted", number=False),
            )
        )
    return Table(
        f"{len(cells)} of {len(rows):,} synthetic interactions, drawn with seed {inputs.params.seed}, not chosen by "
        "hand. Dropped: not confident enough, or beyond the "
        f"{inputs.params.fuse.rule.max_synthetic_per_user} rows that a user may add.",
        (f"Last {HISTORY} titles of the user", "Generated title", "Bucket", "p_yes", "Filter"),
        (Group("", tuple(cells)),),
        wide=True,
    )


def _kept_keys(inputs: ReportInputs) -> set[tuple[str, str]]:
    fused = inputs.fused.get(augmented_arm(inputs))
    if fused is None:
        return set()
    rows = fused[fused["source"] == schema.SOURCE_SYNTHETIC]
    return set(zip(rows[schema.USER_ID], rows[schema.ITEM_ID], strict=True))


def stage_facts(inputs: ReportInputs) -> dict[str, list[Json]]:
    """Runtime facts by stage; a matrix stage has one entry a combination that this report is about."""
    shown = {"", *schema.CONTROLS, *inputs.arms, *(f"{model}-{arm}" for model, arm in inputs.metrics)}
    facts: dict[str, list[Json]] = defaultdict(list)
    for name, entry in inputs.runtime.items():
        stage, _, combination = name.partition("@")
        if combination in shown and stage != "report":  # a report cannot know its own cost yet
            facts[stage].append(entry)
    return dict(facts)


def _number(entry: Json, key: str) -> float:
    value = entry.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _rates(entries: list[Json]) -> str:
    rates = [
        f"{_number(entry, key):,.0f} {key.removesuffix('_per_s').replace('_', ' ')}/s"
        for entry in entries
        for key in entry
        if key.endswith("_per_s") and _number(entry, key) > 0
    ]
    return ", ".join(rates) if len(entries) == 1 else ""


def _words(entries: list[Json], key: str) -> str:
    return ", ".join(sorted({str(entry[key]) for entry in entries if entry.get(key)})) or "–"


def _memory_cell(entries: list[Json]) -> Cell:
    """Peak memory of the process, that of the accelerator under it."""
    device = max(_number(entry, "peak_device_memory_mb") for entry in entries)
    notes = (f"device {device / 1024:.2f}",) if device else ()
    return Cell(f"{max(_number(entry, 'peak_memory_mb') for entry in entries) / 1024:.2f}", notes)


def runtime_table(inputs: ReportInputs) -> Table:
    """Minutes, peak memory, device and precision of each stage, as far as measured on this machine."""
    facts = stage_facts(inputs)
    rows = []
    for stage in dict.fromkeys((*STAGES, *facts)):
        entries = facts.get(stage, [])
        if not entries:
            rows.append((name_cell(stage), Cell(NOT_MEASURED, tone="muted"), *(Cell("–", tone="muted"),) * 4))
            continue
        count = (f"{len(entries)} runs",) if len(entries) > 1 else ()
        minutes = sum(_number(entry, "seconds") for entry in entries) / 60
        rows.append((
            name_cell(stage),
            Cell(f"{minutes:.1f}" if minutes >= 0.05 else "< 0.1", count),
            _memory_cell(entries),
            name_cell(_words(entries, "device")),
            name_cell(_words(entries, "precision")),
            Cell(_rates(entries) or "–"),
        ))  # fmt: skip
    return Table(
        "Cost of each stage. A stage whose result came out of the cache was not measured here.",
        ("Stage", "Minutes", "Peak memory (GB)", "Device", "Precision", "Rate"),
        (Group("", tuple(rows)),),
    )


def cost(inputs: ReportInputs) -> dict[str, Any]:
    """Minutes and peak memory in total, and how many stages that covers."""
    facts = stage_facts(inputs)
    entries = [entry for found in facts.values() for entry in found]
    return {
        "minutes": sum(_number(entry, "seconds") for entry in entries) / 60,
        "memory_gb": max((_number(entry, "peak_memory_mb") for entry in entries), default=0.0) / 1024,
        "measured": len(set(facts) & set(STAGES)),
        "stages": len(STAGES),
        "device": _words([entry for name in LLM_STAGES for entry in facts.get(name, [])], "device"),
    }


def _first_sample(entry: Json) -> str:
    """The first row that broke an expectation, or what was found instead."""
    first = next(iter(entry.get("sample") or []), None)
    if isinstance(first, dict):
        first = ", ".join(f"{name} {value}" for name, value in first.items())
    return "–" if first is None else _clip(str(first))


def validation_table(inputs: ReportInputs) -> Table | None:
    """Every expectation that the data broke; None if it broke none."""
    failed = [entry for entry in inputs.validation.get("expectations", []) if not entry.get("success", True)]
    if not failed:
        return None
    rows = tuple(
        (
            name_cell(str(entry.get("severity", "–")), "worse" if entry.get("severity") == "error" else ""),
            name_cell(str(entry.get("table", "–"))),
            name_cell(str(entry.get("name", "–"))),
            Cell(f"{_number(entry, 'unexpected_count'):,.0f}" if entry.get("unexpected_count") else "–"),
            Cell(f"{_number(entry, 'unexpected_percent'):.2f} %" if entry.get("unexpected_count") else "–"),
            name_cell(_first_sample(entry)),
        )
        for entry in failed
    )
    header = ("Severity", "Table", "Expectation", "Rows", "Share", "First found")
    return Table("Expectations that the raw data broke.", header, (Group("", rows),), wide=True)


def data_table(inputs: ReportInputs) -> Table:
    """Size of the data after the split."""
    n_users, n_items = inputs.train[schema.USER_ID].nunique(), len(inputs.items)
    n_train = inputs.split_rows["train"]
    density = n_train / (n_users * n_items) if n_users and n_items else 0.0
    entries = {
        "Users in train": f"{n_users:,}",
        "Items in the catalogue": f"{n_items:,}",
        "Interactions in train": f"{n_train:,}",
        "Interactions in valid": f"{inputs.split_rows['valid']:,}",
        "Interactions in test": f"{inputs.split_rows['test']:,}",
        "Density of train": f"{100 * density:.3f} %",
        "Training interactions an item (median)": f"{inputs.items['n_train'].median():g}",
        "Items never seen in train": f"{int((inputs.items['n_train'] == 0).sum()):,}",
    }
    return facts_table("The data after the split.", entries)


def facts_table(caption: str, entries: dict[str, str]) -> Table:
    """A table of names and values."""
    rows = tuple((name_cell(name), Cell(value)) for name, value in entries.items())
    return Table(caption, ("What", "Value"), (Group("", rows),))
