"""Profiles: the committed params.yaml is the laptop; profiles/NAME.yaml says what another machine changes."""

import logging
import subprocess
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from llm_i2i.errors import ParamsError
from llm_i2i.params import load_params

logger = logging.getLogger(__name__)

PARAMS = Path("params.yaml")
PROFILES = Path("profiles")
LAPTOP = "laptop"


def apply(name: str) -> None:
    """Write the committed params.yaml with a profile's values into params.yaml, comments kept.

    Profiles do not pile up: each starts from the committed values.

    Args:
        name: `laptop`, or the name of a file in profiles/.

    Raises:
        ParamsError: No such profile; it holds an unknown key or a value that breaks a rule; or params.yaml
            holds uncommitted changes that would be lost.
    """
    names = [LAPTOP, *sorted(path.stem for path in PROFILES.glob("*.yaml"))]
    if name not in names:
        raise ParamsError("profile", f"is {name!r}", " | ".join(names))
    current = PARAMS.read_text(encoding="utf-8")
    committed = _committed()
    if committed is None:
        committed = current
    elif current not in set(_profiled(committed, names)):
        raise ParamsError(
            str(PARAMS),
            "has uncommitted changes, which a profile would overwrite",
            fix="commit them, or drop them with `git checkout params.yaml`",
        )
    values = values_of(name)
    text = with_overlay(committed, values)
    partial = PARAMS.with_name("params.yaml.partial")
    partial.write_text(text, encoding="utf-8")
    try:
        load_params(partial)
    except ParamsError as error:
        raise ParamsError(f"profiles/{name}.yaml", f"does not fit {PARAMS} ({error})") from error
    else:
        partial.replace(PARAMS)
    finally:
        partial.unlink(missing_ok=True)
    changed = [f"{'.'.join(key)}={value}" for key, value in leaves(values)]
    logger.info("profile %s: %s", name, ", ".join(changed) or "the committed values")


def _profiled(committed: str, names: list[str]) -> Iterator[str]:
    """params.yaml as each profile leaves it; one that does not fit has left nothing."""
    for name in names:
        try:
            yield with_overlay(committed, values_of(name))
        except ParamsError:
            logger.debug("profile %s does not fit", name)


def with_overlay(text: str, overlay: dict[str, Any]) -> str:
    """Replace values in a YAML text.

    Args:
        text: YAML; its comments and layout stay.
        overlay: New values, nested like the text.

    Returns:
        The text with the new values.

    Raises:
        ParamsError: The overlay has keys that the text does not have; all are listed.
    """
    if not overlay:
        return text
    yaml = _yaml()
    document = yaml.load(text)
    unknown = []
    for key, value in leaves(overlay):
        place = document
        for part in key[:-1]:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict) or key[-1] not in place:
            unknown.append(".".join(key))
        elif isinstance(value, list) and isinstance(place[key[-1]], list):
            place[key[-1]][:] = value  # in place: it stays on its line
        else:
            place[key[-1]] = value
    if unknown:
        raise ParamsError("profile", f"unknown keys {unknown}", f"keys of {PARAMS}")
    out = StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def leaves(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Walk over a nested mapping's values with their keys; a list is one value."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def first_table(markdown: str) -> str:
    """The first table of a Markdown text, or the text itself if it has none."""
    lines = markdown.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("|")), None)
    if start is None:
        return markdown.strip()
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "\n".join(lines[start:end])


def values_of(name: str) -> dict[str, Any]:
    """The values that a profile changes, nested like params.yaml.

    Raises:
        ParamsError: Its file cannot be read.
    """
    if name == LAPTOP:
        return {}
    path = PROFILES / f"{name}.yaml"
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ParamsError(str(path), f"cannot be read ({error})", "a YAML file in UTF-8") from error


def _committed() -> str | None:
    """params.yaml of the last commit; None without git or commit."""
    command = ["git", "show", f"HEAD:./{PARAMS}"]
    try:
        shown = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - fixed words
    except (OSError, subprocess.CalledProcessError):
        return None
    return shown.stdout.decode("utf-8")


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    return yaml
