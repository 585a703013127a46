"""Plots of results and data: each function takes values and returns a drawn `Plot`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from llm_i2i import schema
from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting.svg import GRID, INK, MUTED, SERIES, new_figure, theme, to_svg

WIDTH, HEIGHT = 4.6, 2.9  # inches; small, so that the text stays readable on a phone


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Attributes:
        name: Unique in the page.
        svg: `<svg>` element, to be put into a page as it is.
        title: Short accessible name.
        alt: What it shows, in words.
        caption: Sentence under it.
    """

    name: str
    svg: str
    title: str
    alt: str
    caption: str


def draw_plot(
    draw: Callable[[Figure], None],
    *,
    name: str,
    title: str,
    alt: str,
    caption: str,
    height: float = HEIGHT,
    standalone: bool = False,
) -> Plot:
    """Call `draw` on an empty figure in the report's theme and render it; height in inches.

    With `standalone` the SVG is a file of its own, else a part of a page.
    """
    with theme():
        figure = new_figure(WIDTH, height)
        draw(figure)
        svg = to_svg(figure, name=name, title=title, description=alt, standalone=standalone)
    return Plot(name=name, svg=svg, title=title, alt=alt, caption=caption)


def thousands(value: float, _position: int) -> str:
    """Label of a tick."""
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def legend_above(axes: Any, columns: int) -> None:
    """Put the legend above the axes, where it hides nothing."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=1.8
    )


def plot_differences(rows: list[tuple[str, list[tuple[str, Interval]]]], *, metric: str) -> Plot:
    """Forest plot: paired differences to the arm `real` with 95 % intervals.

    Args:
        rows: (label of model and arm, [(slice label, interval), ...]) from top to bottom, not empty.
        metric: Name of the metric, such as "Recall@10".

    Returns:
        The plot.
    """
    slices = list(dict.fromkeys(name for _, entries in rows for name, _ in entries))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        axes.axvline(0.0, color=INK, linewidth=0.9)
        for place, name in enumerate(slices):
            offset = (place - (len(slices) - 1) / 2) * 0.26
            points = [
                (row + offset, interval)
                for row, (_, got) in enumerate(rows)
                for s, interval in got
                if s == name
            ]
            means = np.array([interval.mean for _, interval in points])
            lows = np.array([interval.low for _, interval in points])
            highs = np.array([interval.high for _, interval in points])
            axes.errorbar(
                means,
                [y for y, _ in points],
                xerr=np.maximum([means - lows, highs - means], 0.0),
                fmt="os^D"[place % 4],
                color=SERIES[place % len(SERIES)],
                markersize=4.5,
                capsize=2.5,
                linewidth=1.4,
                label=name,
            )
        axes.set_yticks(range(len(rows)), [label for label, _ in rows], color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.3f}" if value else "0"))
        axes.set_xlabel(f"difference in {metric} to arm real")
        legend_above(axes, len(slices))

    alt = f"Differences in {metric} to arm real with 95 % intervals. " + " ".join(
        f"{label.replace(chr(10), ' ')}, {name}: {interval.mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})."
        for label, entries in rows
        for name, interval in entries
    )
    return draw_plot(
        draw,
        name="differences",
        title=f"Difference in {metric} to arm real",
        alt=alt,
        caption=f"Paired difference in {metric} and its 95 % bootstrap interval. An interval that touches "
        "the line at 0 shows no difference.",
        height=1.15 + 0.62 * len(rows),
    )


def plot_long_tail(items: pd.DataFrame) -> Plot:
    """Training interactions by item, most frequent first, with the buckets.

    Args:
        items: schema.ITEMS.

    Returns:
        The plot.
    """
    counts: npt.NDArray[np.int64] = np.sort(items["n_train"].to_numpy())[::-1]
    rank = np.arange(1, len(counts) + 1)
    sizes = [(name, int((items["bucket"] == name).sum())) for name in schema.BUCKETS]
    total = max(int(counts.sum()), 1)
    shares = {
        name: float(items.loc[items["bucket"] == name, "n_train"].sum()) / total for name in schema.BUCKETS
    }

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.fill_between(rank, counts, step="mid", color=SERIES[0], alpha=0.18, linewidth=0)
        axes.step(rank, counts, where="mid", color=SERIES[0])
        axes.set_yscale("symlog", linthresh=1)
        axes.set_xlim(1, max(len(counts), 2))
        axes.set_ylim(bottom=0)
        place = 0
        for index, (name, size) in enumerate(entry for entry in sizes if entry[1]):
            if index:
                axes.axvline(place + 0.5, color=MUTED, linewidth=0.8, linestyle=":")
            if size >= 0.06 * len(counts):
                axes.text(
                    place + size / 2,
                    1.02,
                    name,
                    ha="center",
                    color=MUTED,
                    transform=axes.get_xaxis_transform(),
                )
            place += size
        axes.xaxis.set_major_formatter(FuncFormatter(thousands))
        axes.yaxis.set_major_formatter(FuncFormatter(thousands))
        axes.grid(color=GRID)
        axes.set_xlabel("items, most frequent first")
        axes.set_ylabel("training interactions")

    words = "; ".join(
        f"{name}: {size:,} items, {100 * shares[name]:.1f} % of interactions" for name, size in sizes
    )
    return draw_plot(
        draw,
        name="long-tail",
        title="Long tail of the catalogue",
        alt=f"Training interactions by item, a long tail. {words}.",
        caption=f"{words[:1].upper()}{words[1:]}.",
    )


def plot_bucket_shares(shares: dict[str, dict[str, float]]) -> Plot:
    """Where the added rows go: share of rows by bucket, one bar group a source.

    Args:
        shares: By label ("real", "proposed", "kept"): share by bucket, in [0, 1].

    Returns:
        The plot.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False, axis="x")
        width = 0.8 / max(len(shares), 1)
        places = np.arange(len(schema.BUCKETS))
        for index, (label, by_bucket) in enumerate(shares.items()):
            heights = [by_bucket[name] for name in schema.BUCKETS]
            at = places + (index - (len(shares) - 1) / 2) * width
            axes.bar(at, heights, width * 0.92, color=SERIES[index % len(SERIES)], label=label)
            for x, height in zip(at, heights, strict=True):
                axes.text(
                    x, height, f"{100 * height:.0f}", ha="center", va="bottom", fontsize=7.5, color=MUTED
                )
        axes.set_xticks(places, schema.BUCKETS, color=INK)
        axes.tick_params(axis="x", length=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        axes.set_ylabel("share of rows")
        legend_above(axes, 3)

    words = ". ".join(
        f"{label}: " + ", ".join(f"{name} {100 * by_bucket[name]:.1f} %" for name in schema.BUCKETS)
        for label, by_bucket in shares.items()
    )
    return draw_plot(
        draw,
        name="buckets",
        title="Rows by bucket",
        alt=f"Share of rows by bucket of the item. {words}.",
        caption="Real rows, proposed and kept synthetic rows by the bucket of their item, in per cent.",
    )
