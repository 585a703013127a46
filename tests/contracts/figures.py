"""Where the figures of a document come from.

A block (paragraph, list or table) that states a measured figure has a comment directly above it, which names the
source of every figure of the block, in the order in which the reader meets them:

    <!-- figures
    toys/controls: equal volume/swing/{real|item_knn}/overall/recall@10
    cost: with_bf16/stages_minutes
    gain toys/controls: equal volume/swing/llm_i2i/overall/recall@10 <- equal volume/swing/real/overall/recall@10
    -->

Before the colon stands a committed results file (`FOLDERS`, without suffix), `params` or `profiles/NAME`, after it the
way through it. `{a|b}` stands for a, then b. An interval stands for its low and high end, a difference for its mean,
low and high end. `gain` is the relative change, `ratio` the quotient of two values of one file. A percentage is a
hundred times its source. The results of a benchmark's experiment are reached as POINT/MODEL/ARM/SLICE/METRIC, then
`n_users`, or `arm real` and `point NAME` for the difference to these.
"""

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import yaml

from llm_i2i.params import load_params
from tests.conftest import ROOT

FOLDERS = ("reports", "reports/metrics", "reports/benchmark", "benchmarks/results")

# Pages that are made from what they tell, each compared with it by a test.
MADE = ("results", "params", "stage-graph", "command-lines", "file-formats", "http-api", "troubleshooting")

# Digits that state no measurement. Each is used in some document (a test); everything else has a source.
EXEMPT: Mapping[str, str] = {
    r"(?<=[A-Za-z])@(?:5|10|20|50)\b": "K of a metric",
    r"\barXiv \d{4}\.\d{5}\b": "number of a paper",
    r"\b95 %(?= intervals?\b)": "level of the intervals",
    r"\b\d+\.\d+\.\d+\b": "version",
    r"\bPython 3\.11\b": "version",
    r"\bcapability 8\.0\b": "version of CUDA devices",
    r"\b2014, 2018 (?:and|or) 2023\b": "editions of the Amazon data",
    r"\bMovieLens-100K\b|\bSmolLM2-135M(?:-Instruct)?\b|\bLlama-2-7B(?:-chat)?\b": "name",
    r"\bSHA-256\b|\bApache-2\.0\b|\bAVX512-BF16\b|\b8-bit\b": "name",
    r"\b2 cores\b": "the machine",
    r"\bone 24 GB card\b": "the machine a profile is sized for",
    r"(?<=\"confidence )1\.0\b": "how the paper says it",
    r"\b99th percentile\b": "the quantile itself",
    r"(?m)^ *\d\.(?= )": "number of a list",
}

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_TARGET = re.compile(r"\]\([^)]*\)")
_NUMBER = re.compile(r"(?<![\w.])[+−-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?")
_MEASURED = re.compile(r"\d\.\d{3}|(?<![\d,])\d{1,3}(?:,\d{3})+(?![\d,])|\d ?%|\d (?:minutes|seconds|hours)\b")


@dataclass(frozen=True)
class Figure:
    """A number of a document.

    Attributes:
        start: Place of its first character.
        end: Place after its last character.
        text: As it is written.
        percent: Whether a percent sign follows.
    """

    start: int
    end: int
    text: str
    percent: bool

    def agrees(self, value: float) -> bool:
        """Whether `value`, rounded to as many digits as are written, is the number written."""
        number = Decimal(self.text.replace(",", "").replace("−", "-"))
        places = max(0, -int(number.as_tuple().exponent))
        return Decimal(f"{value * (100 if self.percent else 1):.{places}f}") == number


def written() -> dict[str, str]:
    """Text by name of every document that is written by hand.

    The others in docs/ are made from what they tell, and tests compare them with it.
    """
    paths = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
    made = {f"docs/{name}.md" for name in MADE}
    names = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return {name: path.read_text(encoding="utf-8") for name, path in names.items() if name not in made}


def figures(text: str) -> list[Figure]:
    """Every figure of a document that needs a source, in order."""
    return [figure for _, _, found in _blocks(text) for figure in found]


def problems(name: str, text: str) -> list[str]:
    """What of a document no committed file says: `README.md:34: 0.0796 (toys/recipe: ...: 0.079475)`."""
    found = []
    for line, sources, numbers in _blocks(text):
        try:
            values = [pair for source in sources for pair in resolve(source)]
        except LookupError as error:
            found.append(f"{name}:{line}: {error}")
            continue
        if len(values) != len(numbers):
            texts = ", ".join(number.text for number in numbers)
            found.append(f"{name}:{line}: {len(numbers)} figures ({texts}) and {len(values)} sources")
        for number, (source, value) in zip(numbers, values, strict=False):
            if not number.agrees(value):
                at = text.count("\n", 0, number.start) + 1
                found.append(f"{name}:{at}: {number.text} is not {source} ({value})")
    for fence in _FENCE.finditer(text):
        if _MEASURED.search(fence.group()):
            line = text.count("\n", 0, fence.start()) + 1
            found.append(f"{name}:{line}: a figure in a code block has no source: state it in the text")
    return found


