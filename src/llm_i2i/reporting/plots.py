"""Plots of results, data and LLM: each function takes values and returns a drawn `Plot`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from llm_i2i import schema
from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting.svg import GRID, INK, MUTED, SERIES, Mark, Plot, draw_plot
from llm_i2i.reporting.words import clip, first_upper, percent, signed

HISTOGRAM_BINS = 20
MARKS = 40  # values of a long line that the page tells
LINE_STYLES = ("-", "--", ":", "-.")  # besides colour, so that colour alone never tells
MARKERS = "os^Dv"
_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}" if value == round(value) else f"{value:g}")
_PER_CENT = FuncFormatter(lambda value, _: f"{100 * value:.0f} %")


def _spread(n: int) -> list[int]:
    """Places from the first to the last of n, at most `MARKS` of them, evenly apart."""
    return sorted({round(place) for place in np.linspace(0, n - 1, min(n, MARKS))})


def _legend_above(axes: Any, columns: int) -> None:
    """Put the legend above the axes, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, handlelength=1.8)


def plot_differences(
    rows: dict[str, dict[str, Interval]], *, metric: str, against: str, name: str, standalone: bool = False,
    row_height: float | None = None,
) -> Plot:  # fmt: skip
    """Forest plot: paired differences with 95 % intervals.

    Args:
        rows: By label of model and arm, from top to bottom: interval by slice; not empty.
        metric: Name of the metric, such as "Recall@10".
        against: What they are differences to, such as "arm real".
        name: Name of the plot.
        standalone: Whether it becomes a file of its own.
        row_height: Of each row, in inches; by default for two lines of text.
    """
    slices = list(dict.fromkeys(part for found in rows.values() for part in found))
    told = {
        (label, part): f"{label.replace(chr(10), ', ')}, {part}: {signed(i.mean)} ({signed(i.low)} to {signed(i.high)})"
        for label, found in rows.items()
        for part, i in found.items()
    }

    def draw(axes: Any) -> Iterator[Mark]:
        axes.grid(visible=False, axis="y")
        axes.axvline(0.0, color=INK, linewidth=0.9)
        for place, part in enumerate(slices):
            rise = (place - (len(slices) - 1) / 2) * 0.26
            points = [(rows[label][part], row + rise, told[label, part])
                      for row, label in enumerate(rows) if part in rows[label]]  # fmt: skip
            ends = [[i.mean - i.low for i, *_ in points], [i.high - i.mean for i, *_ in points]]
            axes.errorbar(
                [i.mean for i, *_ in points], [y for _, y, _ in points],
                xerr=np.maximum(ends, 0.0), fmt=MARKERS[place % 5], color=SERIES[place % len(SERIES)],
                markersize=4.5, capsize=2.5, linewidth=1.4, label=part,
            )  # fmt: skip
            yield from ((i.mean, y, text) for i, y, text in points)
        axes.set_yticks(range(len(rows)), list(rows), color=INK)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(3))  # long labels of rows leave little width
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.3f}" if value else "0"))
        axes.set(ylim=(len(rows) - 0.5, -0.5))
        axes.set_xlabel(f"difference in {metric} to {against}", loc="right")
        _legend_above(axes, len(slices))

    words = " ".join(f"{text}." for text in told.values())
    return draw_plot(
        draw, name, kind="differences", metric=metric, against=against, words=words, standalone=standalone,
        height=1.15 + (row_height or 0.3 + 0.16 * len(slices)) * len(rows),
    )  # fmt: skip


def plot_points(
    lines: dict[str, list[tuple[float, float]]], *, constants: dict[str, float], ticks: list[str], x_label: str,
    metric: str, part: str, name: str,
) -> Plot:  # fmt: skip
    """Values from point to point of an experiment, as a file of its own.

    Args:
        lines: (x, value) of each point, by model and arm.
        constants: Values that are the same at every point, by model and arm.
        ticks: Labels of x = 0, 1, ... where the points have no number of their own; else empty.
        x_label: Name of the horizontal axis.
        metric: Name of the metric, the vertical axis.
        part: Name of the slice.
        name: Name of the plot.
    """

    def draw(axes: Any) -> Iterator[Mark]:
        for place, (label, dots) in enumerate(lines.items()):
            xs, ys = zip(*sorted(dots), strict=True)
            axes.plot(xs, ys, MARKERS[place % 5] + "-", color=SERIES[place % len(SERIES)], markersize=4.5, label=label)
        for place, (label, value) in enumerate(constants.items()):
            axes.axhline(value, color=INK, linewidth=1.0, linestyle=LINE_STYLES[1 + place % 3], label=label)
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks, rotation=20, ha="right")
        axes.set(xlabel=x_label, ylabel=metric)
        _legend_above(axes, 2)
        yield from ()

    words = " ".join(
        f"{label}: " + ", ".join(f"{y:.4f} at {x:g}" for x, y in sorted(dots)) + "." for label, dots in lines.items()
    )
    height = 2.6 + 0.12 * (len(lines) + len(constants))
    return draw_plot(draw, name, kind="points", metric=metric, part=part, words=words, height=height, standalone=True)


