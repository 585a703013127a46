"""How names, numbers and sentences are written, the same everywhere: page, Markdown, plots and docs/results.md."""

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.params import SelectionRule, TagParams

NOT_MEASURED = "not measured here"
MINUS = "−"
DECIMALS = 6  # of result files: below it, numbers differ between machines by the order of a sum
TITLE_LENGTH = 80  # characters of a title that are shown


@lru_cache(maxsize=1)
def texts() -> dict[str, dict[str, Any]]:
    """templates/texts.yaml: captions and columns of every table, and the sentences."""
    path = resources.files("llm_i2i.reporting") / "templates" / "texts.yaml"
    content: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def say(key: str, **values: Any) -> str:
    """A sentence of texts.yaml with its values filled in."""
    return str(texts()["sentences"][key].format(**values))


def model_name(model: str) -> str:
    """A model's name as people write it."""
    plain = model.removesuffix("_tuned")
    return str(texts()["models"].get(plain, plain)) + (" (tuned)" if plain != model else "")


def run_name(model: object, arm: object) -> str:
    """A model and arm as the name of a row."""
    return f"{model_name(str(model))}, {arm}"


def metric_name(metric: str) -> str:
    """Write "recall@10" as "Recall@10", "ndcg@10" as "NDCG@10"."""
    name, at, k = metric.partition("@")
    return {"recall": "Recall", "ndcg": "NDCG"}.get(name, name) + at + k


def slice_name(name: str) -> str:
    """A slice of the test targets in a few words."""
    return str(texts()["slices"].get(name, name))


def slice_meaning(name: str, tag: TagParams) -> str:
    """A slice of the test targets with its definition."""
    shares = {"head": 100 * tag.head_share, "long_tail": 100 * tag.long_tail_share}
    return str(texts()["slice_meanings"][name].format(count=tag.tail_max_count, **shares))


def outcome_of(difference: Interval) -> str:
    """Say "better" or "worse" if the whole interval lies on one side of 0, else "none"."""
    if difference.low > 0.0:
        return "better"
    return "worse" if difference.high < 0.0 else "none"


def interval_of(row: Mapping[Any, Any]) -> Interval:
    """The interval of a row with difference, low and high."""
    return Interval(float(row["difference"]), float(row["low"]), float(row["high"]))


def written(interval: Interval) -> dict[str, float | str]:
    """A difference as result files have it: `interval_of` reads it."""
    mean, low, high = (round(number, DECIMALS) for number in interval)
    return {"difference": mean, "low": low, "high": high, "outcome": outcome_of(interval)}


def signed(value: float, decimals: int = 4) -> str:
    """A difference with its sign."""
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0.0 else text.replace("-", MINUS)


def span(interval: Interval) -> str:
    """A difference and its interval, such as "+0.0041 [+0.0006, +0.0076]"."""
    return f"{signed(interval.mean)} [{signed(interval.low)}, {signed(interval.high)}]"


def percent(share: float) -> str:
    """A share in [0, 1] in per cent."""
    return f"{100 * share:.1f} %"


def first_upper(text: str) -> str:
    """Text with a capital first letter, all others as they are."""
    return text[:1].upper() + text[1:]


def one_line(text: str) -> str:
    """Text without line breaks and characters that cannot be seen."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def clip(text: str) -> str:
    """A title on one line, as much of it as is shown."""
    line = one_line(text)
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def plural(number: int, noun: str) -> str:
    """A count and its noun: "1 seed", "3 seeds"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def is_papers(rule: SelectionRule) -> bool:
    """Whether pairs are chosen as in the paper: the generator's first ones, less those that p_yes doubts."""
    ours = rule.connected_only or rule.item_quota or rule.tail_quota
    return rule.confidence == "rank" and rule.mode == "threshold" and not ours
