"""Make targets, CI, profiles, import direction and the lock."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llm_i2i.params import Params, Section, read_profile
from llm_i2i.params.__main__ import texts
from llm_i2i.params.reading import check_profile, leaves
from pipelines import check, profile
from pipelines.lab import lock
from tests.conftest import ROOT

PROFILES = sorted({path.stem for path in (ROOT / "profiles").glob("*.yaml")} - {"models"})


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
    documented = set(re.findall(r"`make ([a-z][\w-]*)", read("README.md") if (ROOT / "README.md").exists() else ""))
    documented |= set(re.findall(r"^make ([a-z][\w-]*)", read("README.md"), flags=re.MULTILINE))
    assert documented, "README.md names no make target"
    assert documented <= targets()


@pytest.mark.parametrize("name", PROFILES)
def test_profile_is_complete_and_makes_sense(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check_profile(name)
    params = Params.model_validate({**read_profile(name), "profile": name})
    monkeypatch.setattr(check, "_has_cuda", lambda: True)
    assert list(check.find(params, {})) == []


def test_params_is_the_laptop_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = read("params.yaml")
    assert text == profile.text_of("laptop", text)
    assert profile.differences() == []
    assert len(text.splitlines()) <= 110
    assert len(list(leaves(yaml.safe_load(text)))) <= 90


def test_explanations_are_the_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments of params.yaml and profiles/, and docs/params.md: `python -m llm_i2i.params` writes them."""
    monkeypatch.chdir(ROOT)
    found = texts()
    assert len(found) == len(PROFILES) + 3
    for path, text in found.items():
        assert path.read_text(encoding="utf-8") == text, path


def test_every_option_is_explained_once() -> None:
    for section in sections(Params):
        for name, field in section.model_fields.items():
            if section is not Params or name in {"profile", "seed"}:
                assert field.description, f"{section.__name__}.{name}"
        assert section.__doc__


def sections(section: type[Section]) -> set[type[Section]]:
    kinds = {field.annotation for field in section.model_fields.values() if isinstance(field.annotation, type)}
    inner = {kind for kind in kinds if issubclass(kind, Section)}
    return {section}.union(*map(sections, inner))


def test_import_direction() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_locks_pin_and_hash_every_direct_dependency() -> None:
    locks = {path.name: lock.read(path) for path in ROOT.glob("requirements*.lock")}
    assert len(locks) == 7
    for name, locked in locks.items():
        pins = [Requirement(text) for text in locked]
        assert all([each.operator for each in pin.specifier] == ["=="] for pin in pins), name
        for text, hashes in locked.items():
            assert hashes, text
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), text
    versions = {
        canonicalize_name(Requirement(text).name): text.partition(" ; ")[0].partition("==")[2]
        for name in ("requirements.lock", "requirements-torch-cuda.lock")
        for text in locks[name]
    }
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(text for extra in lock.EXTRAS for text in extras[extra])]
    assert len(wanted) > 40
    for text in wanted:
        requirement = Requirement(text)
        (pin,) = requirement.specifier
        assert versions[canonicalize_name(requirement.name)] == pin.version, text
    assert set(extras) - set(lock.EXTRAS) == {"bench", "docs", "spark"}
    assert not [text for text in locks["requirements.lock"] if lock.OF_TORCH.match(text)]
    (cpu,) = locks["requirements-torch-cpu.lock"]
    assert cpu == f"torch=={versions['torch']}+cpu"
    pinned = {text.partition(" ; ")[0]: hashes for text, hashes in locks["requirements.lock"].items()}
    for text, hashes in locks["requirements-serve.lock"].items():
        assert pinned[text.partition(" ; ")[0]] == hashes, text
    names = {text.partition("==")[0]: text for text in pinned}
    for extra in ("docs", "spark"):
        further = {text.partition(" ; ")[0] for text in locks[f"requirements-{extra}.lock"]}
        assert set(extras[extra]) <= further
        assert not [text for text in further if names.get(text.partition("==")[0], text) != text]  # one .venv holds all


def test_an_install_checks_hashes_and_names_no_host() -> None:
    for name in ("Makefile", "deploy/Dockerfile"):
        lines = [line for line in read(name).splitlines() if "pip install" in line]
        assert lines
        for line in lines:
            assert re.search(r"\$\(HASHED\)|--require-hashes|--no-deps.* (--editable )?\.$", line), line
            assert not re.search(r"://|index-url|find-links", line), line


def test_shell_parses() -> None:
    subprocess.run([shutil.which("bash"), "-n", str(ROOT / ".ci/run")], check=True)
    subprocess.run([shutil.which("make"), "-n", "repro", "test", "lint"], cwd=ROOT, check=True, capture_output=True)