def plot_long_tail(items: pd.DataFrame) -> Plot:
    """Training interactions by item (schema.ITEMS), most frequent first, with the buckets."""
    items = items.sort_values("n_train", ascending=False, kind="stable", ignore_index=True)
    counts = items["n_train"].to_numpy()
    rank = np.arange(1, len(counts) + 1)
    parts = {name: items.loc[items["bucket"] == name, "n_train"] for name in schema.BUCKETS}
    total = max(int(counts.sum()), 1)

    def draw(axes: Any) -> Iterator[Mark]:
        axes.fill_between(rank, counts, step="mid", color=SERIES[0], alpha=0.18, linewidth=0)
        axes.step(rank, counts, where="mid", color=SERIES[0])
        axes.set_yscale("symlog", linthresh=1)
        axes.set(xlim=(1, max(len(counts), 2)), ylim=(0, None))
        axes.set(xlabel="items, most frequent first", ylabel="training interactions")
        place = 0
        for name, size in ((name, len(part)) for name, part in parts.items()):
            if size and place:
                axes.axvline(place + 0.5, color=MUTED, linewidth=0.8, linestyle=":")
            if size >= max(0.06 * len(counts), 1):
                above = axes.get_xaxis_transform()
                axes.text(place + size / 2, 1.02, name, ha="center", color=MUTED, transform=above)
            place += size
        axes.xaxis.set_major_formatter(_THOUSANDS)
        axes.yaxis.set_major_formatter(_THOUSANDS)
        axes.grid(color=GRID)
        for at in _spread(len(items)):
            item = items.iloc[at]
            yield at + 1, counts[at], f"{clip(item['title'])}: {counts[at]:,}, {item['bucket']}, no. {at + 1:,}"

    words = "; ".join(
        f"{name}: {len(part):,} items, {100 * part.sum() / total:.1f} % of interactions" for name, part in parts.items()
    )
    return draw_plot(draw, "long-tail", words=f"{first_upper(words)}.")


def plot_bucket_counts(counts: pd.DataFrame) -> Plot:
    """Where rows go: count by bucket (index) and source (column), one group of bars per source that has rows."""
    counts = counts.loc[list(schema.BUCKETS)]
    shares = {name: (column / column.sum()).to_dict() for name, column in counts.items() if column.sum()}

    def draw(axes: Any) -> Iterator[Mark]:
        axes.grid(visible=False, axis="x")
        width = 0.8 / max(len(shares), 1)
        for index, (label, by_bucket) in enumerate(shares.items()):
            heights = list(by_bucket.values())
            at = np.arange(len(schema.BUCKETS)) + (index - (len(shares) - 1) / 2) * width
            bars = axes.bar(at, heights, width * 0.92, color=SERIES[index % len(SERIES)], label=label)
            told = (
                f"{label}, {name}: {n:,} rows, {percent(n / counts[label].sum())}" for name, n in counts[label].items()
            )
            yield from zip(at, heights, told, strict=True)
            axes.bar_label(bars, [f"{100 * height:.0f}" for height in heights], fontsize=7.5, color=MUTED)
        axes.set_xticks(range(len(schema.BUCKETS)), schema.BUCKETS, color=INK)
        axes.tick_params(axis="x", length=0)
        axes.yaxis.set_major_formatter(_PER_CENT)
        axes.set_ylabel("share of rows")
        _legend_above(axes, 3)

    words = ". ".join(
        f"{label}: " + ", ".join(f"{name} {percent(share)}" for name, share in by_bucket.items())
        for label, by_bucket in shares.items()
    )
    return draw_plot(draw, "buckets", words=f"{words}.")


