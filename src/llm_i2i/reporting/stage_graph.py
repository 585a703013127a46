"""The graph of dvc.yaml as a picture: `python -m llm_i2i.reporting.stage_graph dvc.yaml docs/stages.svg`."""

import argparse
from dataclasses import dataclass
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from re import sub
from typing import Any

import yaml
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from llm_i2i.errors import ArtifactError
from llm_i2i.reporting.svg import MUTED, SERIES, SURFACE, TINT, new_figure, theme, to_svg

CODE_FOLDERS = ("src", "steps", "pipelines", "tests", "profiles")
CODE_SUFFIXES = (".py", ".yaml", ".toml", ".j2")
BOX_WIDTH, BOX_HEIGHT, LAYER_HEIGHT, GAP = 1.5, 0.42, 0.68, 0.25  # inches
LABEL_LENGTH = 30  # characters that fit into a box; of a longer path only the last part is shown
WAYPOINT = 0.1  # width of the place a long arrow takes in the layers it crosses, inches

SWEEPS = 100  # of moving every box towards its neighbours; enough for a dozen layers to settle


@dataclass(frozen=True)
class Stage:
    """A box of the picture.

    Attributes:
        name: Stage, or the folder of a raw input.
        needs: Names of the boxes it depends on, indirect ones left out.
        label: What it writes, or "" for a raw input.
        runs: What a matrix stage multiplies over, such as "model x arm"; "" for others.
        raw: Whether it is an input that no stage makes.
    """

    name: str
    needs: tuple[str, ...]
    label: str
    runs: str = ""
    raw: bool = False


def _paths(entries: Any) -> list[str]:
    """Paths of deps or outs, `${...}` as a wildcard."""
    names = [next(iter(entry)) if isinstance(entry, dict) else str(entry) for entry in entries or []]
    return [sub(r"\$\{[^}]*\}", "*", name).rstrip("/") for name in names]


