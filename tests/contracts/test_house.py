"""Make targets, CI, profiles, import direction and the lock."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llm_i2i.params import Params
from pipelines import profile
from tests.conftest import ROOT

PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", read("Makefile"), flags=re.MULTILINE))


def test_ci_runs_lint_and_all_tests() -> None:
    lines = read(".ci/run").splitlines()
    assert {"make lint", "make test"} <= set(lines)
    assert "run: .ci/run" in read(".github/workflows/ci.yml")
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_documented_make_targets_exist() -> None:
    documented = set(
        re.findall(r"`make ([a-z][\w-]*)", read("README.md") if (ROOT / "README.md").exists() else "")
    )
    documented |= set(re.findall(r"^make ([a-z][\w-]*)", read("README.md"), flags=re.MULTILINE))
    assert documented, "README.md names no make target"
    assert documented <= targets()


@pytest.mark.parametrize("name", PROFILES)
def test_profile_holds_known_keys_and_no_second_copy_of_a_value(name: str) -> None:
    overlay = yaml.safe_load(read(f"profiles/{name}.yaml"))
    defaults = yaml.safe_load(read("params.yaml"))
    for key, value in profile.leaves(overlay):
        place = defaults
        for part in key:
            assert part in place, f"{'.'.join(key)} is no key of params.yaml"
            place = place[part]
        # `accumulation: 1` in a profile whose default is 1 would be a second copy.
        assert place != value, f"{'.'.join(key)}: {value} is the value of params.yaml already"


@pytest.mark.parametrize("name", PROFILES)
def test_profile_keeps_comments_and_layout_of_params(name: str) -> None:
    text = read("params.yaml")
    overlay = yaml.safe_load(read(f"profiles/{name}.yaml"))
    changed = profile.with_overlay(text, overlay)
    Params.model_validate(yaml.safe_load(changed))
    different = [(a, b) for a, b in zip(text.splitlines(), changed.splitlines(), strict=True) if a != b]
    assert len(different) == len(list(profile.leaves(overlay)))
    for before, after in different:
        assert before.partition("#")[2] == after.partition("#")[2]


def test_import_direction() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_lock_pins_every_direct_dependency() -> None:
    locked = {
        canonicalize_name(line.split("==")[0]): line.split("==")[1]
        for line in read("constraints.txt").splitlines()
        if line and not line.startswith("#")
    }
    found = re.findall(r'^  "([^"]+==[^"]+)",$', read("pyproject.toml"), flags=re.MULTILINE)
    assert len(found) > 30
    for text in found:
        requirement = Requirement(text)
        (pin,) = requirement.specifier
        assert locked[canonicalize_name(requirement.name)] == pin.version, text
    assert not [name for name in locked if name.startswith(("nvidia", "triton"))]
    assert locked["torch"].count("+") == 0


def test_shell_parses() -> None:
    subprocess.run([shutil.which("bash"), "-n", str(ROOT / ".ci/run")], check=True)
    subprocess.run(
        [shutil.which("make"), "-n", "repro", "test", "lint"], cwd=ROOT, check=True, capture_output=True
    )