def resolve(source: str) -> Iterator[tuple[str, float]]:
    """(source, value) of every figure that one line of a comment stands for.

    Raises:
        LookupError: No such file or way, or one that does not end at a number.
    """
    kind, _, rest = source.partition(" ")
    if kind in ("gain", "ratio"):
        file, _, ways = rest.partition(": ")
        of, _, to = ways.partition(" <- ")
        for one, other in zip(_spread(f"{file}: {of}"), _spread(f"{file}: {to}"), strict=True):
            ((_, above),) = _values(one)
            ((_, below),) = _values(other)
            yield source, above / below - (kind == "gain")
    else:
        for one in _spread(source):
            yield from _values(one)


def _blocks(text: str) -> Iterator[tuple[int, list[str], list[Figure]]]:
    """Line, sources and figures of each run of lines between blank ones; a comment begins a block."""
    plain = _blank(_FENCE, text)
    comments = list(_COMMENT.finditer(plain))
    shown = _CODE.sub(_unless_a_figure, _blank(_COMMENT, plain))
    for pattern in (_TARGET, *map(re.compile, EXEMPT)):
        shown = _blank(pattern, shown)
    begins = sorted({0, *(m.end() for m in re.finditer(r"\n[ \t]*\n", plain)), *(c.start() for c in comments)})
    for start, end in itertools.pairwise([*begins, len(text)]):
        sources = [
            line.strip()
            for comment in comments
            if start <= comment.start() < end and comment.group().startswith("<!-- figures")
            for line in comment.group()[len("<!-- figures") : -len("-->")].splitlines()
            if line.strip()
        ]
        numbers = [
            Figure(m.start(), m.end(), m.group(), text[m.end() : m.end() + 2] in (" %", "%"))
            for m in _NUMBER.finditer(shown, start, end)
        ]
        yield text.count("\n", 0, start) + 1, sources, numbers


def _unless_a_figure(code: re.Match[str]) -> str:
    """Spaces for code that names something; code that states a figure, or is nothing but one, stays."""
    text = code.group()
    return text if _MEASURED.search(text) or not re.search(r"[A-Za-z]", text) else " " * len(text)


def _blank(pattern: re.Pattern[str], text: str) -> str:
    """`text` with spaces for what matches, so that every place stays the same."""
    return pattern.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)


def _spread(source: str) -> list[str]:
    parts = re.split(r"\{([^{}]*)\}", source)
    choices = [part.split("|") if place % 2 else [part] for place, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _values(source: str) -> Iterator[tuple[str, float]]:
    file, _, way = source.partition(": ")
    node: Any = _content(file)
    for part in way.split("/"):
        inner = dict(enumerate(node)) if isinstance(node, list) else node if isinstance(node, Mapping) else {}
        names = {str(name): value for name, value in inner.items()}
        if part not in names:
            raise LookupError(f"{source}: no {part!r} among {', '.join(names) or 'nothing'}")
        node = names[part]
    if isinstance(node, Mapping):
        ends = ["value"] if "value" in node else ["mean", "low", "high"]
        node = [node[name] for name in ends if name in node]
    numbers = node if isinstance(node, list) else [node]
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise LookupError(f"{source}: no number, but {node!r}")
    for number in numbers:
        yield source, number


@functools.cache
def _content(name: str) -> Mapping[str, Any]:
    if name == "params":
        return load_params(ROOT / "params.yaml").model_dump()
    if name.startswith("profiles/"):
        profile: dict[str, Any] = yaml.safe_load((ROOT / f"{name}.yaml").read_text(encoding="utf-8"))
        return profile
    for folder in FOLDERS:
        path = ROOT / folder / f"{name}.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            return _by_name(content["rows"]) if folder == "reports/benchmark" else content
    raise LookupError(f"{name}: no such file in {', '.join(FOLDERS)}")


def _by_name(rows: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """An experiment's rows as POINT/MODEL/ARM/SLICE/METRIC, in which lie the value and its differences to others."""
    found: dict[str, Any] = {}
    for row in rows:
        node = found
        for key in ("point", "model", "arm", "slice", "metric"):
            node = node.setdefault(row[key], {})
        node |= {"value": row["value"], "n_users": row["n_users"], "kept": row["synthetic_kept"]}
        if row["against"]:
            node[row["against"]] = {"mean": row["difference"], "low": row["low"], "high": row["high"]}
    return found
