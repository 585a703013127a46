"""Declared experiments: one YAML file of experiments/ is a question and the grid of parameters that answers it."""

import itertools
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from llm_i2i.errors import ParamsError
from llm_i2i.files import json_sha256
from llm_i2i.params import Params

Value = bool | int | float | str | list[bool | int | float | str]
Slice = Literal["overall", "head", "mid", "tail", "cold", "long_tail"]  # schema.SLICES
MetricName = Annotated[str, Field(pattern=r"^(recall|ndcg)@[1-9]\d*$")]
Overrides = dict[str, Value]


@dataclass(frozen=True)
class Point:
    """One run of an experiment.

    Attributes:
        label: What tells it from the other points, such as "fuse.threshold=0.9" or a variant's name.
        overrides: Every parameter it sets, by dotted key; the seed among them.
        changed: The part of `overrides` by which the points differ, without the seed.
        seed: Its seed.
    """

    label: str
    overrides: Mapping[str, Value]
    changed: Mapping[str, Value]
    seed: int


class Experiment(BaseModel):
    """One declared experiment.

    Attributes:
        name: As the file is called.
        question: What it answers, one sentence.
        profile: File of profiles/ whose values lie under the grid; empty = params.yaml as it stands.
        fixed: Overrides of every point.
        grid: Values by dotted key, all combinations are run; or a list of such grids.
        variants: Named points, each with its overrides; they come after those of the grid.
        seeds: Each point is run with each of them; empty = the seed of params.yaml.
        metrics: Metrics of interest, the first is the main one.
        slices: Test targets of interest.
        baselines: Arms with which the other arms of the same point are compared, user by user.
        reference: Label of the point with which the same model and arm of the other points are compared.
        generator_alone: Also measure the generator as a recommender of its own (stage evaluate_generator).
        x: What the plot shows from left to right: a dotted key that varies, or "synthetic_kept";
            empty = one place per point.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    question: Annotated[str, Field(min_length=10)]
    profile: str = ""
    fixed: Overrides = {}
    grid: list[dict[str, Annotated[list[Value], Field(min_length=1)]]] = []
    variants: dict[str, Overrides] = {}
    seeds: list[Annotated[int, Field(ge=0)]] = []
    metrics: Annotated[list[MetricName], Field(min_length=1)] = ["recall@10", "ndcg@10"]
    slices: Annotated[list[Slice], Field(min_length=1)] = ["overall", "tail"]
    baselines: list[str] = ["real"]
    reference: str = ""
    generator_alone: bool = False
    x: str = ""

    @field_validator("grid", mode="before")
    @classmethod
    def _one_grid_or_more(cls, grid: Any) -> Any:
        return [grid] if isinstance(grid, dict) else grid

    @model_validator(mode="after")
    def _has_distinct_points(self) -> "Experiment":
        labels = [point.label for point in self.points(seeds=[0])]
        if not labels:
            raise ValueError("neither grid nor variants")
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"points occur twice: {twice}")
        if self.reference and self.reference not in labels:
            raise ValueError(f"reference {self.reference!r} is none of the points {labels}")
        return self

    def points(self, *, seeds: Iterable[int]) -> list[Point]:
        """Every point, seed by seed, so that the first seed's table is complete first.

        Args:
            seeds: The seeds to run.

        Returns:
            Grid points in the order of the file, then variants.
        """
        changes: list[tuple[str, Overrides]] = []
        for grid in self.grid:
            varied = {key for key, values in grid.items() if len(values) > 1} or set(grid)
            for values in itertools.product(*grid.values()):
                changed = dict(zip(grid, values, strict=True))
                shown = [f"{key}={show(value)}" for key, value in changed.items() if key in varied]
                changes.append((", ".join(shown), changed))
        changes += list(self.variants.items())
        return [
            Point(label, {**self.fixed, **changed, "seed": seed}, changed, seed)
            for seed in seeds
            for label, changed in changes
        ]


def show(value: Value) -> str:
    """A value as a label and a command line show it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(show(entry) for entry in value) + "]"
    return str(value)


def load_experiment(path: Path) -> Experiment:
    """Read and check one file of experiments/.

    Args:
        path: The YAML file; its stem is the experiment's name.

    Returns:
        The experiment.

    Raises:
        ParamsError: The file is missing or no YAML mapping, breaks a rule (every one is listed), or is
            named unlike its content.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise ParamsError(str(path), "no such experiment", " | ".join(known)) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(str(path), f"cannot be read ({error})", "a YAML file in UTF-8") from error
    if not isinstance(raw, dict):
        raise ParamsError(str(path), f"holds {type(raw).__name__}", "a mapping")
    try:
        experiment = Experiment.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(str(path), _problems(error)) from error
    if experiment.name != path.stem:
        raise ParamsError(str(path), f"name is {experiment.name!r}", path.stem)
    return experiment


def resolve(params: Mapping[str, Any], overrides: Mapping[str, Value]) -> dict[str, Any]:
    """Put overrides into the parameters.

    Args:
        params: params.yaml as a mapping; it stays as it is.
        overrides: New values by dotted key.

    Returns:
        A new mapping.

    Raises:
        ParamsError: A key is none of params.yaml; all such keys are listed.
    """
    result: dict[str, Any] = deepcopy(dict(params))
    unknown = []
    for key, value in overrides.items():
        *parents, last = key.split(".")
        place: Any = result
        for part in parents:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place:
            unknown.append(key)
        else:
            place[last] = value
    if unknown:
        raise ParamsError("overrides", f"unknown keys {unknown}", "keys of params.yaml")
    return result


def check_points(name: str, points: Iterable[Point], params: Mapping[str, Any]) -> None:
    """Check every point against the schema of params.yaml before any of them runs.

    Args:
        name: Name of the experiment, for the message.
        points: Its points.
        params: params.yaml as a mapping, the profile's values in it.

    Raises:
        ParamsError: Overrides name unknown keys or break a rule; every point at fault is listed.
    """
    problems = []
    for point in points:
        try:
            Params.model_validate(resolve(params, point.overrides))
        except ParamsError as error:
            problems.append(f"\n  {point.label}: {error.found}")
        except ValidationError as error:
            problems.append(f"\n  {point.label}: {_problems(error)}")
    if problems:
        raise ParamsError(f"experiment {name}", f"{len(problems)} point(s) at fault" + "".join(problems))


def digest(content: Any) -> str:
    """First 10 hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    return json_sha256(content)[:10]


def _problems(error: ValidationError) -> str:
    found = [
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']} (got {problem['input']!r:.80})"
        for problem in error.errors(include_url=False)
    ]
    return "; ".join(found)
