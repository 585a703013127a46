"""A copy of the project in a folder and git repository of its own, driven through its command lines."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("tests/", "benchmarks/", "docs/", "experiments/", "reports/", "dvc.lock")


@dataclass
class Project:
    """A project folder.

    Attributes:
        root: The folder.
        zenml: Whether stages run in ZenML.
        others: Variables that other programs have set.
    """

    root: Path
    zenml: bool = False
    others: dict[str, str] = field(default_factory=dict)

    @classmethod
    def copy(cls, root: Path, *, zenml: bool = False, data: Path | None = None) -> "Project":
        """Copy what git tracks or would track, apply the ci profile, commit, and put raw tables into data/."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if not name.startswith(LEFT_OUT) and (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        project = cls(root, zenml)
        project.run("git", "init", "--quiet")
        project.commit("the project")
        project.run(sys.executable, "-m", "pipelines", "profile", "ci")
        if data is not None:
            shutil.copytree(data, root / "data")
        return project

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", message)

    @property
    def environment(self) -> dict[str, str]:
        bin_folder = str(Path(sys.executable).parent)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ZENML_", "DVC_STAGE", "DVC_ROOT"))}
        return {
            **clean,
            "PATH": bin_folder + os.pathsep + os.environ["PATH"],
            # The copy's sources are these very files; so compiled kernels are shared between copies.
            "PYTHONPATH": str(ROOT / "src"),
            "LLM_I2I_ZENML": "on" if self.zenml else "off",
            "DVC_NO_ANALYTICS": "true",
            "CI": "true",
            **self.others,
        }

    def run(self, *command: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder; fail the test with its output if it fails and must not."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if ok:
            assert done.returncode == 0, f"{command} failed:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done

    def dvc(self, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "dvc", *arguments, ok=ok)

    def pipeline(self, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "pipelines", *arguments, ok=ok)

    def repro(self, *arguments: str) -> list[str]:
        """Run `dvc repro` and tell the stages that ran."""
        return stages_run(self.dvc("repro", *arguments).stdout)

    def kill_when(self, appears: str, *arguments: str) -> None:
        """Start `dvc repro` and kill it and its children as soon as files match a pattern."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", *arguments],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + 240
        try:
            while not list(self.root.glob(appears)):
                assert process.poll() is None, f"dvc repro ended before {appears} was there"
                assert time.monotonic() < end, f"{appears} did not appear"
                time.sleep(0.02)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def set_param(self, key: str, value: Any, *, rename: str | None = None, file: str = "params.yaml") -> None:
        """Change a value of params.yaml or of a profile, or rename its key."""
        yaml_file = YAML()
        path = self.root / file
        document = yaml_file.load(path.read_text(encoding="utf-8"))
        *parents, last = key.split(".")
        place = document
        for part in parents:
            place = place[part]
        if rename:
            place[rename] = place.pop(last)
        else:
            place[last] = value
        with path.open("w", encoding="utf-8") as file:
            yaml_file.dump(document, file)

    def locked_outs(self) -> dict[str, str]:
        """md5 of every output by path, as dvc.lock has it."""
        lock = yaml.safe_load((self.root / "dvc.lock").read_text(encoding="utf-8"))
        return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}

    def sha256(self, *patterns: str) -> dict[str, str]:
        """SHA-256 of the files that match, by path."""
        files = [path for pattern in patterns for path in self.root.glob(pattern) if path.is_file()]
        assert files, f"no file matches {patterns}"
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
        }


def stages_run(output: str) -> list[str]:
    """Stages that a `dvc repro` ran, out of what it printed."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
