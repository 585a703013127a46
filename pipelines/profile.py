"""Profiles: profiles/NAME.yaml is complete; params.yaml names one, restates what a user decides and may differ."""

import logging
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from llm_i2i.errors import ParamsError
from llm_i2i.files import write_text
from llm_i2i.git import git
from llm_i2i.params.reading import check_profile, leaves, overlay, read_profile
from llm_i2i.params.rendering import HEAD, dials, head_of, yaml_text

logger = logging.getLogger(__name__)

PARAMS = Path("params.yaml")
PROFILES = Path("profiles")
MODELS = PROFILES / "models.yaml"
OF_THE_DATA = "model_card"  # the section that describes the user's data, whatever the profile


def apply(name: str) -> None:
    """Write params.yaml whole from a profile; only what describes the user's data stays.

    Args:
        name: Name of a file in profiles/.

    Raises:
        ParamsError: No such profile, or it breaks a rule; or params.yaml holds uncommitted changes that would be lost.
    """
    names = known()
    if name not in names:
        raise ParamsError("profile", f"is {name!r}", " | ".join(names))
    check_profile(name)
    current = PARAMS.read_text(encoding="utf-8")
    committed = git("show", f"HEAD:./{PARAMS}")
    if committed not in {None, current} and current not in _written_by_profiles(names, current):
        raise ParamsError(
            str(PARAMS),
            "has uncommitted changes, which a profile would overwrite",
            fix="commit them, or drop them with `git checkout params.yaml`",
        )
    write_text(text_of(name, current), PARAMS)
    logger.info("profile %s: params.yaml differs from it in %s", name, ", ".join(differences()) or "nothing")


def known() -> list[str]:
    """Names of all profiles."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml") if path != MODELS)


def text_of(name: str, current: str) -> str:
    """params.yaml of a profile.

    Args:
        name: Name of a file in profiles/.
        current: params.yaml as it stands: what it says of the user's data is kept.
    """
    kept = {OF_THE_DATA: section} if isinstance(section := _parse(current).get(OF_THE_DATA), dict) else {}
    return yaml_text({"profile": name, **dials(overlay(read_profile(name), kept))}, HEAD)


def differences() -> list[str]:
    """Every key=value of params.yaml that is not its profile's."""
    raw = _parse(PARAMS.read_text(encoding="utf-8"))
    if not raw.get("profile"):
        return []
    theirs = dict(leaves(read_profile(raw.pop("profile"))))
    return [f"{'.'.join(key)}={value}" for key, value in leaves(raw) if key not in theirs or theirs[key] != value]


def under(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """params.yaml as a mapping, every key that it states with another profile's value.

    Args:
        raw: params.yaml.
        name: Name of a file in profiles/.
    """
    theirs = dict(leaves(read_profile(name)))
    restated: dict[str, Any] = {"profile": name}
    for key, _ in leaves(raw):
        if key in theirs and key[0] != OF_THE_DATA:
            restated = overlay(restated, reduce(lambda inner, part: {part: inner}, reversed(key), theirs[key]))
    return restated


def with_overlay(text: str, values: dict[str, Any]) -> str:
    """A YAML text of parameters with other values; the comment at its head stays, all others are the schema's.

    Args:
        text: params.yaml, a profile or profiles/models.yaml.
        values: New values, nested like the text.
    """
    return yaml_text(overlay(_parse(text), values), head_of(text))


def first_table(markdown: str) -> str:
    """The first table of a Markdown text, or the text itself if it has none."""
    lines = markdown.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("|")), None)
    if start is None:
        return markdown.strip()
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "\n".join(lines[start:end])


def _written_by_profiles(names: list[str], current: str) -> Iterator[str]:
    """params.yaml as each profile writes it; one that is broken has written nothing."""
    for name in names:
        try:
            check_profile(name)
            yield text_of(name, current)
        except ParamsError:
            logger.debug("profile %s is broken", name)


def _parse(text: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParamsError(str(PARAMS), f"cannot be read ({error})", "a YAML file in UTF-8") from error
    return raw if isinstance(raw, dict) else {}
