"""What ran: git revision, data hash, package versions."""

import logging
import platform
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

from llm_i2i.git import git

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"
# Files whose change alters results. dvc.lock and reports/ change in every run and would always look dirty.
CODE_PATHS = ("src", "steps", "pipelines", "profiles", "params.yaml", "dvc.yaml", "data.dvc",
              "pyproject.toml")  # fmt: skip
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "numpy", "pandas", "pyarrow", "numba",
            "scikit-learn", "great-expectations", "dvc", "zenml")  # fmt: skip


@dataclass(frozen=True)
class Provenance:
    """Where a report comes from."""

    revision: str  # Full git commit id, or "unknown"
    commit_date: str  # Date of that commit in ISO 8601, or "unknown"
    changed: tuple[str, ...] | None  # Code and parameter files that differ from the commit; None = not known
    # First out of data.dvc (md5, size in bytes, nfiles); empty when there is no data.dvc
    data: dict[str, object]
    packages: dict[str, str]  # Installed version of each main package, Python first


def _data_hash(path: Path) -> dict[str, object]:
    """First out of a .dvc file, without its path; empty if there is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        first = content["outs"][0]
        return {str(key): value for key, value in first.items() if key not in ("path", "hash")}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        logger.warning("report: %s is no .dvc file (%s); the data hash is left out", path, error)
        return {}


def _package_versions() -> dict[str, str]:
    """Python's version and that of every main package that is installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def read_provenance(root: Path) -> Provenance:
    """Read git, data.dvc and the installed packages below a project folder; nothing missing is an error."""
    revision = git("rev-parse", "--verify", "HEAD", root=root)
    status = git("status", "--porcelain", "--", *CODE_PATHS, root=root)
    date = git("log", "-1", "--format=%cI", root=root)
    return Provenance(
        revision=(revision or "").strip() or UNKNOWN,
        commit_date=(date or "").strip() or UNKNOWN,
        changed=None if status is None else tuple(line[3:].strip('"') for line in status.splitlines()),
        data=_data_hash(root / "data.dvc"),
        packages=_package_versions(),
    )