def plot_p_yes(scored: pd.DataFrame, *, threshold: float | None) -> Plot:
    """Histogram of p_yes (schema.SCORED), real against synthetic rows; None = no threshold of p_yes decides."""
    bins = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    groups = [
        (source, scored.loc[scored["source"] == source, "p_yes"].to_numpy(dtype=np.float64))
        for source in (schema.SOURCE_REAL, schema.SOURCE_SYNTHETIC)
    ]

    def draw(axes: Any) -> Iterator[Mark]:
        for place, (source, values) in enumerate(groups):
            shares, look = np.histogram(values, bins)[0] / max(len(values), 1), LINE_STYLES[place]
            axes.stairs(shares, bins, fill=True, color=SERIES[place], alpha=0.18)
            axes.stairs(shares, bins, color=SERIES[place], linewidth=1.6, linestyle=look, label=f"{source} rows")
            for low, share in zip(bins[:-1], shares, strict=True):
                yield low + 0.5 / HISTOGRAM_BINS, share, f"{source}, p_yes from {low:.2f}: {percent(share)}"
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.0, linestyle=":", label=f"threshold {threshold:g}")
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel="calibrated p_yes", ylabel="share of rows")
        axes.yaxis.set_major_formatter(_PER_CENT)
        _legend_above(axes, 3)

    medians = ", ".join(f"{source} {np.median(values):.2f}" for source, values in groups if len(values))
    counts = ", ".join(f"{len(values):,} {source}" for source, values in groups)
    return draw_plot(draw, "p-yes", counts=counts, words=f"Medians: {medians or 'none'}.")


def plot_reliability(bins: list[dict[str, float]]) -> Plot:
    """Reliability curve of held-out pairs by bin ({"n", "mean_p_yes", "share_yes"}); empty bins are skipped."""
    filled = [entry for entry in bins if entry["n"] > 0]
    stated, observed, n = ([entry[key] for entry in filled] for key in ("mean_p_yes", "share_yes", "n"))
    told = [f"{x:.2f} is {y:.2f} ({count:.0f} pairs)" for x, y, count in zip(stated, observed, n, strict=True)]

    def draw(axes: Any) -> Iterator[Mark]:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle="--", label="perfect calibration")
        axes.plot(stated, observed, color=SERIES[0], linewidth=1.2, label="held-out pairs (area: count)")
        areas = [8.0 + 70.0 * count / max(n) for count in n]
        axes.scatter(stated, observed, s=areas, color=SERIES[0], zorder=3)
        axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="mean p_yes of the bin", ylabel="share that is real")
        _legend_above(axes, 2)
        yield from zip(stated, observed, told, strict=True)

    return draw_plot(draw, "reliability", words=f"Predicted against observed: {'; '.join(told) or 'no pairs'}.")


def plot_training(logs: dict[str, pd.DataFrame], *, column: str, label: str, name: str) -> Plot:
    """A logged value by optimizer step, one line per training, with its running mean.

    Args:
        logs: By training: table with `step` and `column`; not empty.
        column: What to draw, such as "loss" or "tokens_per_s".
        label: Name of the vertical axis.
        name: Name of the plot.
    """
    windows = {name: max(len(log) // 10, 1) for name, log in logs.items()}
    smooth = {key: log[column].rolling(windows[key], min_periods=1).mean() for key, log in logs.items()}

    def draw(axes: Any) -> Iterator[Mark]:
        for place, (training, log) in enumerate(logs.items()):
            colour, style = SERIES[place % len(SERIES)], LINE_STYLES[place % 4]
            axes.plot(log["step"], log[column], color=colour, linewidth=0.8, alpha=0.35)
            axes.plot(log["step"], smooth[training], color=colour, linestyle=style, label=training)
            for at in _spread(len(log)):
                step, value = log["step"].iloc[at], smooth[training].iloc[at]
                yield step, value, f"{training}, step {step:,}: {value:.4g}"
        if column != "loss":  # a rate has a meaningful zero, a loss has not
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(_THOUSANDS)
        axes.set(xlabel="optimizer step", ylabel=label)
        if len(logs) > 1:
            _legend_above(axes, 2)

    ends = "; ".join(
        f"{training} from {values.iloc[0]:.3g} to {values.iloc[-1]:.3g} in {len(values)} steps"
        for training, values in smooth.items()
        if len(values)
    )
    return draw_plot(draw, name, kind="training", label=first_upper(label), words=f"{ends or 'no steps'}.")
