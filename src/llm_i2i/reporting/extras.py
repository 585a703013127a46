"""What the report shows besides this run, where it is there: experiments, the gate's verdict, another revision."""

import base64
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Json = dict[str, Any]


@dataclass(frozen=True)
class Extras:
    """Optional parts of the report.

    Attributes:
        experiments: results.json of every finished experiment, and its plots as data URIs under "images".
        gate: Content of reports/gate.json.
        comparison: Content of reports/comparison.json.
    """

    experiments: tuple[Json, ...] = ()
    gate: Json | None = None
    comparison: Json | None = None


def read_extras(reports: Path) -> Extras:
    """Read what is there below reports/; a file that cannot be read is left out with a warning.

    Args:
        reports: The folder reports/ of a project.

    Returns:
        The optional parts.
    """
    experiments = []
    for path in sorted(reports.glob("experiments/*/results.json")):
        content = _read(path)
        if content is not None:
            images = [[name, _data_uri(path.with_name(name))] for name in content.get("plots", [])]
            experiments.append(content | {"images": images})
    return Extras(tuple(experiments), _read(reports / "gate.json"), _read(reports / "comparison.json"))


def _read(path: Path) -> Json | None:
    if not path.is_file():
        return None
    try:
        content: Json = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        logger.warning("report: %s is left out (%s)", path, error)
        return None
    return content


def _data_uri(path: Path) -> str:
    """A plot as an image of the page: what is in it can neither run nor load anything."""
    if not path.is_file():
        return ""
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
