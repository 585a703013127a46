"""Write parameters as text: YAML with each option's explanation beside it, and the reference page of all options."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml
from pydantic.fields import FieldInfo

from llm_i2i.params.fields import DIAL, Section
from llm_i2i.params.reading import Tree
from llm_i2i.params.root import Params

HEAD: Final = """\
# What you decide; docs/params.md explains it. Every other option has its value in the profile: add its key here to
# change it. `make profile NAME=laptop|ci|compact|gpu|gpu-80gb` writes this file anew for another machine or backbone.
"""
_REFERENCE_HEAD: Final = """\
# Parameters

Made from `src/llm_i2i/params/` by `python -m llm_i2i.params`. What runs is the profile that `params.yaml` names,
overlaid by `params.yaml`: **bold** options stand there; any other may be added there. The options of the I2I models
stand in `profiles/models.yaml`.
"""
_COLUMN: Final = 28  # comments begin here where the value leaves room
_WIDTH: Final = 118


def dials(values: Mapping[str, Any], section: type[Section] = Params) -> Tree:
    """The part of all parameters that stands in params.yaml, in the order of the schema."""
    result: Tree = {}
    for key, field in _fields(section).items():
        inner = _section(field)
        if _is_dial(field):
            # Of a section there: what differs from the profile, to begin with nothing.
            result[key] = {} if inner else values[key]
        elif inner and section is Params and (stated := dials(values[key], inner)):
            result[key] = stated
    return result


def yaml_text(values: Mapping[str, Any], head: str) -> str:
    """YAML of some or all parameters, in the order of the schema, each with its explanation; unknown keys last.

    Args:
        values: Nested like params.yaml.
        head: Comment lines before everything else.
    """
    lines: list[str] = [head.rstrip("\n")]
    for key, value in _ordered(values, Params):
        if isinstance(value, dict):
            lines.append("")
        lines += _yaml_lines(key, value, _fields(Params).get(key), "")
    return "\n".join(lines) + "\n"


def reference(laptop: Mapping[str, Any]) -> str:
    """docs/params.md.

    Args:
        laptop: Every parameter of the profile laptop.
    """
    definitions = Params.model_json_schema(by_alias=True)
    general, sections = [], []
    for name, field in _fields(Params).items():
        if section := _section(field):
            rows = list(_rows(definitions, section, laptop[name]))
            if rows:
                sections.append(f"## {name}\n\n{_title(field)}.\n\n{_table(rows)}")
        else:
            kind = _kind(definitions["properties"][name])
            general.append(f"| **{name}** | {kind} | {laptop.get(name, 'laptop')} | {field.description} |")
    return "\n".join([_REFERENCE_HEAD, _table(general), *sections])


def _table(rows: list[str]) -> str:
    return "\n".join(["| option | type | laptop | explanation |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _rows(definitions: Tree, section: type[Section], values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    schema = definitions["$defs"][section.__name__]
    for key, field in _fields(section).items():
        if inner := _section(field):
            yield from _rows(definitions, inner, values[key], f"{prefix}{key}.")
        else:
            option = f"**{key}**" if _is_dial(field) and not prefix else f"{prefix}{key}"
            value = _scalar(values[key]).replace("|", "\\|")
            text = (field.description or "").replace("|", "\\|")
            yield f"| {option} | {_kind(schema['properties'][key])} | {value} | {text} |"


def _kind(schema: Mapping[str, Any]) -> str:
    """A type and its bounds in words, from a JSON schema."""
    if "enum" in schema:
        return " \\| ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        items = schema["items"]
        return f"list of {'names' if 'enum' in items else _kind(items)}"
    names = {"integer": "int", "number": "float", "string": "text", "boolean": "true \\| false"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([names[schema["type"]], ", ".join(bounds)]).strip()


def head_of(text: str) -> str:
    """The comment lines with which a YAML text begins."""
    return "\n".join(itertools.takewhile(lambda line: line.startswith("#"), text.split("\n")))


def _yaml_lines(key: str, value: Any, field: FieldInfo | None, indent: str) -> Iterator[str]:
    section = _section(field) if field else None
    text = (field.description or (_title(field) if section else "")) if field else ""
    if isinstance(value, dict) and value:
        yield _commented(f"{indent}{key}:", text)
        for inner, content in _ordered(value, section):
            yield from _yaml_lines(inner, content, _fields(section).get(inner) if section else None, indent + "  ")
    else:
        yield _commented(f"{indent}{key}: {_scalar(value)}", text)


def _commented(line: str, text: str) -> str:
    """The explanation beside the line, or above it where it finds no room beside."""
    if not text:
        return line
    beside = f"{line}  # {text}" if len(line) + 2 > _COLUMN else f"{line:<{_COLUMN}}# {text}"
    return beside if len(beside) <= _WIDTH else f"{' ' * (len(line) - len(line.lstrip()))}# {text}\n{line}"


def _scalar(value: Any) -> str:
    """A value in YAML, on one line, read alike by YAML 1.1 and 1.2."""
    if isinstance(value, dict):
        return "{}" if not value else yaml.safe_dump(value, default_flow_style=True).strip()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_element, value)) + "]"
    if isinstance(value, float):
        mantissa, exponent, power = repr(value).partition("e")
        return mantissa + (".0" if exponent and "." not in mantissa else "") + exponent + power
    dumped: str = yaml.safe_dump(value, width=10_000, allow_unicode=True)
    return dumped.partition("\n")[0] if value != "" else '""'


def _element(value: Any) -> str:
    """As `_scalar`, inside a list: there a comma ends a plain text."""
    if not isinstance(value, str):
        return _scalar(value)
    dumped: str = yaml.safe_dump([value], default_flow_style=True, width=10_000, allow_unicode=True)
    return dumped.strip()[1:-1]


def _ordered(values: Mapping[str, Any], section: type[Section] | None) -> list[tuple[str, Any]]:
    order = list(_fields(section)) if section else []
    return sorted(values.items(), key=lambda entry: order.index(entry[0]) if entry[0] in order else len(order))


def _fields(section: type[Section] | None) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in section.model_fields.items()} if section else {}


def _section(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _title(field: FieldInfo) -> str:
    section = _section(field)
    return (section.__doc__ or "").split("\n")[0].rstrip(".") if section else ""


def _is_dial(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and DIAL in field.json_schema_extra
