"""The plot of measured gains, for the page on one's own data."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from llm_i2i.evaluation.forecast import Basis
from llm_i2i.reporting.plots import MARKERS
from llm_i2i.reporting.svg import INK, SERIES, Mark, Plot, draw_plot
from llm_i2i.reporting.words import signed

PARTS = {"fit": "the line's", "check": "held back", "whole": "whole data sets"}


def plot_gains(basis: Basis, *, fact: str) -> Plot:
    """Measured gains with their 95 % intervals by the line's fact, and the line with its interval.

    Args:
        basis: At least three rows of part fit.
        fact: Name of the fact, the horizontal axis.
    """
    values = [row["facts"][basis.fact] for row in basis.rows]
    xs = np.geomspace(min(values), max(values), 60)
    line = np.array([basis.gain({basis.fact: x}) for x in xs])

    told = {
        row["name"]: f"{row['name']}: {signed(100 * row['gain']['mean'], 0)} % at {row['facts'][basis.fact]:.3g}."
        for row in basis.rows
    }

    def draw(axes: Any) -> Iterator[Mark]:
        axes.axhline(0.0, color=INK, linewidth=0.9)
        axes.plot(xs, 100 * line[:, 0], color=INK, linewidth=1.2)
        axes.fill_between(xs, 100 * line[:, 1], 100 * line[:, 2], color=INK, alpha=0.08, linewidth=0)
        for place, (part, label) in enumerate(PARTS.items()):
            rows = basis.part(part)
            mean, low, high = (np.array([100 * row["gain"][end] for row in rows]) for end in ("mean", "low", "high"))
            axes.errorbar(
                [row["facts"][basis.fact] for row in rows], mean, yerr=[mean - low, high - mean],
                fmt=MARKERS[place], color=SERIES[place], markersize=4.5, capsize=2, linewidth=1.0, label=label,
            )  # fmt: skip
            yield from ((row["facts"][basis.fact], 100 * row["gain"]["mean"], told[row["name"]]) for row in rows)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel=fact, ylabel="gain, %")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)

    return draw_plot(draw, "forecast", fact=fact, words=" ".join(told.values()), height=3.4, standalone=True)
