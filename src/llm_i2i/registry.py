"""The model registry: GTO's git tags, through GTO's command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from llm_i2i.errors import ArtifactError, LlmI2iError
from llm_i2i.git import git

STAGE = "prod"
SIGNATURES = "signature"  # first part of the tags that hold them


class Version(NamedTuple):
    """A registered version of a model.

    Attributes:
        name: Such as v0.0.1.
        commit: Full id of the commit it is registered at.
    """

    name: str
    commit: str


def models() -> dict[str, dict[str, str]]:
    """Models of dvc.yaml's `artifacts`, the one of type index, which serves, first.

    Raises:
        ArtifactError: There is no dvc.yaml, or it names no index, or more than one.
    """
    try:
        found = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8")).get("artifacts")
    except FileNotFoundError as error:
        raise ArtifactError("dvc.yaml", "no such file", fix="run this in a project's folder") from error
    serving = [name for name, model in (found or {}).items() if model.get("type") == "index"]
    if len(serving) != 1:
        raise ArtifactError("dvc.yaml", f"names {len(serving)} artifacts of type index", "the one that serves")
    return {serving[0]: found[serving[0]], **found}


def champion(model: str) -> Version | None:
    """The version that holds stage prod; None if no version ever did."""
    found = _show(f"{model}#{STAGE}")
    return Version(found[0]["version"], found[0]["commit_hexsha"]) if found else None


def tags(model: str) -> str:
    """What changes whenever a version of a model is registered or gets a stage: the tags that GTO keeps this in."""
    patterns = (f"refs/tags/{model}@*", f"refs/tags/{model}#*", f"refs/tags/{SIGNATURES}/{model}/*")
    return git("for-each-ref", "--format=%(refname) %(objectname)", *patterns) or ""


def signature(model: str, version: str) -> str:
    """The signature of a version; empty if it has none."""
    return git("for-each-ref", "--format=%(contents)", f"refs/tags/{SIGNATURES}/{model}/{version}") or ""


def keep_signature(model: str, version: Version, text: str) -> None:
    """Keep a version's signature as the message of a git tag, which travels with the registry's.

    Raises:
        LlmI2iError: git refuses the tag.
    """
    name = f"{SIGNATURES}/{model}/{version.name}"
    options = ("--force", "--annotate", "--no-sign", "--cleanup=verbatim", "--message", text)
    if git("tag", *options, name, version.commit) is None:
        raise LlmI2iError(f"git tag {name}", "failed", fix="set user.name and user.email of git")


def gate_at(commit: str) -> dict[str, Any]:
    """Section gate of a commit's params.yaml; empty if there is none."""
    params: dict[str, Any] = yaml.safe_load(git("show", f"{commit}:./params.yaml") or "") or {}
    return dict(params.get("gate", {}))


def run_at(commit: str) -> str:
    """MODEL-ARM, the run that a commit's params.yaml lets serve."""
    gate = gate_at(commit)
    return f"{gate.get('model')}-{gate.get('arm')}"


def registered_at(model: str, commit: str) -> Version | None:
    """The version registered at a commit; None if there is none."""
    found = (entry["version"] for entry in _show(model) if entry["commit_hexsha"] == commit)
    version = next(found, None)
    return None if version is None else Version(version, commit)


def register(model: str, version: str | None = None) -> None:
    """Register HEAD as a version; without a name the next one."""
    _gto("register", model, "HEAD", *(["--version", version] if version else []))


def assign(model: str, version: str) -> None:
    """Give a version stage prod, even if it held that stage before."""
    # --force: a version that comes back after another one makes a new tag, which is what a roll-back is.
    _gto("assign", model, "--version", version, "--stage", STAGE, "--force")


def head() -> str:
    """Full id of the commit checked out.

    Raises:
        LlmI2iError: There is no commit.
    """
    commit = git("rev-parse", "--verify", "HEAD")
    if commit is None:
        raise LlmI2iError("git", "no commit here", fix="commit the results of a run")
    return commit.strip()


def uncommitted() -> list[str]:
    """Tracked files that differ from HEAD and new files that git does not ignore."""
    return [line[3:] for line in (git("status", "--porcelain") or "").splitlines()]


def _show(selector: str) -> list[dict[str, Any]]:
    """Versions, newest first; none if the selector names nothing."""
    entries: list[dict[str, Any]] = json.loads(_gto("show", selector, "--json") or "[]")
    return entries


def _gto(*arguments: str) -> str:
    """What gto printed; nothing where it is asked to show a model that it does not know.

    Raises:
        LlmI2iError: It failed, or is not there.
    """
    command = [str(Path(sys.executable).with_name("gto")), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)  # noqa: S603 - no shell
    except FileNotFoundError as error:
        raise LlmI2iError("gto", "is not installed", fix="run `make setup`") from error
    if done.returncode and arguments[0] == "show" and "Cannot find artifact" in done.stderr:
        return ""
    if done.returncode:
        raise LlmI2iError(f"gto {' '.join(arguments)}", f"failed: {done.stdout}{done.stderr}")
    return done.stdout
