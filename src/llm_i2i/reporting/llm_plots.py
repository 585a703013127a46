"""Plots of the LLM part: confidence, reliability, training."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from llm_i2i import schema
from llm_i2i.reporting.plots import Plot, draw_plot, legend_above, thousands
from llm_i2i.reporting.svg import INK, MUTED, SERIES

HISTOGRAM_BINS = 20
LINE_STYLES = ("-", "--", ":", "-.")  # besides colour, so that colour alone never tells


def plot_p_yes(scored: pd.DataFrame, *, threshold: float | None) -> Plot:
    """Histogram of the discriminator's confidence, real against synthetic rows.

    Args:
        scored: schema.SCORED.
        threshold: Confidence from which synthetic rows are kept; None in quantile mode.

    Returns:
        The plot.
    """
    bins = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    groups = [
        (source, scored.loc[scored["source"] == source, "p_yes"].to_numpy(dtype=np.float64))
        for source in (schema.SOURCE_REAL, schema.SOURCE_SYNTHETIC)
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (source, values) in enumerate(groups):
            shares = np.histogram(values, bins)[0] / max(len(values), 1)
            axes.stairs(shares, bins, fill=True, color=SERIES[place], alpha=0.18)
            axes.stairs(
                shares,
                bins,
                color=SERIES[place],
                linewidth=1.6,
                linestyle=LINE_STYLES[place],
                label=f"{source} rows",
            )
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.0, linestyle=":", label=f"threshold {threshold:g}")
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("calibrated p_yes")
        axes.set_ylabel("share of rows")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        legend_above(axes, 3)

    medians = ", ".join(f"{source} {np.median(values):.2f}" for source, values in groups if len(values))
    counts = ", ".join(f"{len(values):,} {source}" for source, values in groups)
    return draw_plot(
        draw,
        name="p-yes",
        title="Confidence of the discriminator",
        alt=f"Histogram of p_yes. Medians: {medians or 'none'}.",
        caption=f"How sure the discriminator is that a user would take an item: {counts} rows.",
    )


def plot_reliability(bins: list[dict[str, float]]) -> Plot:
    """Reliability curve of the discriminator on held-out pairs.

    Args:
        bins: {"n", "mean_p_yes", "share_yes"} each; empty bins are skipped.

    Returns:
        The plot.
    """
    filled = [entry for entry in bins if entry["n"] > 0]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle="--", label="perfect calibration")
        axes.plot(
            [entry["mean_p_yes"] for entry in filled],
            [entry["share_yes"] for entry in filled],
            color=SERIES[0],
            linewidth=1.2,
            label="held-out pairs (area: count)",
        )
        largest = max((entry["n"] for entry in filled), default=1.0)
        axes.scatter(
            [entry["mean_p_yes"] for entry in filled],
            [entry["share_yes"] for entry in filled],
            s=[8.0 + 70.0 * entry["n"] / largest for entry in filled],
            color=SERIES[0],
            zorder=3,
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("mean p_yes of the bin")
        axes.set_ylabel("share that is real")
        legend_above(axes, 2)

    points = "; ".join(f"{e['mean_p_yes']:.2f} is {e['share_yes']:.2f} ({e['n']:.0f} pairs)" for e in filled)
    return draw_plot(
        draw,
        name="reliability",
        title="Reliability of the discriminator",
        alt=f"Reliability curve, predicted against observed: {points or 'no pairs'}.",
        caption="Held-out users, each at a temperature fitted on others. "
        "Points on the dashed line: a p_yes of 0.7 is right 70 % of the time.",
    )


def plot_training(logs: dict[str, pd.DataFrame], *, column: str, label: str, name: str) -> Plot:
    """A logged value by optimizer step, one line a training, with its running mean.

    Args:
        logs: By training: table with `step` and `column`; not empty.
        column: What to draw, such as "loss" or "tokens_per_s".
        label: Name of the vertical axis.
        name: Name of the plot.

    Returns:
        The plot.
    """
    smooth = {
        training: log[column].rolling(max(len(log) // 10, 1), min_periods=1).mean()
        for training, log in logs.items()
    }

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (training, log) in enumerate(logs.items()):
            colour = SERIES[place % len(SERIES)]
            axes.plot(log["step"], log[column], color=colour, linewidth=0.8, alpha=0.35)
            axes.plot(
                log["step"], smooth[training], color=colour, linestyle=LINE_STYLES[place % 4], label=training
            )
        if column != "loss":  # a rate has a meaningful zero, a loss has not
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(thousands))
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(label)
        if len(logs) > 1:
            legend_above(axes, 2)

    ends = "; ".join(
        f"{training} from {smooth[training].iloc[0]:.3g} to {smooth[training].iloc[-1]:.3g} in {len(log)} steps"
        for training, log in logs.items()
        if len(log)
    )
    return draw_plot(
        draw,
        name=name,
        title=f"{label[:1].upper()}{label[1:]} by step",
        alt=f"{label} by optimizer step: {ends or 'no steps'}.",
        caption=f"{label[:1].upper()}{label[1:]} by optimizer step: {ends}. Faint: each step; strong: running mean.",
    )
