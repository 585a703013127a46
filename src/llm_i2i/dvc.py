"""The one door to DVC: its command line, its files, and what it and git recorded of another revision."""

import json
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from llm_i2i.errors import ArtifactError, LlmI2iError
from llm_i2i.files import read_json
from llm_i2i.git import git

DVC = (sys.executable, "-m", "dvc")


def environment() -> dict[str, str]:
    """Environment of commands that run stages: this Python's own programs first on PATH, no ZenML run of their own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "LLM_I2I_ZENML": "off", "PATH": path}


def dvc(*arguments: str) -> str:
    """Run dvc and return what it printed.

    Raises:
        LlmI2iError: dvc failed; its output is in the message.
    """
    done = subprocess.run(  # noqa: S603 - no shell
        [*DVC, *arguments], env=environment(), capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise LlmI2iError(f"dvc {' '.join(arguments)}", f"failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def dvc_shown(*arguments: str) -> None:
    """Run dvc, which shows what it does.

    Raises:
        LlmI2iError: dvc failed.
    """
    if subprocess.run([*DVC, *arguments], env=environment(), check=False).returncode:  # noqa: S603 - no shell
        raise LlmI2iError(f"dvc {arguments[0]}", "failed, see above", fix="mend that and run the same again")


def graph() -> dict[str, set[str]]:
    """Stages and what they wait for, in an order to run them in, as DVC sees it."""
    before: dict[str, set[str]] = {}
    for line in dvc("dag", "--dot").splitlines():
        names = re.findall(r'"([^"]+)"', line)
        for name in names:
            before.setdefault(name, set())
        if len(names) == 2:
            before[names[1]].add(names[0])
    # data.dvc is no stage: it is there before any of them.
    stages = [name for name in TopologicalSorter(before).static_order() if not name.endswith(".dvc")]
    return {name: before[name] & set(stages) for name in stages}


class Revision:
    """The project as a git revision and the DVC cache hold it.

    Args:
        name: Anything git understands: a commit, tag, branch or experiment ref.

    Raises:
        ArtifactError: git does not know it, or it has no dvc.lock.
    """

    def __init__(self, name: str) -> None:
        commit = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        if commit is None:
            raise ArtifactError(f"revision {name}", "git does not know it", "a commit, tag or branch")
        self.name, self.commit = name, commit.strip()
        self._md5 = _outs(self.text("dvc.lock"))

    def text(self, path: str) -> str:
        """Content of a tracked file.

        Raises:
            ArtifactError: The revision does not have it.
        """
        content = git("show", f"{self.commit}:./{path}")
        if content is None:
            raise ArtifactError(f"{path} of {self.name}", "no such file", fix="commit the results of a run")
        return content

    def json(self, path: str) -> dict[str, Any]:
        """Content of a tracked JSON file."""
        content: dict[str, Any] = json.loads(self.text(path))
        return content

    def files(self, folder: str) -> list[str]:
        """Paths of the tracked files of a folder."""
        listed = git("ls-tree", "--name-only", self.commit, f"./{folder}/") or ""
        return listed.split("\n")[:-1]

    def output(self, path: str) -> Path:
        """Where the DVC cache holds an output, or a file of an output that is a folder.

        Raises:
            ArtifactError: No stage wrote it, or it is no longer in the cache.
        """
        where = f"{path} of {self.name}"
        md5 = self._of(path)
        found = cached(md5) if md5 else None
        if found is None or not found.is_file():
            raise ArtifactError(where, "not in the DVC cache", fix="run `dvc pull`, or the stage again")
        return found

    def has(self, path: str) -> bool:
        """Whether a path is an output, or a file of an output that is a folder."""
        return self._of(path) is not None

    def names(self, folder: str) -> list[str]:
        """Paths in an output that is a folder; none if it is no output, or its list is not in the cache."""
        return [entry["relpath"] for entry in self._listed(folder)]

    def _of(self, path: str) -> str | None:
        folder, _, name = path.rpartition("/")
        within = (entry["md5"] for entry in self._listed(folder) if entry["relpath"] == name)
        return self._md5.get(path) or next(within, None)

    def _listed(self, folder: str) -> list[dict[str, str]]:
        listing = cached(self._md5.get(folder, ""))
        if listing is None or not listing.is_file():
            return []
        entries: list[dict[str, str]] = read_json(listing)
        return entries


def locked_md5(path: Path) -> str | None:
    """What the workspace's dvc.lock records of an output; None if nothing."""
    lock = Path("dvc.lock")
    return _outs(lock.read_text(encoding="utf-8")).get(path.as_posix()) if lock.is_file() else None


def outs_at(commit: str) -> dict[str, str]:
    """md5 of every output by path, as a commit's dvc.lock has them; none if git has no such file."""
    lock = git("show", f"{commit}:./dvc.lock")
    return _outs(lock) if lock else {}


def stage_outs(stage: str) -> dict[str, str]:
    """md5 by path of a stage's outputs, as the workspace's dvc.lock has them."""
    return _outs(Path("dvc.lock").read_text(encoding="utf-8"), stage)


def _outs(lock: str, only: str = "") -> dict[str, str]:
    stages = yaml.safe_load(lock)["stages"]
    chosen = [stages[only]] if only else stages.values()
    return {out["path"]: out["md5"] for stage in chosen for out in stage.get("outs", [])}


_cache: list[Path] = []


def cached(md5: str) -> Path | None:
    """Place of a file in DVC's cache (layout of DVC 3); None without a hash."""
    if not md5:
        return None
    if not _cache:
        _cache.append(Path(dvc("cache", "dir").strip()))
    return _cache[0] / "files" / "md5" / md5[:2] / md5[2:]


def experiment_ref(name: str) -> str | None:
    """The git ref under which DVC keeps a finished experiment; None if there is none."""
    listed = git("for-each-ref", "--format=%(refname)", "refs/exps") or ""
    return next((ref for ref in listed.splitlines() if ref.rpartition("/")[2] == name), None)
