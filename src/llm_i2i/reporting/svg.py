"""From a matplotlib figure to an SVG that follows the page: its colours, its font, its colour scheme.

The same figure gives the same bytes: fixed hash salt, no dates, no creator.
"""

import html
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from llm_i2i.reporting.words import texts

WIDTH, HEIGHT = 4.6, 2.9  # inches; small, so that the text stays readable on a phone
# Stand-in colours, replaced by CSS variables: (stand-in, variable, light, dark).
# Series: Okabe and Ito's palette, told apart by people with any common colour vision deficiency.
_THEME: Final = (
    ("#010101", "ink", "#1f2328", "#e6edf3"),
    ("#020202", "muted", "#59636e", "#9aa4af"),
    ("#030303", "grid", "#d8dee4", "#30363d"),
    ("#040404", "surface", "#ffffff", "#0d1117"),
    ("#050505", "s1", "#0072b2", "#56b4e9"),
    ("#060606", "s2", "#d55e00", "#e69f00"),
    ("#070707", "s3", "#009e73", "#2ecc9b"),
    ("#080808", "s4", "#a0507d", "#e29bc1"),
)
INK, MUTED, GRID = (row[0] for row in _THEME[:3])
SERIES = tuple(row[0] for row in _THEME[4:])

_STYLE: Final[dict[str, Any]] = {
    "svg.hashsalt": "llm-i2i",
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "lines.linewidth": 1.6,
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.5,
    **{f"{axis}tick.{part}": value for axis in "xy" for part, value in (("color", MUTED), ("labelsize", 8.5))},
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.use_mathtext": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
FONT_STACK: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_NAMESPACE: Final = 'xmlns="http://www.w3.org/2000/svg" '
Mark = tuple[float, float, str]  # a place in data coordinates, and what stands there in words


@dataclass(frozen=True)
class Plot:
    """A drawn plot."""

    name: str  # Unique in the page
    svg: str  # `<svg>` element, to be put into a page or file as it is
    title: str  # Short accessible name
    alt: str  # What it shows, in words
    caption: str  # Sentence under it


def draw_plot(
    draw: Callable[[Any], Iterator[Mark]], name: str, *, words: str, kind: str = "", height: float = HEIGHT,
    standalone: bool = False, **values: str,
) -> Plot:  # fmt: skip
    """Call `draw` on empty axes in the report's theme and render them.

    Args:
        draw: Draws on matplotlib axes; yields the values that a page tells under the pointer and on keyboard focus.
        name: Prefix of every id in the SVG; unique in a page.
        words: What the plot shows, for those who do not see it.
        kind: Which of the plots of texts.yaml: its title and caption; `name` by default.
        height: In inches.
        standalone: A file of its own (with its own colours and namespace) instead of a part of a page.
        values: What title and caption are filled with, besides the words.

    Returns:
        The plot; matplotlib's global settings are as before.
    """
    about = texts()["plots"][kind or name]
    title, caption = (about[part].format(words=words, **values) for part in ("title", "caption"))
    alt = f"{title}: {words}"
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        marks = list(draw(axes))
        buffer = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    body = _rewrite(buffer.getvalue().decode("utf-8"), name)
    if marks and not standalone:
        body = body.replace("</svg>", f'<g class="marks">\n{_circles(axes, marks)}</g>\n</svg>')
    head = _head(name, height, title, alt, standalone=standalone)
    return Plot(name, head + body[body.index(">") + 1 :].lstrip("\n"), title, alt, caption)


def _circles(axes: Any, marks: Sequence[Mark]) -> str:
    """An unseen circle for each mark, at its place on the drawn axes; a browser without script shows its title."""
    points = axes.transData.transform([mark[:2] for mark in marks]) * 72 / axes.figure.dpi
    top = 72 * axes.figure.get_figheight()
    return "".join(
        f'<circle cx="{x:.1f}" cy="{top - y:.1f}" r="4"><title>{html.escape(told)}</title></circle>\n'
        for (x, y), (*_, told) in zip(points, marks, strict=True)
    )


def css_variables(*, dark: bool) -> str:
    """The theme's CSS declarations for one colour scheme."""
    return " ".join(f"--{name}: {night if dark else day};" for _, name, day, night in _THEME)


def _rewrite(text: str, name: str) -> str:
    """Drop prolog, metadata and page-wide style; make ids unique; set theme colours and font."""
    text = text[text.index("<svg") :]
    unwanted = r'(?:<metadata>.*?</metadata>|<style type="text/css">.*?</style>|<!--.*?-->)\s*'
    text = re.sub(unwanted, "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = text.replace('xlink:href="#', f'href="#{name}-').replace("<defs>\n  </defs>\n", "")
    for stand_in, variable, day, _ in _THEME:
        text = text.replace(stand_in, f"var(--{variable}, {day})")
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _head(name: str, height: float, title: str, description: str, *, standalone: bool) -> str:
    """The head of an `<svg>` element: its size, title, description and, alone in a file, its colours."""
    wide, high = (72 * inches for inches in (WIDTH, height))
    style = f"stroke-linejoin: round; font-family: {FONT_STACK if standalone else 'inherit'}"
    head = (
        f'<svg {_NAMESPACE if standalone else ""}viewBox="0 0 {wide:g} {high:g}" width="{wide:.0f}" '
        f'height="{high:.0f}" role="img" aria-labelledby="{name}-title {name}-desc" style="{style}">\n'
        f'<title id="{name}-title">{html.escape(title)}</title>\n'
        f'<desc id="{name}-desc">{html.escape(description)}</desc>\n'
    )
    if standalone:
        head += (
            f"<style>svg {{ {css_variables(dark=False)} }}\n"
            f"@media (prefers-color-scheme: dark) {{ svg {{ {css_variables(dark=True)} }} }}</style>\n"
        )
    return head
