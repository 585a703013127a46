"""`python docs/generated.py`: write the pages that the code knows best: command lines, files, HTTP, troubleshooting.

A test compares the committed pages with what this makes. docs/params.md is written by `python -m llm_i2i.params`.
"""

import argparse
import ast
import functools
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from llm_i2i import cli, errors, schema  # noqa: E402 - from this checkout
from llm_i2i.monitoring import drift  # noqa: E402
from pipelines import __main__ as pipelines_main  # noqa: E402
from steps import paths  # noqa: E402

MADE = "<!-- Made by `python docs/generated.py`: edit the code, not this page. -->"
FAMILY = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.LlmI2iError)
}
TEXTS = (ast.Constant, ast.JoinedStr, ast.BinOp, ast.IfExp)  # expressions that `text` reads
TELLING = FAMILY | {"problems.append", "HTTPException", "Finding", "ValueError", "_is", "Check"}
PARTS = ("where", "found", "expected", "fix")
# Table of schema.py: the files that hold it.
TABLES: Mapping[str, tuple[str, ...]] = {
    "INTERACTIONS": tuple(map(str, (paths.TRAIN, paths.VALID, paths.TEST))),
    "ITEMS": (str(paths.ITEMS),),
    "IDENTIFIERS": (f"{paths.IDENTIFIERS}/identifiers.parquet",),
    "HELD_OUT": (str(paths.HELD_OUT),),
    "SYNTHETIC": (f"{paths.PROPOSED}/SOURCE.parquet",),
    "SCORED": (f"{paths.SCORED}/SOURCE.parquet",),
    "JUDGED": (str(paths.PAIRS),),
    "FUSED": (f"{paths.FUSED}/ARM.parquet",),
    "INDEX": (f"{paths.I2I}/MODEL-ARM/index.parquet",),
    "PER_USER": (f"{paths.EVALUATION}/MODEL-ARM.parquet",),
}
MONITOR = """\
`facts` by name; `series`, hashes of what runs must share to compare; `sketch`, hashes of some items and users; `index`,
the content hash of the index described. Up to the value in the last column a fact is as good as 0, or as 1 where it is
near 1 when all is well."""
COLUMNS: Mapping[str, str] = yaml.safe_load((ROOT / "docs/columns.yaml").read_text(encoding="utf-8"))
ADVICE: Mapping[str, str] = yaml.safe_load((ROOT / "docs/troubleshooting.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Message:
    """A message of ours."""

    module: str
    text: str  # as it is shown, with … for what depends on the case


def pages() -> dict[Path, str]:
    """Every page by its path, relative to the project folder."""
    return {
        Path("docs/command-lines.md"): command_lines(),
        Path("docs/file-formats.md"): file_formats(),
        Path("docs/http-api.md"): http_api(),
        Path("docs/troubleshooting.md"): troubleshooting(),
    }


def command_lines() -> str:
    """All commands and options, as the parsers have them."""
    parts = ["# Command lines", MADE, "`make` targets are commands of this kind: see the Makefile."]
    for parser in (cli._parser(), pipelines_main._parser()):  # noqa: SLF001
        (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
        about = {action.dest: str(action.help) for action in commands._choices_actions}  # noqa: SLF001
        parts += [f"## `{parser.prog}`", first_line(parser.description)]
        for name, command in commands.choices.items():
            shown = [action for action in command._actions if action.dest != "help"]  # noqa: SLF001
            parts += [f"### {parser.prog} {name}", about[name][:1].upper() + about[name][1:] + "."]
            if shown:
                parts.append(table(("option", "meaning"), [(option(a), meaning(a)) for a in shown]))
    return "\n\n".join(parts) + "\n"


def option(action: argparse.Action) -> str:
    """How an option is written, and whether it must be."""
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    text = " ".join(filter(None, ("/".join(action.option_strings), str(value))))
    return f"`{text}`" + (" (required)" if action.required else "")


def meaning(action: argparse.Action) -> str:
    """What an option means, and its default where the text does not say it."""
    told = cell(action.help or "")
    given = action.default
    if given in (None, "", False, argparse.SUPPRESS) or "default" in told or str(given) in told:
        return told
    shown = " ".join(map(str, given)) if isinstance(given, tuple) else given
    return f"{told} (default {shown})".strip()


def file_formats() -> str:
    """The columns of every table that a stage writes, and the facts of the monitor."""
    parts = [
        "# File formats",
        MADE,
        "Your own two tables are described in [your data](your-data.md).",
        "All others are Parquet, passed on between the [stages](stages.md). Ids are texts, so that `007` is not `7`.",
    ]
    for name, files in TABLES.items():
        rows = [(f"`{column}`", dtype, COLUMNS[column]) for column, dtype in getattr(schema, name).items()]
        titles = ", ".join(f"`{file}`" for file in files)
        parts += [f"## {name.replace('_', ' ').capitalize()}", titles, table(("column", "type", "meaning"), rows)]
    rows = [
        (f"`{name}`", fact.words, fact.series, fact.bad, "" if fact.floor < 1e-6 else f"{fact.floor:g}")
        for name, fact in drift.FACTS.items()
    ]
    parts += [
        "## Monitor",
        f"`{paths.MONITOR}`, in git",
        MONITOR,
        table(("fact", "meaning", "compares within", "bad where", "no difference up to"), rows),
    ]
    return "\n\n".join(parts) + "\n"


def http_api() -> str:
    """Routes, parameters and messages of the service, out of its OpenAPI document."""
    document = openapi()
    parts = ["# HTTP API", MADE, "What to send and how it behaves: [serving](serving.md)."]
    parts.append("`GET /openapi.json` of a running service gives all of this to programs.")
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            parts += [f"## {method.upper()} {path}", route.get("description") or route["summary"] + "."]
            given = [
                (f"`{p['name']}`", p["in"], limits(p["schema"]), described(p["schema"]))
                for p in route.get("parameters", [])
            ]
            if given:
                parts.append(table(("parameter", "in", "type", "meaning"), given))
            bodies = [message for text in (route.get("requestBody"),) if text for message in references(text)]
            answers = {code: references(answer) for code, answer in route["responses"].items()}
            told = [f"`{code}` {' '.join(map(link, names))}".strip() for code, names in answers.items()]
            told = [text for text in told if "[Problem]" not in text] + [
                f"{', '.join(f'`{code}`' for code, names in answers.items() if 'Problem' in names)} {link('Problem')}"
            ] * any("Problem" in names for names in answers.values())
            parts += [f"Body: {', '.join(map(link, bodies))}."] if bodies else []
            parts.append(f"Answers: {', '.join(told)}.")
    for name, message in sorted(document["components"]["schemas"].items()):
        rows = [
            (f"`{field}`", limits(about), described(about)) for field, about in message.get("properties", {}).items()
        ]
        parts += [f"## {name}", first_line(message.get("description"))]
        parts += [table(("field", "type", "meaning"), rows)] if rows else []
    return "\n\n".join(filter(None, parts)) + "\n"


def openapi() -> dict[str, Any]:
    """The OpenAPI document of an application without an index: routes do not depend on it."""
    from llm_i2i.serving.app import Settings, create_app  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as store:
        return create_app(Settings({"index": store}, {"index": 1.0}, store)).openapi()


def described(about: Mapping[str, Any]) -> str:
    """What a field means; of one that may be null, what it means where it is not."""
    return cell(next((one["description"] for one in (about, *about.get("anyOf", ())) if "description" in one), ""))


def references(node: Any) -> list[str]:
    """Names of the messages that a part of the document speaks of."""
    return list(dict.fromkeys(re.findall(r"#/components/schemas/(\w+)", str(node))))


def link(name: str) -> str:
    """A link to a message's heading."""
    return f"[{name}](#{name.lower()})"


def limits(about: Mapping[str, Any]) -> str:
    """A field's type with its limits."""
    if "$ref" in about:
        return link(references(about)[0])
    if "anyOf" in about:
        return " or ".join(limits(one) for one in about["anyOf"])
    text = str(about.get("type", "any"))
    if "items" in about:
        text += f" of {limits(about['items'])}"
    names = {"minimum": "≥", "maximum": "≤", "maxLength": "length ≤", "maxItems": "items ≤", "minItems": "items ≥"}
    bounds = [f"{sign} {about[key]}" for key, sign in names.items() if key in about]
    values = [str(about["const"])] if "const" in about else [str(value) for value in about.get("enum", [])]
    return ", ".join([text, *bounds, *([" \\| ".join(values)] if values else [])])


def troubleshooting() -> str:
    """Every message of an error of ours, by the module that makes it, with what to do."""
    found: dict[str, list[Message]] = {}
    for message in messages():
        found.setdefault(message.module, []).append(message)
    parts = ["# Troubleshooting by message", MADE, ADVICE["introduction"].strip()]
    for module, told in sorted(found.items()):
        entry = errors.entry_of(module)
        if entry not in ADVICE:
            raise SystemExit(f"docs/troubleshooting.yaml: no entry {entry}: say what to do about {told[0].text}")
        lines = "\n".join(dict.fromkeys(f"- `{m.text}`" for m in told if m.text.strip(" …:.")))
        parts += [f"## {entry.replace('-', ' ')}", ADVICE[entry].strip(), lines]
    return "\n\n".join(parts) + "\n"


@functools.cache
def messages() -> tuple[Message, ...]:
    """Every place in the code that makes a message of ours, in the order of the files."""
    return tuple(_messages())


def _messages() -> Iterator[Message]:
    for path in sorted(file for base in ("src/llm_i2i", "steps", "pipelines") for file in (ROOT / base).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("src.").removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for call in (
                node for node in ast.walk(function) if isinstance(node, ast.Call) and name_of(node) in TELLING
            ):
                names = assigned(tree.body) | assigned(ast.walk(function), before=call.lineno)
                if said := message_of(call, module, names):
                    # A broken rule of params.yaml is a line of the error that reading makes.
                    is_rule = module.startswith("llm_i2i.params.")
                    yield Message("llm_i2i.params.reading" if is_rule else module, said)


def name_of(call: ast.Call) -> str:
    """What is called."""
    return call.func.id if isinstance(call.func, ast.Name) else ast.unparse(call.func)


def message_of(call: ast.Call, module: str, names: Mapping[str, ast.expr]) -> str:
    """What a call adds to what users are told, "" = nothing: an error, a line of one, an answer or a warning."""
    given = [text(argument, names) for argument in call.args]
    name, said = name_of(call), ""
    if name in FAMILY:
        parts = dict(zip(PARTS, given, strict=False))
        said = joined(parts | {k.arg: text(k.value, names) for k in call.keywords if k.arg})
    elif name in ("problems.append", "HTTPException", "Finding"):
        said = joined(dict(zip(("where", "found", "fix"), given, strict=False))) if given[1:] else given[0]
    elif name == "ValueError" and module.startswith("llm_i2i.params."):
        said = given[0]
    elif name in ("_is", "Check") and module == "llm_i2i.data.expectations":
        said = given[2 if name == "_is" else 0]
    return " ".join(said.replace("`", "'").split())


def assigned(nodes: Any, *, before: int = sys.maxsize) -> dict[str, ast.expr]:
    """What names are set to above a line; the last one counts."""
    found: dict[str, ast.expr] = {}
    for node in sorted((n for n in nodes if isinstance(n, ast.Assign | ast.AnnAssign)), key=lambda n: n.lineno):
        if node.lineno < before and node.value:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                found |= {t.id: v for t, v in pairs if isinstance(t, ast.Name)}
    return found


def text(node: ast.expr | None, names: Mapping[str, ast.expr], depth: int = 0) -> str:
    """A text expression as a reader meets it, … for each part that depends on the case."""
    told = "…"
    if isinstance(node, ast.Constant):
        told = str(node.value)
    elif isinstance(node, ast.JoinedStr):
        told = "".join(text(part, names, depth) for part in node.values)
    elif isinstance(node, ast.FormattedValue):
        inner = text(node.value, names, depth + 1)
        told = inner if "…" not in inner else "…"
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        told = text(node.left, names, depth) + text(node.right, names, depth)
    elif isinstance(node, ast.IfExp):
        told = text(node.body, names, depth) or text(node.orelse, names, depth)
    elif isinstance(node, ast.Name) and depth < 3 and isinstance(names.get(node.id), TEXTS):
        told = text(names[node.id], names, depth + 1)
    return told


def joined(parts: Mapping[str, str]) -> str:
    """The four parts as `LlmI2iError` joins them, on one line."""
    told = f"{parts.get('where', '…')}: {parts.get('found', '…')}"
    told += f"; expected {parts['expected']}" if parts.get("expected") else ""
    told += f"; {parts['fix']}" if parts.get("fix") else ""
    return told.rstrip(".") + "."


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: str) -> str:
    """A text that stays in its cell."""
    return " ".join(value.split()).replace("|", "\\|").replace("<", "&lt;")


def first_line(value: str | None) -> str:
    """The first paragraph of a docstring."""
    return " ".join((value or "").strip().split("\n\n")[0].split())


if __name__ == "__main__":
    for path, content in pages().items():
        (ROOT / path).write_text(content, encoding="utf-8")
