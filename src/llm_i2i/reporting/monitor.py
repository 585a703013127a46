"""The run against earlier ones: a table of facts with a line over runs each."""

from typing import Any, Final

import numpy as np
from markupsafe import Markup

from llm_i2i.monitoring.drift import FACTS, Found, Watch, shown
from llm_i2i.reporting.tables import Cell, view
from llm_i2i.reporting.words import say

_WIDTH, _HEIGHT, _EDGE = 120.0, 24.0, 3.0  # pixels
_SVG: Final = Markup(
    '<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
    'aria-label="{label}">'
    '<rect x="0" y="{top:.1f}" width="{width:.0f}" height="{band:.1f}" fill="var(--grid)" opacity=".5"/>'
    '<polyline points="{points}" fill="none" stroke="var(--s1)" stroke-width="1.5"/>'
    '<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="var(--{colour})"/></svg>'
)


def monitor_part(watch: Watch) -> dict[str, Any]:
    """Text, alarms as points, and the table, alarms first."""
    rows = [_row(one) for one in sorted(watch.found, key=lambda one: not one.drifts)]
    alarms = len(watch.alarms) or "nothing"
    text = say("monitored", against=watch.against, alarms=alarms)
    return {"text": text, "points": watch.alarms, "tables": [view("monitor", rows)]}


def _row(one: Found) -> list[Cell | str | None]:
    now = Cell(shown(one.value), ("ignored",) if one.drifts and one.ignored else (), "worse" if one.alarms else "")
    others = (None if value is None else Cell(shown(value)) for value in (one.median, one.low, one.high))
    return [FACTS[one.name].words, Cell("", number=False, svg=_line(one)), now, *others]


def _line(one: Found) -> Markup:
    """Earlier values and this one from left to right, over the band that is no alarm."""
    values = [*one.earlier, one.value]
    seen = [*values, *(limit for limit in (one.low, one.high) if limit is not None and limit <= 4 * max(values))]
    low, high = min(seen), max(seen)

    def height(value: float | None, missing: float) -> float:
        share = missing if value is None else (value - low) / (high - low or 1.0)
        return _EDGE + (1.0 - min(max(share, 0.0), 1.0)) * (_HEIGHT - 2 * _EDGE)

    xs = np.linspace(_EDGE, _WIDTH - _EDGE, len(values)) if one.earlier else [_WIDTH - _EDGE]
    dots = [(x, height(value, 0.0)) for x, value in zip(xs, values, strict=True)]
    top, bottom = height(one.high, 1.0), height(one.low, 0.0)
    return _SVG.format(
        width=_WIDTH, height=_HEIGHT, label=f"{len(one.earlier)} earlier runs, then {shown(one.value)}",
        top=top - _EDGE, band=bottom - top + 2 * _EDGE, points=" ".join(f"{x:.1f},{y:.1f}" for x, y in dots),
        x=dots[-1][0], y=dots[-1][1], colour="bad" if one.alarms else "s1",
    )  # fmt: skip