def _same_place(one: str, other: str) -> bool:
    """Whether two paths are equal or one lies inside the other, wildcards considered."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return all(fnmatchcase(a, b) or fnmatchcase(b, a) for a, b in pairs)


def _reduce(needs: dict[str, set[str]]) -> dict[str, set[str]]:
    """Drop every arrow that a longer way already tells (transitive reduction)."""
    everything: dict[str, set[str]] = {}
    for name in TopologicalSorter(needs).static_order():
        everything[name] = set(needs[name]).union(*(everything[need] for need in needs[name]))
    return {
        name: {n for n in direct if not any(n in everything[other] for other in direct if other != n)}
        for name, direct in needs.items()
    }


def read_stages(dvc_yaml: Path) -> list[Stage]:
    """Read the stages and raw inputs of a dvc.yaml.

    Args:
        dvc_yaml: The pipeline file.

    Returns:
        Boxes, each after those it needs.

    Raises:
        ArtifactError: The file is missing, holds no stages, or its stages form a cycle.
    """
    try:
        content = yaml.safe_load(dvc_yaml.read_text(encoding="utf-8"))
        definitions = {str(name): body.get("do", body) | {} for name, body in content["stages"].items()}
        over = {name: list(body.get("matrix", {})) for name, body in content["stages"].items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            str(dvc_yaml), f"cannot be read ({error})", "a DVC pipeline with stages"
        ) from error
    if not definitions:
        raise ArtifactError(str(dvc_yaml), "no stages", "one stage or more")
    outs = {
        name: [path for kind in ("outs", "metrics", "plots") for path in _paths(body.get(kind))]
        for name, body in definitions.items()
    }
    needs: dict[str, set[str]] = {name: set() for name in definitions}
    raw: set[str] = set()
    for name, body in definitions.items():
        for dep in _paths(body.get("deps")):
            makers = {maker for maker, made in outs.items() if any(_same_place(dep, out) for out in made)} - {
                name
            }
            folder = dep.split("/")[0]
            if not makers and folder not in CODE_FOLDERS and not dep.endswith(CODE_SUFFIXES):
                makers = {f"{folder}/"}
                raw |= makers
            needs[name] |= makers
    needs |= {folder: set() for folder in raw}
    try:
        reduced = _reduce(needs)
        order = list(TopologicalSorter(reduced).static_order())
    except CycleError as error:
        raise ArtifactError(
            str(dvc_yaml), f"a cycle of stages {error.args[1]}", "a graph without cycles"
        ) from error
    return [
        Stage(name, tuple(sorted(reduced[name])), "", raw=True)
        if name in raw
        else Stage(name, tuple(sorted(reduced[name])), next(iter(outs[name]), ""), " × ".join(over[name]))
        for name in order
    ]


def _layers(stages: list[Stage]) -> dict[str, int]:
    """Layer of each box, 0 at the top: as early as its needs allow; sources as late as their users allow."""
    layer: dict[str, int] = {}
    for stage in stages:
        layer[stage.name] = max((layer[need] + 1 for need in stage.needs), default=0)
    for stage in stages:
        users = [layer[other.name] for other in stages if stage.name in other.needs]
        if not stage.needs and users:
            layer[stage.name] = min(users) - 1
    return layer


def _routes(stages: list[Stage], layer: dict[str, int]) -> list[list[tuple[str, int]]]:
    """Each arrow as the (node, layer) places it passes; waypoints are made for the layers it crosses."""
    return [
        [
            (need, layer[need]),
            *((f"{need}>{stage.name}@{level}", level) for level in range(layer[need] + 1, layer[stage.name])),
            (stage.name, layer[stage.name]),
        ]
        for stage in stages
        for need in stage.needs
    ]


def _spread(names: list[str], wish: dict[str, float], boxes: set[str]) -> dict[str, float]:
    """Places in one layer: in the order of their wishes, none overlapping, moved as little as possible."""
    ordered = sorted(names, key=lambda name: (wish[name], name))
    x: dict[str, float] = {}
    edge = float("-inf")
    for name in ordered:
        half = (BOX_WIDTH if name in boxes else WAYPOINT) / 2
        x[name] = max(wish[name], edge + half)
        edge = x[name] + half + GAP
    shift = sum(wish[name] - x[name] for name in ordered) / len(ordered)
    return {name: place + shift for name, place in x.items()}


def _places(stages: list[Stage]) -> tuple[dict[str, tuple[float, int]], list[list[tuple[str, int]]]]:
    """(x in inches and layer by node, routes of the arrows), each node near the middle of its neighbours."""
    layer = _layers(stages)
    routes = _routes(stages, layer)
    levels: dict[int, list[str]] = {}
    for name, level in dict.fromkeys(
        [(s.name, layer[s.name]) for s in stages] + [p for r in routes for p in r]
    ):
        levels.setdefault(level, []).append(name)
    neighbours: dict[str, list[str]] = {name: [] for names in levels.values() for name in names}
    for route in routes:
        for (a, _), (b, _) in pairwise(route):
            neighbours[a].append(b)
            neighbours[b].append(a)
    boxes = {stage.name for stage in stages}
    x = dict.fromkeys(neighbours, 0.0)
    for sweep in range(2 * SWEEPS):
        for level in sorted(levels):
            if sweep >= SWEEPS and len(levels[level]) > 1:
                continue  # pushed apart, these drift for ever; held, they let the chains between them hang straight
            wish = {n: sum(x[m] for m in neighbours[n]) / max(len(neighbours[n]), 1) for n in levels[level]}
            x |= _spread(levels[level], wish, boxes)
    return {name: (x[name], level) for level, names in levels.items() for name in names}, routes


def _draw_box(axes: Any, stage: Stage, x: float, y: float) -> None:
    colour = MUTED if stage.raw else SERIES[0]
    rounding = BOX_HEIGHT / 2 if stage.raw else 0.06
    for offset in (0.05, 0.0) if stage.runs else (0.0,):
        axes.add_patch(
            FancyBboxPatch(
                (x - BOX_WIDTH / 2 + offset, y - BOX_HEIGHT / 2 - offset), BOX_WIDTH, BOX_HEIGHT,
                boxstyle=f"round,pad=0,rounding_size={rounding}", linewidth=1.0, edgecolor=colour,
                facecolor=SURFACE if stage.raw else TINT, zorder=3,
            )
        )  # fmt: skip
    below = stage.runs or stage.label
    if len(below) > LABEL_LENGTH:
        below = f"…/{below.rpartition('/')[2]}"
    axes.text(x, y + (0.075 if below else 0), stage.name, ha="center", va="center", weight="bold", zorder=4)
    if below:
        axes.text(x, y - 0.095, below, ha="center", va="center", fontsize=6.5, color=MUTED, zorder=4)


def _draw_route(axes: Any, points: list[tuple[float, float]]) -> None:
    """A smooth arrow downwards through the points."""
    (x, y), *rest = points
    vertices, codes = [(x, y - BOX_HEIGHT / 2)], [Curve.MOVETO]
    for place, (next_x, next_y) in enumerate(rest):
        end = next_y + (BOX_HEIGHT / 2 + 0.05 if place == len(rest) - 1 else 0.0)
        start_y = vertices[-1][1]
        middle = (start_y + end) / 2
        vertices += [(vertices[-1][0], middle), (next_x, middle), (next_x, end)]
        codes += [Curve.CURVE4] * 3
    axes.add_patch(
        PathPatch(Curve(vertices, codes), facecolor="none", edgecolor=MUTED, linewidth=1.0, zorder=1)
    )
    tip_x, tip_y = vertices[-1]
    axes.fill(
        [tip_x - 0.04, tip_x + 0.04, tip_x], [tip_y, tip_y, tip_y - 0.05], color=MUTED, linewidth=0, zorder=2
    )


def render_stage_graph(dvc_yaml: Path) -> str:
    """Draw the stages of a dvc.yaml.

    Args:
        dvc_yaml: The pipeline file.

    Returns:
        A standalone SVG that follows the viewer's colour scheme; the same file gives the same bytes.

    Raises:
        ArtifactError: See `read_stages`.
    """
    stages = read_stages(dvc_yaml)
    places, routes = _places(stages)
    left = min(x for x, _ in places.values()) - BOX_WIDTH / 2 - 0.08
    right = max(x for x, _ in places.values()) + BOX_WIDTH / 2 + 0.12
    height = (max(level for _, level in places.values()) + 1) * LAYER_HEIGHT
    arrows = "; ".join(f"{stage.name} needs {', '.join(stage.needs)}" for stage in stages if stage.needs)
    with theme():
        figure = new_figure(right - left, height)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set_xlim(left, right)
        axes.set_ylim(-height + LAYER_HEIGHT / 2, LAYER_HEIGHT / 2)
        for route in routes:
            _draw_route(axes, [(places[name][0], -level * LAYER_HEIGHT) for name, level in route])
        for stage in stages:
            x, level = places[stage.name]
            _draw_box(axes, stage, x, -level * LAYER_HEIGHT)
        return to_svg(
            figure, name="stages", title="Stages of the pipeline", description=f"{arrows}.", standalone=True
        )


def main() -> None:
    """Write the picture of a dvc.yaml."""
    parser = argparse.ArgumentParser(description="Draw the stage graph of a dvc.yaml as SVG.")
    parser.add_argument("dvc_yaml", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.write_text(render_stage_graph(arguments.dvc_yaml), encoding="utf-8")


if __name__ == "__main__":
    main()
