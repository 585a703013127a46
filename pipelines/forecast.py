"""`python -m pipelines forecast`: is a gain likely on the data in data/? Told before any LLM is trained."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from llm_i2i.data.long_tail import tag_items
from llm_i2i.data.sources import read_raw
from llm_i2i.data.split import split_interactions
from llm_i2i.evaluation.forecast import Basis, data_facts
from llm_i2i.files import read_json
from llm_i2i.params import Params, load_params
from llm_i2i.reporting.words import outcome_of, signed
from steps.paths import DATA

BASIS: Final = Path("benchmarks/results/forecast.json")
NEAREST: Final = 3
LIKELY: Final = {"better": "a gain is likely", "none": "a gain is possible", "worse": "a loss is likely"}
# Name of each fact and how its value is written.
WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "users": ("users", ",.0f"),
    "items": ("items with an interaction", ",.0f"),
    "interactions": ("interactions", ",.0f"),
    "density": ("density", ".3%"),
    "per_user": ("interactions per user", ".1f"),
    "per_item": ("interactions per item", ".1f"),
    "tail_items": ("items in the tail", ".1%"),
    "tail_targets": ("valid targets in the tail", ".1%"),
    "reachable": ("valid targets that Swing reaches", ".1%"),
    "reachable_tail": ("valid targets in the tail that Swing reaches", ".1%"),
}


def show() -> None:
    """Print the facts of data/ and the forecast with its basis; only tables are read, and Swing trained.

    Raises:
        DataError: The tables in data/ cannot be read or split.
        ParamsError: params.yaml breaks a rule.
        ArtifactError: The basis is missing or unreadable.
    """
    params = load_params()
    basis = read_basis()
    raw = read_raw(DATA, encoded=True)
    split = split_interactions(raw.interactions, params=params.split, seed=params.seed, order=raw.order)
    items = tag_items(raw.items, split.train, params=params.tag, seed=params.seed)
    facts = asdict(data_facts(split, items, params=params))
    sys.stdout.write("\n".join(lines(facts, basis, params)) + "\n")


def read_basis(path: Path = BASIS) -> Basis:
    """The measured gains that `python -m benchmarks.forecast` has written.

    Raises:
        ArtifactError: The file is missing or unreadable.
    """
    content = read_json(path, fix=f"run `git checkout {path}`")
    return Basis(content["rows"], content["fact"])


def lines(facts: Mapping[str, float], basis: Basis, params: Params) -> Iterator[str]:
    """What the command prints."""
    yield f"Tail: items with 1 to {params.tag.tail_max_count} training interactions. Valid targets: each user's first"
    yield "item in the valid split; test is not asked for.\n"
    yield "| fact | value |\n| --- | ---: |"
    for name, (words, _) in WORDS.items():
        yield f"| {words} | {_written(name, facts[name])} |"
    gain = basis.gain(facts)
    yield f"\nForecast: {LIKELY[outcome_of(gain)]}; Swing's Recall@10 changes by {_range(gain._asdict())}."
    yield from basis_lines(facts, basis)


def basis_lines(facts: Mapping[str, float], basis: Basis) -> Iterator[str]:
    """What the forecast stands on, and how far these data are from it."""
    n_data, checked = len({row["data"] for row in basis.rows}), basis.checked()
    fact = WORDS[basis.fact][0]
    yield (
        f"Basis: measured on {len(basis.part('fit'))} sub-samples of {n_data} data sets with profile compact; a line "
        f"of gain against the logarithm of {fact}."
    )
    yield (
        f"Of {checked['n']} other sub-samples, held back, {checked['right_in_sign']} were forecast right in sign, and "
        f"{checked['in_interval']} lay in the range forecast."
    )
    for name, ends in basis.outside(facts).items():
        low, high = (_written(name, end) for end in ends)
        yield (
            f"Outside what was measured: {WORDS[name][0]}, {_written(name, facts[name])} here, {low} to {high} there. "
            "The forecast is a guess."
        )
    yield f"Nearest ones, by {fact}:"
    for row in basis.nearest(facts, NEAREST):
        yield f"- {row['name']} ({_written(basis.fact, row['facts'][basis.fact])}): {_range(row['gain'])} measured"


def _written(name: str, value: float) -> str:
    return f"{value:{WORDS[name][1]}}".replace("%", " %")


def _range(gain: Mapping[str, Any]) -> str:
    mean, low, high = (f"{signed(100 * gain[name], 0)} %" for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
